"""The registry of sinks, and the sinks that a list of addresses names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from confide.postgresql_client.address import parse_address
from confide.telemetry.sinks.sink import Sink, SinkOptions
from confide.urls import require_encoded_password

DAY_SECONDS = 86_400
POSTGRESQL_SCHEMES = ("postgresql", "postgres")


class SinkType(NamedTuple):
    """A kind of sink: the form of its address and the class that implements it."""

    # Shown to the operator. Without schemes, it is the whole address.
    form: str
    # `module:class` in this package. Imported on first use, because some sinks need an optional extra.
    implementation: str
    schemes: tuple[str, ...] = ()
    # The part of the address that must not be empty.
    required_part: str = "scheme"

    def can_open(self, address: str) -> bool:
        if not self.schemes:
            return address == self.form
        parts = urlsplit(address)
        return parts.scheme in self.schemes and bool(getattr(parts, self.required_part))

    def build(self, options: SinkOptions) -> Sink:
        module, _, class_name = self.implementation.partition(":")
        sink_class: Callable[[SinkOptions], Sink] = getattr(import_module(f"{__package__}.{module}"), class_name)
        return sink_class(options)


SINK_TYPES = (
    SinkType("sqlite", "sqlite:SqliteSink"),
    SinkType("stdout", "json_lines:JsonLinesSink"),
    SinkType("file:///PATH", "json_lines:JsonLinesSink", ("file",), "path"),
    SinkType("postgresql://USER:PASSWORD@HOST/NAME", "postgresql:PostgresqlSink", POSTGRESQL_SCHEMES),
    SinkType(
        "elasticsearch+http(s)://HOST/INDEX",
        "elasticsearch:ElasticsearchSink",
        ("elasticsearch+http", "elasticsearch+https"),
        "hostname",
    ),
    SinkType(
        "opensearch+http(s)://HOST/INDEX",
        "elasticsearch:ElasticsearchSink",
        ("opensearch+http", "opensearch+https"),
        "hostname",
    ),
    SinkType("otlp+http(s)://HOST:4318/v1/traces", "otlp:OtlpSink", ("otlp+http", "otlp+https"), "hostname"),
)


class UnknownSink(ValueError):
    """An address does not name a sink. The message does not quote the address, which can hold a password."""


def require_known_sinks(addresses: str) -> None:
    """Raise `UnknownSink` unless each address of a comma-separated list names a sink.

    Raises `ValueError` if the password of an address is not encoded.
    """
    for address in _split(addresses):
        sink_type = _find_type(address)
        require_encoded_password(address)
        if sink_type.schemes == POSTGRESQL_SCHEMES:
            parse_address(address)


def build_sinks(addresses: str, *, folder: Path, max_bytes: int, max_age_days: int) -> list[Sink]:
    """Build the sinks of a comma-separated list of addresses. They connect at their first write.

    Raises `UnknownSink`. See `SinkOptions` for the limits.
    """
    return [
        _find_type(address).build(SinkOptions(address, folder, max_bytes, max_age_days * DAY_SECONDS))
        for address in _split(addresses)
    ]


def _split(addresses: str) -> list[str]:
    found: list[str] = []
    for part in map(str.strip, addresses.split(",")):
        # The hosts of one address are separated by commas too.
        if found and _has_more_hosts(found[-1]) and "://" not in part and not _names_sink(part):
            found[-1] += f",{part}"
        elif part:
            found.append(part)
    return found


def _has_more_hosts(address: str) -> bool:
    scheme, _, rest = address.partition("://")
    return scheme in POSTGRESQL_SCHEMES and "/" not in rest


def _names_sink(address: str) -> bool:
    return any(address == sink_type.form for sink_type in SINK_TYPES if not sink_type.schemes)


def _find_type(address: str) -> SinkType:
    for sink_type in SINK_TYPES:
        if sink_type.can_open(address):
            return sink_type
    forms = ", ".join(sink_type.form for sink_type in SINK_TYPES)
    raise UnknownSink(f"unknown I/O sink: use addresses of the forms {forms}, or off alone")
