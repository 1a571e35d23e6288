"""`confide io`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from confide.cli.options import Since, as_json


@click.group()
def io() -> None:
    """What the service waited for."""


@io.command()
@click.option(
    "--data",
    envvar="CONFIDE_DATA",
    default="confide-data",
    show_default=True,
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The data folder.",
)
@click.option(
    "--since", type=Since(), help="Only what ended in the last 30s, 10m, 2h or 1d, or since 2026-11-24T09:15:00Z."
)
@click.option("--op", "wanted", multiple=True, help="Only these operations; * stands for anything. More than once.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with charts.")
@as_json
def report(*, data: Path, since: int | None, wanted: tuple[str, ...], page: Path | None, is_json: bool) -> None:
    """Say how often each operation ran, how long it took, and why the slowest requests were slow."""
    try:
        from confide.cli import reporting  # noqa: PLC0415 - help must not load SQLite
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing; install confide[server].") from None
    reporting.report(data, since=since, wanted=wanted, page=page, is_json=is_json)
