"""Names of tenants and integration types, and the config key that they form together."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from confide.errors import InvalidName, Violation

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


class ConfigKey(NamedTuple):
    """The address of a config: tenant and integration type. It has nothing to do with encryption keys."""

    tenant: str
    integration_type: str


def parse_name(value: Any) -> str:
    """Return a valid name unchanged, or raise `InvalidName`."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise InvalidName


def parse_key(tenant: Any, integration_type: Any) -> ConfigKey:
    """Build a config key, or raise `InvalidName` with the pointer to the invalid name."""
    parsed = []
    for member, value in (("tenant", tenant), ("integration_type", integration_type)):
        try:
            parsed.append(parse_name(value))
        except InvalidName:
            raise InvalidName(violations=(Violation(f"/{member}", InvalidName.code, InvalidName.sentence),)) from None
    return ConfigKey(*parsed)
