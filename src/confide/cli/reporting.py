"""What `confide io report` does, once it is known that what it needs is installed."""

from __future__ import annotations

from pathlib import Path

import rich_click as click
from rich.console import Console
from rich.text import Text

from confide.cli.options import progress, show, show_table
from confide.telemetry.files import IoFileBroken, IoFiles
from confide.telemetry.report import Report, read_report
from confide.telemetry.report_page import COLUMNS, bars_of, report_page, table_rows, title_of

WIDTH = 40


def report(data: Path, *, since: int | None, wanted: tuple[str, ...], page: Path | None, is_json: bool) -> None:
    """Read the events of a data folder and show them as was asked."""
    files = IoFiles(data / "io")
    if not files.paths:
        if not data.is_dir():
            raise click.ClickException(f"There is no data folder {data}: name it with --data.")
        raise click.ClickException(f"There are no I/O events in {data / 'io'}: the sink sqlite writes them there.")
    try:
        with progress("Reading", "events", total=files.count()) as tell:
            found = read_report(files, since=since or 0, wanted=wanted, tell=tell)
    except IoFileBroken as error:
        raise click.ClickException(str(error)) from None
    if not found.times:
        raise click.ClickException("Nothing that was asked for is among the events.")
    if page is not None:
        page.write_text(report_page(found, what=str(data)))
        click.echo(f"{found.events:,} events in {page}.", err=is_json)
    if is_json:
        show(found.document())
    elif page is None:
        _show(found)


def _show(found: Report) -> None:
    for heading, whole in (("Requests", True), ("Operations", False)):
        rows = table_rows(found, whole=whole)
        if rows:
            click.echo(f"{heading}\n")
            show_table(COLUMNS, rows)
            click.echo()
    if found.slowest:
        click.echo("Slowest requests\n")
    console = Console(highlight=False, soft_wrap=True)
    for slow in found.slowest:
        console.print(Text(title_of(slow), style="bold"))
        took = max(slow.request.took / 1e6, 1e-9)
        for bar in bars_of(slow)[1:]:
            begin = min(int(bar.begin / took * WIDTH), WIDTH - 1)
            length = min(max(1, round(bar.length / took * WIDTH)), WIDTH - begin)
            drawn = f"|{' ' * begin}{'█' * length}{' ' * (WIDTH - begin - length)}|"
            console.print(Text(f"  {bar.label:<32} {bar.length:>10,.2f} ms {drawn}", style="red" if bar.is_bad else ""))
        console.print(Text(f"  {'in the process itself':<32} {slow.unexplained_ms():>10,.2f} ms\n"))
