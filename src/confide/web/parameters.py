"""Query parameters and headers that several features read."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from confide import names, preconditions
from confide.clock import MICROSECONDS_PER_SECOND
from confide.errors import InvalidCursor, InvalidName
from confide.identity.model import Scope, SecretsMode, parse_scope
from confide.names import ConfigKey
from confide.preconditions import Precondition
from confide.time_formats import TIME_EXAMPLE, parse_time
from confide.web.errors import MalformedParameter
from confide.web.request import Request
from confide.web.route import Header, Parameter, declare_required_text, declare_switch, declare_text

MAX_PAGE_SIZE = 1_000
DEFAULT_PAGE_SIZE = 100

_LIMIT = re.compile(r"[1-9][0-9]{0,3}")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def parse_number(value: str) -> int | None:
    """Return a positive number of digits without a leading zero. None for any other text."""
    return int(value) if _NUMBER.fullmatch(value) else None


def parse_cursor_number(value: str) -> int:
    """Return the number in a cursor, which can be 0. Raises `InvalidCursor`."""
    number = 0 if value == "0" else parse_number(value)
    if number is None:
        raise InvalidCursor
    return number


def format_time(microseconds: int) -> str:
    """Format a time as RFC 3339 with milliseconds."""
    try:
        time = datetime.fromtimestamp(microseconds / MICROSECONDS_PER_SECOND, UTC)
    except (OverflowError, ValueError, OSError):
        # Only an edit of the database itself can cause this. Audit verification reports it.
        time = datetime.max.replace(tzinfo=UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_key_cursor(key: ConfigKey | None) -> str | None:
    return None if key is None else ":".join(key)


def declare_time(name: str, description: str) -> Parameter[int | None]:
    """Declare an optional time (RFC 3339 with a zone), in microseconds since 1970."""

    def parse(value: str) -> int | None:
        try:
            return parse_time(value)
        except ValueError:
            raise MalformedParameter(
                f"Write the parameter {name} as a time with a zone, such as {TIME_EXAMPLE}."
            ) from None

    return Parameter(name, description, parse, None)


def _parse_limit(value: str) -> int:
    if not _LIMIT.fullmatch(value) or int(value) > MAX_PAGE_SIZE:
        raise MalformedParameter(f"The parameter limit must be a number from 1 to {MAX_PAGE_SIZE:,}.")
    return int(value)


def _parse_key_cursor(value: str) -> ConfigKey | None:
    tenant, _, integration_type = value.partition(":")
    try:
        return names.parse_key(tenant, integration_type)
    except InvalidName:
        raise InvalidCursor from None


def _parse_secrets_mode(value: str) -> SecretsMode:
    if value not in list(SecretsMode):
        raise MalformedParameter("The parameter secrets must be masked or opened.")
    return SecretsMode(value)


TENANT = declare_required_text("tenant", "An exact name.", example="acme")
INTEGRATION_TYPE = declare_required_text("integration_type", "An exact name.", example="flight-information-system")
TENANT_PATTERN = declare_text("tenant", "A name, `prefix*` or `*`.")
TYPE_PATTERN = declare_text("integration_type", "A name, `prefix*` or `*`.")
LIMIT = Parameter("limit", "1 to 1,000. Default: 100.", _parse_limit, DEFAULT_PAGE_SIZE)
KEY_CURSOR = Parameter("after", "The `next` value of the previous page.", _parse_key_cursor, None)
NUMBER_CURSOR = Parameter("after", "A number; the page starts after it.", parse_cursor_number, 0)
# `read_precondition` reads them.
PRECONDITION = (
    Header("If-Match", "Only if this is the current tag. Otherwise 412."),
    Header("If-None-Match", "`*`: only if it does not exist. Otherwise 412."),
)
DRY_RUN = declare_switch("dry_run", "`true`: preview the result and store nothing.")
SECRETS: Parameter[SecretsMode | None] = Parameter(
    "secrets",
    "`masked`: mask secrets for every role. `opened`: show them, or respond 403 to a viewer. Default: by role.",
    _parse_secrets_mode,
    None,
)


def read_key(request: Request) -> ConfigKey:
    """Read the key of a config from the parameters `tenant` and `integration_type`. Raises `InvalidName`."""
    return names.parse_key(TENANT.read(request), INTEGRATION_TYPE.read(request))


def read_scope(request: Request) -> Scope:
    """Read the scope of a list from the same parameters, which are optional patterns. Raises `InvalidName`."""
    return parse_scope(TENANT_PATTERN.read(request) or "*", TYPE_PATTERN.read(request) or "*")


def read_precondition(request: Request) -> Precondition:
    """Read the precondition of a write from `If-Match` and `If-None-Match`. Raises `PreconditionInvalid`."""
    return preconditions.parse_precondition(
        request.find_list_header(b"if-match"), request.find_list_header(b"if-none-match")
    )
