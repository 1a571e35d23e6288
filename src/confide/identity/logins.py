"""Normalize logins for storage and for the login throttle."""

from __future__ import annotations

import re
from typing import Any

from confide.identity.errors import InvalidLogin

_LOGIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


_NOT_IN_LOGINS = re.compile(r"[^a-z0-9._-]")


def login(value: Any) -> str:
    """Return a login in lower case, or raise `InvalidLogin`."""
    if isinstance(value, str) and value.isascii() and _LOGIN.fullmatch(lowered := value.lower()):
        return lowered
    raise InvalidLogin


def guessed_login(value: str) -> str:
    """Reduce any typed login to the form that the login throttle counts."""
    return _NOT_IN_LOGINS.sub("", value.lower())[:64]
