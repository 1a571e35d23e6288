"""Environment variables that hold settings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# Docker links and Kubernetes describe a service in variables that begin with its name. For a service named `confide`
# they are CONFIDE_PORT=tcp://172.20.0.7:8080, CONFIDE_PORT_8080_TCP_ADDR, CONFIDE_SERVICE_HOST and others.
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://")
_SERVICE_VARIABLE = re.compile(r".*_(?:SERVICE_HOST|SERVICE_PORT(?:_.*)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_.*)?)")
# The setting whose empty value differs from its default: no sink at all.
_CAN_BE_EMPTY = "CONFIDE_IO_SINKS"


def list_settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that can hold a setting. An empty variable counts as unset."""
    return {
        name: value
        for name, value in environment.items()
        if (value or name == _CAN_BE_EMPTY) and not is_service_variable(name, value)
    }


def find_setting(*names: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the value of the first of these variables that is set."""
    values = list_settings({name: environment[name] for name in names if name in environment})
    return next(iter(values.values()), None)


def is_service_variable(name: str, value: str) -> bool:
    """Return whether Docker or Kubernetes set the variable to describe a service."""
    return bool(_SERVICE_ADDRESS.match(value) or _SERVICE_VARIABLE.fullmatch(name))
