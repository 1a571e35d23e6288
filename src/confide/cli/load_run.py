"""Load test from the command line: plan, progress, result, comparison and search."""

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
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from confide.cli.connection import DEFAULT_URL, connect
from confide.cli.files import write_file
from confide.cli.output import EXIT_CHECK_FAILED, EXIT_INTERRUPTED, print_line, print_table, show_progress
from confide.client import Client
from confide.loadtest.comparison import Difference, compare_results, find_plan_differences, has_more_errors
from confide.loadtest.graceful_stop import GracefulStop
from confide.loadtest.plan import InvalidPlan, Plan, Stage, parse_mix, parse_stages
from confide.loadtest.report import COLUMNS, build_table_rows, format_summary, render_report
from confide.loadtest.results import InvalidResult, Result, read_result
from confide.loadtest.run import RunFailed, RunProgress, RunStopped, create_configs, find_missing_configs, run_plan
from confide.loadtest.search import LatencyLimit, RateSearch, Trial, find_max_rate, judge_trial

# Rate that one worker process reaches with ease.
WORKER_RATE = 4_000
NO_RESULT = "Stopped before the first measurement."


def load(
    *,
    url: str | None,
    token_file: Path | None,
    json_file: Path | None,
    page: Path | None,
    baseline_file: Path | None,
    find_max: bool,
    max_p99_seconds: float,
    **options: Any,
) -> int:
    """Run a load test or search the highest rate. Return the exit code."""
    for path in (json_file, page):
        if path is not None and not os.access(path.parent, os.W_OK):
            raise click.ClickException(f"{path} cannot be written. Choose a folder that you can write to.")
    try:
        baseline = None if baseline_file is None else read_result(baseline_file)
        tokens, plan = _build_plan(url, token_file, **options)
        _create_missing_configs(plan, tokens)
        with GracefulStop() as stop:
            if find_max:
                result = _search_max_rate(plan, tokens, stop, max_p99_seconds=max_p99_seconds)
            else:
                result = _run_until_stopped(plan, tokens, stop)
        code = EXIT_CHECK_FAILED if result is None else _report(result, baseline, json_file=json_file, page=page)
    except (InvalidPlan, InvalidResult) as error:
        raise click.UsageError(str(error)) from None
    except RunFailed as error:
        raise click.ClickException(str(error)) from None
    return EXIT_INTERRUPTED if stop.is_requested else code


def _build_plan(
    url: str | None,
    token_file: Path | None,
    *,
    rate: float | None,
    duration_seconds: float,
    stages: str | None,
    mix: str,
    processes: int | None,
    **fields: Any,
) -> tuple[list[str], Plan]:
    """Build tokens and plan from options. Options with the names of fields are passed on."""
    if rate is None and stages is None:
        raise click.UsageError("Pass --rate, with --duration, or --stages.")
    if rate is not None and stages is not None:
        raise click.UsageError("Pass --rate or --stages, not both.")
    if rate is not None and not math.isfinite(rate):
        raise click.UsageError("--rate must be a finite number of requests per second.")
    plan_stages = parse_stages(stages) if stages is not None else (Stage(duration_seconds, rate or 0.0),)
    if token_file is None:
        with connect(url) as client:
            service_url, tokens = client.url, [client.token or ""]
    else:
        service_url = url or os.environ.get("CONFIDE_URL") or DEFAULT_URL
        tokens = _read_tokens(token_file)
    if "@" in urlsplit(service_url).netloc:
        raise click.UsageError("The URL must not contain a user or password. Use --token-file or CONFIDE_TOKEN.")
    return tokens, Plan(
        url=service_url,
        stages=plan_stages,
        mix=parse_mix(mix),
        processes=processes or _choose_process_count(max(stage.rate for stage in plan_stages)),
        **fields,
    )


def _read_tokens(file: Path) -> list[str]:
    tokens = file.read_bytes().decode(errors="replace").split()
    if not tokens:
        raise click.UsageError(f"There is no token in {file}. Write one token per line.")
    if not all(token.isascii() and token.isprintable() for token in tokens):
        raise click.UsageError(f"{file} contains an invalid token. Write one token per line.")
    return tokens


def _choose_process_count(rate: float) -> int:
    return min(max(1, math.ceil(rate / WORKER_RATE)), os.cpu_count() or 1)


def _create_missing_configs(plan: Plan, tokens: Sequence[str]) -> None:
    with Client(plan.url, token=tokens[0]) as client:
        missing = find_missing_configs(client, plan)
    if missing:
        with show_progress("Creating", "configs", total=len(missing)) as update:
            create_configs(missing, url=plan.url, token=tokens[0], on_progress=update)


def _run_until_stopped(plan: Plan, tokens: Sequence[str], stop: GracefulStop) -> Result:
    """Run a plan. If it is interrupted, say so and return the partial result."""
    try:
        return _run_with_progress(plan, tokens, stop)
    except RunStopped as stopped:
        if stopped.result is None:
            raise click.ClickException(NO_RESULT) from None
        print_line(f"Stopped after {stopped.result.measured_seconds:g} s of {plan.measured_seconds:g} s.\n")
        return stopped.result


