"""Input that several commands share: parameter types, options, prompts and grants."""

from __future__ import annotations

import codecs
import getpass
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, TypeVar

import rich_click as click

from confide.client.protocol import require_json
from confide.environment import find_setting
from confide.time_formats import DURATION_EXAMPLES, TIME_EXAMPLE, parse_duration, parse_time

C = TypeVar("C", bound=Callable[..., Any])

json_option = click.option("--json", "is_json", is_flag=True, help="Print JSON.")


class Duration(click.ParamType[float]):
    """Duration such as 30s, in seconds."""

    name = "span"

    def __init__(self, *, is_zero_allowed: bool = False) -> None:
        self._is_zero_allowed = is_zero_allowed

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(str(value), is_zero_allowed=self._is_zero_allowed)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Since(click.ParamType[int]):
    """Time such as 2026-11-24T09:15:00Z, or duration until now, in microseconds since 1970."""

    name = "span or time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        try:
            return parse_time(text) if "-" in text else max(0, round((time.time() - parse_duration(text)) * 1e6))
        except ValueError:
            expected = f"a duration such as {DURATION_EXAMPLES} or a time with a zone such as {TIME_EXAMPLE}"
            self.fail(f"{text!r} is invalid. Write {expected}.", param, ctx)


class SettingOption(click.RichOption):
    """Option whose environment variable Docker or Kubernetes can set to the address of a service."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:  # noqa: ARG002 - an override
        return find_setting(*([self.envvar] if isinstance(self.envvar, str) else self.envvar or ()))


class PemPath(click.Path):
    """Path of a PEM file. An error never quotes the value, because it may be a private key instead of a path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "-----BEGIN" in str(value):
            self.fail("the value is PEM text. Write it to a file, and pass the path of the file.", param, ctx)
        return super().convert(value, param, ctx)


def add_certificate_option(command: C) -> C:
    """Add `--tls-cert`."""
    return click.option(
        "--tls-cert",
        envvar="CONFIDE_TLS_CERT",
        show_envvar=True,
        type=PemPath(exists=True, dir_okay=False),
        help="PEM file of the certificate chain.",
    )(command)


def add_database_options(command: C) -> C:
    """Add `--data` and `--database` to a command that opens the database on the host."""
    command = click.option(
        "--data",
        envvar="CONFIDE_DATA",
        default="confide-data",
        show_default=True,
        show_envvar=True,
        type=click.Path(file_okay=False),
        help="Data folder.",
    )(command)
    return click.option(
        "--database",
        envvar="CONFIDE_DATABASE",
        show_envvar=True,
        help="sqlite:///PATH or postgresql://… Defaults to SQLite in the data folder.",
    )(command)


def add_address_options(*, host_help: str, port_help: str) -> Callable[[C], C]:
    """Add `--host` and `--port`, the address of the service on this host."""
    port = click.option(
        "--port",
        cls=SettingOption,
        envvar=["CONFIDE_PORT", "APP_PORT"],
        default=8080,
        show_default=True,
        show_envvar=True,
        type=click.IntRange(0, 65_535),
        help=port_help,
    )
    host = click.option(
        "--host",
        envvar="CONFIDE_HOST",
        default="127.0.0.1",
        show_default=True,
        show_envvar=True,
        help=host_help,
    )
    return lambda command: host(port(command))


def prompt_new_password(login: str) -> str:
    """Prompt twice at a terminal. Otherwise read the first line of standard input."""
    if not sys.stdin.isatty():
        return _read_password_line()
    password = getpass.getpass(f"New password of {login}: ")
    if getpass.getpass("Repeat the password: ") != password:
        raise click.ClickException("The two passwords differ. Try again.")
    return password


def prompt_password(login: str) -> str:
    """Prompt at a terminal. Otherwise read the first line of standard input."""
    password = getpass.getpass(f"Password of {login}: ") if sys.stdin.isatty() else _read_password_line()
    if not password:
        # The service would count it as a failed login.
        raise click.ClickException("The password is empty. Type it, or pass it in one line of standard input.")
    return password


def parse_grants(texts: Iterable[str]) -> list[dict[str, str]]:
    """Parse grants of the form `ROLE:TENANT:TYPE`, such as `editor:acme:*`."""
    grants = []
    for text in texts:
        parts = text.split(":")
        if len(parts) != 3:  # noqa: PLR2004 - role, tenant, type
            raise click.BadParameter(f"{text!r} is not ROLE:TENANT:TYPE, such as editor:acme:*.")
        grants.append(dict(zip(("role", "tenant", "integration_type"), parts, strict=True)))
    return grants


def read_json(file: BinaryIO) -> bytes:
    """Read a file with one JSON value, without a byte order mark. Raises an error that names the file and the place."""
    text = remove_mark(file.read(), file)
    if not text.strip():
        raise click.ClickException(f"{describe_file(file)} is empty. Provide a JSON object.")
    require_json(text, describe_file(file))
    return text


def remove_mark(text: bytes, file: BinaryIO) -> bytes:
    """Return text without the byte order mark of UTF-8. Raises `click.ClickException` for UTF-16 and UTF-32."""
    encoding = json.detect_encoding(text)
    if not encoding.startswith("utf-8"):
        name = encoding[:6].upper()
        raise click.ClickException(f"{describe_file(file)} is {name}. Save it as UTF-8.")
    return text.removeprefix(codecs.BOM_UTF8)


def describe_file(file: BinaryIO) -> str:
    return "Standard input" if file is sys.stdin.buffer else str(file.name)


def _read_password_line() -> str:
    try:
        # Windows writes a byte order mark before text that it pipes.
        return sys.stdin.readline().rstrip("\n").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise click.ClickException("The password on standard input is not UTF-8. Encode it as UTF-8.") from None
