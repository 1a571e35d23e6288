"""`confide io`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from confide.cli.input import Since, json_option


@click.group()
def io() -> None:
    """Report I/O operations of the service."""


@io.command()
@click.option(
    "--data",
    envvar="CONFIDE_DATA",
    default="confide-data",
    show_default=True,
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Data folder.",
)
@click.option(
    "--since",
    type=Since(),
    help="Only operations that ended in the last 30s, 10m, 2h or 1d, or since 2026-11-24T09:15:00Z.",
)
@click.option("--op", "operations", multiple=True, help="Only these operations. * matches any text. Repeatable.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with charts.")
@json_option
def report(*, data: Path, since: int | None, operations: tuple[str, ...], page: Path | None, is_json: bool) -> None:
    """Report count and latency of each operation, and explain the slowest requests."""
    try:
        from confide.cli import io_report_text  # noqa: PLC0415 - other commands must not load SQLite
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing. Install confide[server].") from None
    io_report_text.report(data, since=since, operations=operations, page=page, is_json=is_json)
