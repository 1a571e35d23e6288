"""Errors with which a start or a command on the host ends."""

from __future__ import annotations


class NewerSchema(Exception):
    """The store was written by a newer Confide."""


class UnsafeDurability(Exception):
    """The store's own settings let it lose what it acknowledged."""
