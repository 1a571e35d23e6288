"""Options that several commands share, and the few ways in which commands ask and show."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from confide.settings import Settings

C = TypeVar("C", bound=Callable[..., Any])

as_json = click.option("--json", "is_json", is_flag=True, help="Print JSON.")


def store_options(command: C) -> C:
    """Where the store is, for commands that open it on the host."""
    command = click.option(
        "--data",
        envvar="CONFIDE_DATA",
        default="confide-data",
        show_default=True,
        show_envvar=True,
        type=click.Path(file_okay=False),
        help="The data folder.",
    )(command)
    return click.option(
        "--database",
        envvar="CONFIDE_DATABASE",
        show_envvar=True,
        help="sqlite:///PATH or postgresql://…; SQLite in the data folder if left out.",
    )(command)


def settings_of(**given: Any) -> Settings:
    """Settings from the variables and what the command line says; one sentence for what is wrong with them."""
    try:
        from pydantic import ValidationError  # noqa: PLC0415 - only commands on the host need the server's parts

        from confide.settings import Settings, variable  # noqa: PLC0415 - as above
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing; install confide[server].") from None
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = variable(str(first["loc"][0])) if first["loc"] else "settings"
        raise click.UsageError(f"{name}: {first['msg']}.") from None


def new_password(login: str) -> str:
    """Ask twice at a terminal; otherwise the first line of standard input. Never from the command line."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass(f"New password of {login}: ")
    if getpass.getpass("Once more: ") != password:
        raise click.ClickException("The two are not the same.")
    return password


def known_password(login: str) -> str:
    return getpass.getpass(f"Password of {login}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")


def show(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    # Piped into another program, a table is as wide as it needs.
    Console(width=None if sys.stdout.isatty() else 200, soft_wrap=True).print(table)


def grants_of(texts: Iterable[str]) -> list[dict[str, str]]:
    """Read grants as `ROLE:TENANT:TYPE`, patterns included: `editor:acme:*`."""
    grants = []
    for text in texts:
        parts = text.split(":")
        if len(parts) != 3:  # noqa: PLR2004 - role, tenant, type
            raise click.BadParameter(f"{text!r} is not ROLE:TENANT:TYPE, such as editor:acme:*.")
        grants.append(dict(zip(("role", "tenant", "integration_type"), parts, strict=True)))
    return grants
