"""The address of a PostgreSQL database: a URL that can name several hosts, as libpq reads it.

The driver connects to one host at a time. So the hosts and the parameters that it does not know are taken out of the
URL here. The names, meanings and environment variables are those of libpq (PostgreSQL, section 34.1).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from confide.urls import find_authority

DEFAULT_PORT = 5_432
# libpq has no limit. A healthy server needs much less.
CONNECT_SECONDS = 1.5
# `target_session_attrs` of sessions that Confide cannot use, because it stores.
_UNUSABLE_SESSIONS = ("standby", "read-only")


class Host(NamedTuple):
    """One host of an address: a name, an IP address or the folder of a Unix socket."""

    name: str
    port: int

    @property
    def is_socket(self) -> bool:
        return self.name.startswith("/")

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class TcpOptions(NamedTuple):
    """When the operating system gives up a connection whose other side is gone. 0 is the system's default."""

    has_keepalives: bool = True
    idle_seconds: int = 10
    interval_seconds: int = 5
    max_probes: int = 4
    # For bytes that the other side does not acknowledge.
    user_timeout_milliseconds: int = 30_000


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A parsed address. Without `hosts`, the driver finds them: in a service file, or the sockets of this machine."""

    # The URL without hosts, for the driver. It holds the password.
    url: str = field(repr=False)
    hosts: tuple[Host, ...]
    # The name of the database, empty if the path does not have it.
    database: str
    # For each host.
    connect_seconds: float
    is_load_balanced: bool
    tcp: TcpOptions


def parse_address(url: str, *, environment: Mapping[str, str] = os.environ) -> ServerAddress:
    """Parse a URL. Raises `ValueError` with a sentence that does not quote the URL."""
    authority = find_authority(url)
    scheme, _, rest = url.partition("://")
    path, _, query = rest[len(authority) :].partition("?")
    account, at, host_list = authority.rpartition("@")
    parameters = _parse_query(query)
    ports = parameters.pop("port", "") or environment.get("PGPORT", "")
    hosts_in_query = parameters.pop("host", "")
    if host_list:
        hosts = _parse_hosts(host_list, ports)
    elif hosts_in_query:
        hosts = _parse_hosts(hosts_in_query, ports)
    elif "service" in parameters or "PGSERVICE" in environment:
        hosts = ()
    else:
        hosts = _parse_hosts(environment.get("PGHOST", ""), ports)
    timeout = parameters.pop("connect_timeout", environment.get("PGCONNECT_TIMEOUT", "0"))
    balance = parameters.pop("load_balance_hosts", environment.get("PGLOADBALANCEHOSTS", "disable"))
    tcp = _pop_tcp_options(parameters)
    session = parameters.get("target_session_attrs", environment.get("PGTARGETSESSIONATTRS", "any"))
    if balance not in ("disable", "random"):
        raise ValueError("load_balance_hosts of a database URL is disable or random")
    if session in _UNUSABLE_SESSIONS:
        raise ValueError("a database URL must not ask for a standby: use target_session_attrs=read-write")
    if not hosts and ports:
        parameters["port"] = ports
    remaining = f"?{urlencode(parameters)}" if parameters else ""
    return ServerAddress(
        f"{scheme}://{account}{at}{path}{remaining}",
        hosts,
        database=unquote(path.removeprefix("/")),
        connect_seconds=_parse_number("connect_timeout", timeout) or CONNECT_SECONDS,
        is_load_balanced=balance == "random",
        tcp=tcp,
    )


def _parse_query(query: str) -> dict[str, str]:
    """Return the parameters. The last one of a name wins, as in libpq."""
    try:
        return dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise ValueError("the parameters of a database URL have the form name=value, joined by &") from None


def _parse_hosts(names: str, ports: str) -> tuple[Host, ...]:
    """Parse a list of hosts. A host without a port gets its port from the list of ports, or the only one of it."""
    if not names:
        return ()
    specs = names.split(",")
    defaults = [_parse_port(port) for port in ports.split(",")]
    if len(defaults) == 1:
        defaults *= len(specs)
    if len(defaults) != len(specs):
        raise ValueError(f"a database URL has {len(defaults)} ports for {len(specs)} hosts")
    hosts = (_parse_host(spec.strip(), port) for spec, port in zip(specs, defaults, strict=True))
    return tuple(dict.fromkeys(hosts))


def _parse_host(spec: str, port: int) -> Host:
    if spec.startswith("/") or (spec.count(":") > 1 and "[" not in spec):
        return Host(spec, port)
    found = re.fullmatch(r"(?:\[(?P<ip>[^\[\]]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>.*))?", spec)
    if found is None:
        raise ValueError("a host of a database URL is a name or an IP address; an IPv6 address needs brackets")
    return Host(
        unquote(found["ip"] or found["name"]) or "localhost", _parse_port(found["port"]) if found["port"] else port
    )


def _parse_port(text: str) -> int:
    port = _parse_number("port", text) if text else DEFAULT_PORT
    if not 0 < port < 2**16:
        raise ValueError("a port of a database URL is a number from 1 to 65535")
    return port


def _parse_number(name: str, text: str) -> int:
    """Parse a whole number. As in libpq, a negative one is the default, like 0."""
    if not re.fullmatch(r"-?[0-9]{1,9}", text.strip()):
        raise ValueError(f"{name} of a database URL must be a whole number")
    return max(0, int(text))


def _pop_tcp_options(parameters: dict[str, str]) -> TcpOptions:
    def pop(name: str, default: int) -> int:
        return _parse_number(name, parameters.pop(name, str(default)))

    default = TcpOptions()
    return TcpOptions(
        bool(pop("keepalives", 1)),
        pop("keepalives_idle", default.idle_seconds),
        pop("keepalives_interval", default.interval_seconds),
        pop("keepalives_count", default.max_probes),
        pop("tcp_user_timeout", default.user_timeout_milliseconds),
    )