def _run_with_progress(plan: Plan, tokens: Sequence[str], stop: GracefulStop) -> Result:
    with _show_run_progress(plan) as update:
        return run_plan(plan, tokens, on_progress=update, stop=stop)


def _search_max_rate(plan: Plan, tokens: Sequence[str], stop: GracefulStop, *, max_p99_seconds: float) -> Result | None:
    """Search the highest rate within the limit. Return its result, or None if no rate was sustained."""
    if len(plan.stages) > 1:
        raise InvalidPlan("--find-max starts at one rate. Pass --rate instead of --stages.")
    limit, (stage,) = LatencyLimit(99.0, max_p99_seconds * 1e3), plan.stages

    def try_rate(rate: float) -> Trial | None:
        if stop.is_requested:
            return None
        print_line(f"Trying {rate:,.0f}/s for {stage.seconds:g} s.", err=True)
        processes = max(plan.processes, _choose_process_count(rate))
        trial_plan = replace(plan, stages=(Stage(stage.seconds, rate),), processes=processes)
        try:
            result = _run_with_progress(trial_plan, tokens, stop)
        except RunStopped:
            return None
        trial = judge_trial(rate, result, limit)
        print_line(f"{rate:>10,.0f}/s  {'sustained' if trial.is_sustained else 'too high'}: {trial.reason}")
        return trial

    search = find_max_rate(stage.rate, try_rate)
    if not search.trials:
        raise click.ClickException(NO_RESULT)
    _print_search(search, limit, is_stopped=stop.is_requested)
    return None if search.best is None else search.best.result


def _print_search(search: RateSearch, limit: LatencyLimit, *, is_stopped: bool) -> None:
    best, trials = search
    failed = [trial for trial in trials if not trial.is_sustained]
    if failed:
        lowest = min(failed, key=lambda trial: trial.rate)
        for reason in lowest.result.find_generator_limits():
            print_line(
                f"At {lowest.rate:,.0f}/s the load generator limited the run. The service may sustain more: {reason}."
            )
    keeps_limit = f"keeps p99 under {limit.milliseconds:g} ms"
    if is_stopped:
        print_line(f"Stopped after {len(trials)} {'rate' if len(trials) == 1 else 'rates'}.")
    if best is not None:
        precision = "not narrowed down" if is_stopped else "within 5 %"
        print_line(f"The highest rate that {keeps_limit}: {best.rate:,.0f}/s, {precision}.\n")
    else:
        print_line(f"Not even the lowest rate tried {keeps_limit}.")


def _report(result: Result, baseline: Result | None, *, json_file: Path | None, page: Path | None) -> int:
    """Print and write a result and its comparison. Return the exit code."""
    differences = [] if baseline is None else compare_results(baseline, result)
    print_line(format_summary(result) + "\n")
    print_table(COLUMNS, build_table_rows(result))
    for limit in result.find_generator_limits():
        print_line(f"\nThe load generator limited the run: {limit}.")
    if baseline is not None:
        _print_comparison(baseline, result, differences)
    if json_file is not None:
        write_file(json_file, result.to_json())
    if page is not None:
        write_file(page, render_report(result, differences=differences))
    if baseline is None or find_plan_differences(baseline, result):
        return 0
    is_worse = any(difference.is_slower for difference in differences) or has_more_errors(baseline, result)
    return EXIT_CHECK_FAILED if is_worse else 0


def _print_comparison(before: Result, after: Result, differences: Sequence[Difference]) -> None:
    print_line()
    if names := find_plan_differences(before, after):
        print_line(f"The plans differ in {', '.join(names)}. The runs are listed side by side, but not judged.")
    for difference in differences:
        print_line(difference.describe())
    if not differences:
        print_line("Too few responses to compare the runs.")
    if has_more_errors(before, after):
        print_line(
            f"More requests failed: {before.error_share:.2%} → {after.error_share:.2%}. The latencies exclude them."
        )


@contextmanager
def _show_run_progress(plan: Plan) -> Iterator[Callable[[RunProgress], None]]:
    """Show a bar with current rate, latency and errors at a terminal. Yield a function that updates it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s  p50 {task.fields[p50]:.2f} ms  p99 {task.fields[p99]:.2f} ms"),
        TextColumn("{task.fields[errors]:,} errors  {task.fields[in_flight]:,} in flight"),
    )
    console = Console(stderr=True)
    errors = 0
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        total = plan.total_seconds
        task = progress.add_task("Warming up", total=total, rate=0.0, p50=0.0, p99=0.0, errors=0, in_flight=0)

        def update(interval: RunProgress) -> None:
            nonlocal errors
            errors += interval.errors
            progress.update(
                task,
                completed=min(interval.second, total),
                description="Warming up" if interval.second < plan.warm_up_seconds else "Measuring",
                errors=errors,
                rate=interval.rate,
                p50=interval.p50_ms,
                p99=interval.p99_ms,
                in_flight=interval.in_flight,
            )

        yield update
