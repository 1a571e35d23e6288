"""I/O report as JSON, as a page, or as tables and bars at a terminal."""

from __future__ import annotations

from pathlib import Path

import rich_click as click
from rich.console import Console
from rich.text import Text

from confide.cli.files import write_file
from confide.cli.output import escape_line, print_json, print_line, print_table, show_progress
from confide.telemetry.event_files import EventFiles, EventFileUnreadable
from confide.telemetry.report import Report, read_report
from confide.telemetry.report_page import COLUMNS, build_bars, build_table_rows, format_title, render_report

BAR_CHARACTERS = 40


def report(data: Path, *, since: int | None, operations: tuple[str, ...], page: Path | None, is_json: bool) -> None:
    """Read the I/O events of a data folder and report them in the chosen format."""
    files = EventFiles(data / "io")
    if not files.paths:
        if not data.is_dir():
            raise click.ClickException(f"There is no data folder {data}. Name it with --data.")
        raise click.ClickException(f"There are no I/O events in {data / 'io'}. The sink sqlite writes them there.")
    try:
        with show_progress("Reading", "events", total=files.estimate_count()) as update:
            io_report = read_report(files, since_us=since or 0, patterns=operations, on_progress=update)
    except EventFileUnreadable as error:
        raise click.ClickException(str(error)) from None
    if not io_report.times:
        raise click.ClickException("No event matches. Change --since or --op.")
    if page is not None:
        write_file(page, render_report(io_report, source=str(data)))
        print_line(f"{io_report.count_events():,} events in {page}.", err=is_json)
    if is_json:
        print_json(io_report.to_document())
    elif page is None:
        _print_report(io_report)


def _print_report(io_report: Report) -> None:
    for heading, has_requests in (("Requests", True), ("Operations", False)):
        rows = build_table_rows(io_report, has_requests=has_requests)
        if rows:
            print_line(f"{heading}\n")
            print_table(COLUMNS, rows)
            print_line()
    if io_report.slowest:
        print_line("Slowest requests\n")
    console = Console(highlight=False, soft_wrap=True)
    for slow in io_report.slowest:
        console.print(Text(escape_line(format_title(slow)), style="bold"))
        request_ms = max(slow.request.took_ns / 1e6, 1e-9)
        for bar in build_bars(slow)[1:]:
            begin = min(int(bar.start_ms / request_ms * BAR_CHARACTERS), BAR_CHARACTERS - 1)
            length = min(max(1, round(bar.duration_ms / request_ms * BAR_CHARACTERS)), BAR_CHARACTERS - begin)
            drawing = f"|{' ' * begin}{'█' * length}{' ' * (BAR_CHARACTERS - begin - length)}|"
            style = "red" if bar.is_error else ""
            console.print(Text(f"  {escape_line(bar.label):<32} {bar.duration_ms:>10,.2f} ms {drawing}", style=style))
        console.print(Text(f"  {'in the process itself':<32} {slow.compute_own_ms():>10,.2f} ms\n"))
