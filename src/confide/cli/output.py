"""Output that several commands share: exit codes, tables, JSON and progress."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

EXIT_ERROR = 1
# A check, verification or comparison ran to its end and failed.
EXIT_CHECK_FAILED = 10
# The code that shells use for a program that SIGINT ended.
EXIT_INTERRUPTED = 130
PIPE_WIDTH = 200
# The control characters C0 and C1 except the line break, DEL, line separators, and those that change the direction of
# text (UAX #9, section 2).
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escape_controls(text: str) -> str:
    """Escape characters that change what a terminal shows. Names in a config can contain them. Keeps line breaks."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def escape_line(text: str) -> str:
    """Escape line breaks as well, in text that is part of one line."""
    return escape_controls(text).replace("\n", "\\u000a")


def print_line(text: str = "", *, err: bool = False) -> None:
    """Print text to standard output, or to standard error, with its control characters escaped."""
    click.echo(escape_controls(text), err=err)  # noqa: TID251 - the only place, with escaped text


def print_json(value: Any) -> None:
    print_line(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        # `Text`, because rich would interpret markup in a label.
        table.add_row(*(Text("" if cell is None else escape_line(str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, soft_wrap=True).print(table)


def print_items(items: Sequence[dict[str, Any]], columns: Sequence[str], *, is_json: bool) -> None:
    """Print a list that the service returned, as JSON or as a table of the given members."""
    if is_json:
        print_json(items)
    else:
        print_table(columns, [[item[column] for column in columns] for item in items])


def print_violations(configs: Iterable[dict[str, Any]]) -> None:
    """Print configs with the violations of their schemas."""
    for config in configs:
        print_line(escape_line(f"{config['tenant']} : {config['integration_type']}, version {config['version']}"))
        for violation in config["errors"]:
            print_line(escape_line(f"  {violation['pointer'] or '/'}  {violation['code']}: {violation['detail']}"))


def print_warnings(response: dict[str, Any]) -> None:
    """Print the warnings in a response to standard error."""
    for violation in response.get("warnings") or []:
        warning = f"warning: {violation['pointer']}  {violation['code']}: {violation['detail']}"
        print_line(escape_line(warning), err=True)


def format_grants(grants: Iterable[dict[str, str]]) -> str:
    """Format grants in the syntax of `--grant`."""
    return ", ".join(f"{grant['role']}:{grant['tenant']}:{grant['integration_type']}" for grant in grants)


@contextmanager
def show_progress(action: str, unit: str, *, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a count at a terminal, as a bar if the total is known. Yield a function that sets the count."""
    from rich.progress import (  # noqa: PLC0415 - few commands show progress
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    indicator: ProgressColumn = SpinnerColumn() if total is None else BarColumn()
    columns = (TextColumn(action), indicator, TextColumn(f"{{task.completed:,.0f}} {unit}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(unit, total=total)
        yield lambda count: progress.update(task, completed=count)
