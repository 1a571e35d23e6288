"""Errors with which a start or a command on the host ends."""

from __future__ import annotations


class NewerSchema(Exception):  # noqa: N818 - the start ends with it, in one sentence
    """The store was written by a newer Confide."""


class UnsafeDurability(Exception):  # noqa: N818 - as above
    """The store's own settings let it lose what it acknowledged."""
