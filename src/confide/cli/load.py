"""`confide load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from confide.cli.options import Span
from confide.cli.session import url_option


@click.command()
@url_option
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second, all processes together.")
@click.option("--duration", type=Span(), default=30.0, show_default="30s", help="How long: 30s, 2m.")
@click.option("--stages", help="Instead of both: 10s:500,30s:2000.")
@click.option("--mix", default="get=95,merge=4,list=1", show_default=True, help="get, merge, put, list, versions.")
@click.option("--tenants", default=100, show_default=True, type=click.IntRange(1, 1_000_000))
@click.option("--types", default=3, show_default=True, type=click.IntRange(1, 1_000), help="Of each tenant.")
@click.option("--skew", default=1.0, show_default=True, type=click.FloatRange(0, 10), help="Zipf; 0 is all alike.")
@click.option("--warm-up", type=Span(may_be_zero=True), default=2.0, show_default="2s", help="At first, not counted.")
@click.option("--timeout", type=Span(), default=10.0, show_default="10s", help="Then a request is given up.")
@click.option("--processes", type=click.IntRange(1, 64), help="Of the generator; as the rate needs, if left out.")
@click.option("--connections", default=256, show_default=True, type=click.IntRange(1, 60_000), help="Of each process.")
@click.option("--seed", default=1, show_default=True, help="The same seed draws the same calls.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Tokens, one a line, used in turn; CONFIDE_TOKEN or your login, if left out. Never on the command line.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Keep the result.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with charts.")
@click.option(
    "--compare",
    "earlier",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A result that was kept: says whether the difference exceeds the noise; ends with 10 if it is slower.",
)
@click.option("--find-max", is_flag=True, help="Search the highest rate that keeps --max-p99, from --rate on.")
@click.option("--max-p99", type=Span(), default=0.01, show_default="10ms", help="For --find-max.")
def load(**given: Any) -> int:
    """Load a service at a constant rate and tell the truth about it.

    An open model: requests begin when they are due, whatever became of those before, and latency counts from then
    on. Configs load-* are made first where they are missing, and stay.
    """
    try:
        from confide.cli import loading  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing; install confide[load].") from None
    return loading.load(**given)
