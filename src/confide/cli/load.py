"""`confide load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from confide.cli.connection import url_option
from confide.cli.input import Duration


@click.command()
@url_option
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Requests per second, over all processes.")
@click.option(
    "--duration",
    "duration_seconds",
    type=Duration(),
    default=30.0,
    show_default="30s",
    help="Duration, such as 30s or 2m.",
)
@click.option("--stages", help="Durations and rates instead of --rate and --duration, such as 10s:500,30s:2000.")
@click.option(
    "--mix",
    default="get=95,merge=4,list=1",
    show_default=True,
    help="Weights of the operations get, merge, put, list and versions.",
)
@click.option("--tenants", default=100, show_default=True, type=click.IntRange(1, 1_000_000), help="Number of tenants.")
@click.option(
    "--types", default=3, show_default=True, type=click.IntRange(1, 1_000), help="Integration types of each tenant."
)
@click.option(
    "--skew",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 10),
    help="Zipf exponent of the popularity of configs. 0 is uniform.",
)
@click.option(
    "--warm-up",
    "warm_up_seconds",
    type=Duration(is_zero_allowed=True),
    default=2.0,
    show_default="2s",
    help="Duration of the warm-up, which is not measured.",
)
@click.option(
    "--timeout", "timeout_seconds", type=Duration(), default=10.0, show_default="10s", help="Timeout of a request."
)
@click.option(
    "--processes", type=click.IntRange(1, 64), help="Processes of the load generator. Defaults to what the rate needs."
)
@click.option(
    "--connections", default=256, show_default=True, type=click.IntRange(1, 60_000), help="Connections of each process."
)
@click.option("--seed", default=1, show_default=True, help="Random seed. The same seed draws the same requests.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with one token per line, used in turn. Defaults to CONFIDE_TOKEN or your login.",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with charts.")
@click.option(
    "--compare",
    "baseline_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Compare with a result that --json wrote. Exit with 10 if the new run is slower beyond the noise.",
)
@click.option("--find-max", is_flag=True, help="Search the highest rate that keeps --max-p99. Start at --rate.")
@click.option(
    "--max-p99",
    "max_p99_seconds",
    type=Duration(),
    default=0.01,
    show_default="10ms",
    help="Latency limit of --find-max.",
)
def load(**options: Any) -> int:
    """Load a service at a constant rate and measure the latency of each request.

    This is an open model: each request has a scheduled start that does not depend on earlier responses. Latency is
    measured from the scheduled start. Configs named load-* are created first where they are missing, and stay.
    """
    try:
        from confide.cli import load_run  # noqa: PLC0415 - needs an optional extra
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing. Install confide[load].") from None
    return load_run.load(**options)
