"""Logins: the one form in which they are stored and counted."""

from __future__ import annotations

import re
from typing import Any

from confide.identity.errors import InvalidLogin

_LOGIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


_NOT_IN_LOGINS = re.compile(r"[^a-z0-9._-]")


def login(value: Any) -> str:
    """Return the one form of a login, in lower case; raise `InvalidLogin` if it can be nobody's."""
    if isinstance(value, str) and value.isascii() and _LOGIN.fullmatch(lowered := value.lower()):
        return lowered
    raise InvalidLogin


def guessed_login(value: str) -> str:
    """Reduce what somebody typed as a login to what is counted as one login when guesses are limited."""
    return _NOT_IN_LOGINS.sub("", value.lower())[:64]
