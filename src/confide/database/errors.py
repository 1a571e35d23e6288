"""Errors that end a start or a command on the host."""

from __future__ import annotations


class NewerSchema(Exception):
    """A newer Confide has migrated the database."""


class UnsafeDurability(Exception):
    """The settings of the database allow it to lose acknowledged saves."""


class UnsignedStore(Exception):
    """The store was signed once, and now its signatures or their key are missing."""
