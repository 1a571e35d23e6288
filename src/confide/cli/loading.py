"""What `confide load` does, once it is known that what it needs is installed."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Shown

from confide.cli.connection import DEFAULT_URL, connect
from confide.cli.output import EXIT_CHECK_FAILED, EXIT_INTERRUPTED, print_table, show_progress
from confide.client import Client
from confide.loadtest.interrupts import Interrupts
from confide.loadtest.plans import BadPlan, Plan, Stage, read_mix, read_stages
from confide.loadtest.result_page import COLUMNS, result_page, summary, table_rows
from confide.loadtest.results import BadResult, Difference, Result, differences, has_more_errors, read_result, unlike
from confide.loadtest.running import Progress, RunFailed, Stopped, missing_keys, run, save_missing
from confide.loadtest.searching import Bound, Trial, find_max, verdict

# What one process of the generator sends with ease.
RATE_OF_A_PROCESS = 4_000
NOTHING_YET = "Stopped before there was anything to tell."


def load(
    *,
    url: str | None,
    token_file: Path | None,
    json_file: Path | None,
    page: Path | None,
    baseline_file: Path | None,
    find_max: bool,
    max_p99: float,
    **given: Any,
) -> int:
    """Run, or search, and tell; returns the code that the command ends with."""
    for path in (json_file, page):
        if path is not None and not os.access(path.parent, os.W_OK):
            raise click.ClickException(f"{path} cannot be written.")
    try:
        before = None if baseline_file is None else read_result(baseline_file)
        tokens, plan = _planned(url, token_file, **given)
        _make_configs(plan, tokens)
        with Interrupts() as interrupts:
            if find_max:
                result = _searched(plan, tokens, interrupts, max_p99=max_p99)
            else:
                result = _ran(plan, tokens, interrupts)
        code = EXIT_CHECK_FAILED if result is None else _tell(result, before, json_file=json_file, page=page)
    except (BadPlan, BadResult) as error:
        raise click.UsageError(str(error)) from None
    except RunFailed as error:
        raise click.ClickException(str(error)) from None
    return EXIT_INTERRUPTED if interrupts.is_heard else code


def _planned(
    url: str | None,
    token_file: Path | None,
    *,
    rate: float | None,
    duration: float,
    stages: str | None,
    mix: str,
    warm_up: float,
    timeout: float,
    processes: int | None,
    **more: Any,
) -> tuple[list[str], Plan]:
    if rate is None and stages is None:
        raise click.UsageError("Say --rate, with --duration, or --stages.")
    if rate is not None and stages is not None:
        raise click.UsageError("Say --rate or --stages, not both.")
    if rate is not None and not math.isfinite(rate):
        raise click.UsageError("--rate is a number of requests a second.")
    steps = read_stages(stages) if stages is not None else (Stage(duration, rate or 0.0),)
    if token_file is None:
        with connect(url) as client:
            where, tokens = client.url, [client.token or ""]
    else:
        where = url or os.environ.get("CONFIDE_URL") or DEFAULT_URL
        tokens = _tokens_in(token_file)
    if "@" in urlsplit(where).netloc:
        raise click.UsageError("The address holds no user and password: a token is shown.")
    return tokens, Plan(
        url=where,
        stages=steps,
        mix=read_mix(mix),
        warm_up_seconds=warm_up,
        timeout_seconds=timeout,
        processes=processes or _processes_for(max(step.rate for step in steps)),
        **more,
    )


def _tokens_in(file: Path) -> list[str]:
    tokens = file.read_bytes().decode(errors="replace").split()
    if not tokens:
        raise click.UsageError(f"There is no token in {file}.")
    if not all(token.isascii() and token.isprintable() for token in tokens):
        raise click.UsageError(f"{file} holds what is no token.")
    return tokens


def _processes_for(rate: float) -> int:
    return min(max(1, -(-int(rate) // RATE_OF_A_PROCESS)), os.cpu_count() or 1)


def _make_configs(plan: Plan, tokens: Sequence[str]) -> None:
    with Client(plan.url, token=tokens[0]) as client:
        missing = missing_keys(client, plan)
    if missing:
        with show_progress("Making", "configs", total=len(missing)) as tell:
            save_missing(missing, url=plan.url, token=tokens[0], tell=tell)


def _ran(plan: Plan, tokens: Sequence[str], interrupts: Interrupts) -> Result:
    """Run, and say so if it was stopped: what there was until then is told all the same."""
    try:
        return _looked_on(plan, tokens, interrupts)
    except Stopped as stopped:
        if stopped.result is None:
            raise click.ClickException(NOTHING_YET) from None
        click.echo(f"Stopped after {stopped.result.length:g} s of {plan.measured_seconds:g} s.\n")
        return stopped.result


def _looked_on(plan: Plan, tokens: Sequence[str], interrupts: Interrupts) -> Result:
    with _looking_on(plan) as tell:
        return run(plan, tokens, tell=tell, interrupts=interrupts)


def _searched(plan: Plan, tokens: Sequence[str], interrupts: Interrupts, *, max_p99: float) -> Result | None:
    if len(plan.stages) > 1:
        raise BadPlan("--find-max begins at one rate: say --rate.")
    bound, (stage,) = Bound(99.0, max_p99 * 1e3), plan.stages

    def try_rate(rate: float) -> Trial | None:
        if interrupts.is_heard:
            return None
        click.echo(f"trying {rate:,.0f}/s for {stage.seconds:g} s", err=True)
        stages, needed = (Stage(stage.seconds, rate),), max(plan.processes, _processes_for(rate))
        try:
            result = _looked_on(replace(plan, stages=stages, processes=needed), tokens, interrupts)
        except Stopped:
            return None
        trial = verdict(rate, result, bound)
        click.echo(f"{rate:>10,.0f}/s  {'borne' if trial.is_borne else 'too much'}: {trial.why}")
        return trial

    best, trials = find_max(stage.rate, try_rate)
    if not trials:
        raise click.ClickException(NOTHING_YET)
    _tell_search(best, trials, bound, is_stopped=interrupts.is_heard)
    return None if best is None else best.result


def _tell_search(best: Trial | None, trials: Sequence[Trial], bound: Bound, *, is_stopped: bool) -> None:
    refused = [trial for trial in trials if not trial.is_borne]
    if refused:
        lowest = min(refused, key=lambda trial: trial.rate)
        for limit in lowest.result.limits():
            click.echo(f"At {lowest.rate:,.0f}/s the generator was a limit, the service may bear more: {limit}.")
    keeps = f"keeps p99 under {bound.milliseconds:g} ms"
    if is_stopped:
        click.echo(f"Stopped after {len(trials)} {'rate' if len(trials) == 1 else 'rates'}.")
    if best is not None:
        within = "as far as it came" if is_stopped else "within 5 %"
        click.echo(f"The highest rate that {keeps}: {best.rate:,.0f}/s, {within}.\n")
    else:
        click.echo(f"Not even the lowest rate tried {keeps}.")


def _tell(result: Result, before: Result | None, *, json_file: Path | None, page: Path | None) -> int:
    compared = [] if before is None else differences(before, result)
    click.echo(summary(result) + "\n")
    print_table(COLUMNS, table_rows(result))
    for limit in result.limits():
        click.echo(f"\nThe generator was a limit: {limit}.")
    if before is not None:
        _tell_differences(before, result, compared)
    if json_file is not None:
        json_file.write_text(result.text())
    if page is not None:
        page.write_text(result_page(result, compared=compared))
    if before is None or unlike(before, result):
        return 0
    is_worse = any(one.is_slower for one in compared) or has_more_errors(before, result)
    return EXIT_CHECK_FAILED if is_worse else 0


def _tell_differences(before: Result, after: Result, compared: Sequence[Difference]) -> None:
    click.echo()
    if names := unlike(before, after):
        click.echo(f"The plans differ in {', '.join(names)}. The runs are shown side by side, but not judged.")
    for one in compared:
        click.echo(one.sentence())
    if not compared:
        click.echo("Too few responses to compare the runs.")
    if has_more_errors(before, after):
        click.echo(
            f"More requests failed: {before.error_share:.2%} → {after.error_share:.2%}. The latencies exclude them."
        )


@contextmanager
def _looking_on(plan: Plan) -> Iterator[Callable[[Progress], None]]:
    """Show at a terminal how it goes: a bar with rate, p50, p99 and errors of this moment."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s  p50 {task.fields[p50]:.2f} ms  p99 {task.fields[p99]:.2f} ms"),
        TextColumn("{task.fields[errors]:,} errors  {task.fields[under_way]:,} under way"),
    )
    console = Console(stderr=True)
    errors = 0
    with Shown(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task("Warming up", total=plan.seconds, rate=0.0, p50=0.0, p99=0.0, errors=0, under_way=0)

        def tell(now: Progress) -> None:
            nonlocal errors
            errors += now.errors
            what = "Warming up" if now.second < plan.warm_up_seconds else "Loading"
            said: dict[str, Any] = {"rate": now.rate, "p50": now.p50_ms, "p99": now.p99_ms, "under_way": now.under_way}
            shown.update(task, completed=min(now.second, plan.seconds), description=what, errors=errors, **said)

        yield tell
