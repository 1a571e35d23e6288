"""Names of tenants and integration types, logins, and the key that addresses a config."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from confide.errors import InvalidName, Violation

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


class Key(NamedTuple):
    """(tenant, integration type): the address of a config."""

    tenant: str
    integration_type: str


def name(value: Any) -> str:
    """Return the value if it is a legal name, compared exactly; otherwise raise `InvalidName`."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise InvalidName


def key(tenant: Any, integration_type: Any) -> Key:
    """Make a key; raises `InvalidName`, saying which of the two is none."""
    found = []
    for what, value in (("tenant", tenant), ("integration_type", integration_type)):
        try:
            found.append(name(value))
        except InvalidName:
            raise InvalidName(violations=(Violation(f"/{what}", InvalidName.code, InvalidName.sentence),)) from None
    return Key(*found)
