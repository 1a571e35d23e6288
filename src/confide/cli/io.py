"""`confide io`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from confide.cli.options import Since, as_json


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
@click.option("--op", "wanted", multiple=True, help="Only these operations. * matches any text. Repeatable.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with charts.")
@as_json
def report(*, data: Path, since: int | None, wanted: tuple[str, ...], page: Path | None, is_json: bool) -> None:
    """Report count and latency of each operation, and explain the slowest requests."""
    try:
        from confide.cli import reporting  # noqa: PLC0415 - help must not load SQLite
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing; install confide[server].") from None
    reporting.report(data, since=since, wanted=wanted, page=page, is_json=is_json)
