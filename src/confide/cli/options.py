"""Options that several commands share, and the few ways in which commands ask and show."""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from confide.time_formats import DURATION_EXAMPLES, TIME_EXAMPLE, parse_duration, parse_time

if TYPE_CHECKING:
    from confide.server.settings import Settings

# What was checked is not as it should be; 1 is a refusal.
FOUND_FAULTS = 10
# As a shell says that a program was ended by SIGINT.
STOPPED = 130
C = TypeVar("C", bound=Callable[..., Any])

as_json = click.option("--json", "is_json", is_flag=True, help="Print JSON.")


class Span(click.ParamType[float]):
    """A stretch of time, as seconds."""

    name = "span"

    def __init__(self, *, may_be_zero: bool = False) -> None:
        self._may_be_zero = may_be_zero

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(str(value), may_be_zero=self._may_be_zero)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Since(click.ParamType[int]):
    """A moment, or a stretch of time that ends now; as microseconds since 1970."""

    name = "span or time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        try:
            return parse_time(text) if "-" in text else max(0, round((time.time() - parse_duration(text)) * 1e6))
        except ValueError:
            expected = f"a duration such as {DURATION_EXAMPLES} or a time with a zone such as {TIME_EXAMPLE}"
            self.fail(f"{text!r} is invalid. Write {expected}.", param, ctx)


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

        from confide.server.settings import (  # noqa: PLC0415 - as above
            Settings,
            variable,
        )
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing; install confide[server].") from None
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = str(first["loc"][0]) if first["loc"] else "settings"
        name = place if place.startswith(("CONFIDE_", "APP_")) else variable(place)
        raise click.UsageError(f"{name}: {first['msg'].removeprefix('Value error, ')}.") from None


def require_store(settings: Settings) -> Settings:
    """Commands that only look at a store, or change one, never make one in a wrong folder."""
    path = Path(settings.database_url.removeprefix("sqlite:///"))
    if settings.database_url.startswith("sqlite:") and not path.exists():
        raise click.ClickException(f"There is no store in {settings.data}: name its folder with --data.")
    return settings


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
        # Labels are somebody's words, not markup.
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    # Piped into another program, a table is as wide as it needs.
    Console(width=None if sys.stdout.isatty() else 200, soft_wrap=True).print(table)


def show_lines(lines: Sequence[dict[str, Any]], columns: Sequence[str], *, is_json: bool) -> None:
    """Show what the service listed: as it came, or these columns of it."""
    if is_json:
        show(lines)
    else:
        show_table(columns, [[line[column] for column in columns] for line in lines])


def grants_of(texts: Iterable[str]) -> list[dict[str, str]]:
    """Read grants as `ROLE:TENANT:TYPE`, patterns included: `editor:acme:*`."""
    grants = []
    for text in texts:
        parts = text.split(":")
        if len(parts) != 3:  # noqa: PLR2004 - role, tenant, type
            raise click.BadParameter(f"{text!r} is not ROLE:TENANT:TYPE, such as editor:acme:*.")
        grants.append(dict(zip(("role", "tenant", "integration_type"), parts, strict=True)))
    return grants


def written(grants: Iterable[dict[str, str]]) -> str:
    """Write grants as they are given on the command line."""
    return ", ".join(f"{g['role']}:{g['tenant']}:{g['integration_type']}" for g in grants)


def unknown_variables() -> set[str]:
    """Variables that look like settings and are none: a slip of the pen, most likely."""
    from confide.server.settings import (  # noqa: PLC0415 - only commands on the host need them
        Settings,
        variable,
    )

    known = {variable(name) for name in Settings.model_fields} | {"CONFIDE_URL", "CONFIDE_TOKEN"}
    return {name for name in os.environ if name.startswith("CONFIDE_") and name not in known}


def show_broken(configs: Iterable[dict[str, Any]]) -> None:
    """Configs with the places where they break the schema of their type."""
    for config in configs:
        click.echo(f"{config['tenant']} : {config['integration_type']}, version {config['version']}")
        for violation in config["errors"]:
            click.echo(f"  {violation['pointer'] or '/'}  {violation['code']}: {violation['detail']}")


@contextmanager
def progress(what: str, of: str, *, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show at a terminal how far something has come, as a bar where it is known how far it goes; yields its teller."""
    from rich.progress import (  # noqa: PLC0415 - few need it
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    shown_first: ProgressColumn = SpinnerColumn() if total is None else BarColumn()
    columns = (TextColumn(what), shown_first, TextColumn(f"{{task.completed:,.0f}} {of}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task(of, total=total)
        yield lambda count: shown.update(task, completed=count)


def all_pages(member: str, ask: Callable[[str | None], dict[str, Any]]) -> list[dict[str, Any]]:
    """What a paged list holds under a member, from its beginning to its end."""
    page = ask(None)
    lines: list[dict[str, Any]] = list(page[member])
    while page["next"] is not None:
        page = ask(page["next"])
        lines += page[member]
    return lines
