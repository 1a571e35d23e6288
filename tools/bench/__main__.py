"""Compare Confide with other systems on this machine: a table, JSON and a picture (`make bench`)."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import peers  # noqa: E402 - after the path is set
import picture  # noqa: E402
from benchmark import BenchmarkRun  # noqa: E402
from results import Results  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402


class Benchmark(NamedTuple):
    """A benchmark that the command line offers, and the approximate number of its steps for the progress bar."""

    measure: Callable[[BenchmarkRun], None]
    steps: int


BENCHMARKS = {
    "reads": Benchmark(BenchmarkRun.measure_reads, steps=8),
    "sqlite": Benchmark(BenchmarkRun.measure_sqlite, steps=10),
    "postgres_saves": Benchmark(BenchmarkRun.measure_postgresql, steps=12),
    "change_feed": Benchmark(BenchmarkRun.measure_change_feed, steps=4),
    "rest": Benchmark(BenchmarkRun.measure_other_operations, steps=7),
    "many": Benchmark(BenchmarkRun.measure_long_operations, steps=6),
    "cost": Benchmark(BenchmarkRun.measure_cost_of_changes, steps=26),
    "io": Benchmark(BenchmarkRun.measure_io_events, steps=96),
    "generators": Benchmark(BenchmarkRun.measure_load_generators, steps=3),
}


# The servers to choose from, as the recorded numbers describe them.
POSTGRESQL = {
    "package": "PostgreSQL of a package, with shared_buffers=1GB, max_wal_size=4GB, max_connections=200",
    "distribution": "PostgreSQL of the distribution, with its defaults",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "benchmarks", nargs="*", metavar="BENCHMARK", help=f"any of {', '.join(BENCHMARKS)}; default: all"
    )
    parser.add_argument("--seconds", type=float, default=4, help="duration of each load")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison")
    parser.add_argument("--configs", type=int, default=1_000_000, help="configs in the large databases")
    parser.add_argument("--before", default="8fc2178", help="earlier commit for the benchmark cost")
    parser.add_argument(
        "--postgresql",
        choices=[*POSTGRESQL],
        default="package",
        help="server: that of the package from PyPI with more memory, or that of the distribution with its defaults",
    )
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--picture", type=Path, help="file for the picture")
    chosen = parser.parse_args()
    results = Results(skipped=peers.find_missing(), postgresql=POSTGRESQL[chosen.postgresql])
    console = Console(stderr=True)
    for name, place in results.skipped.items():
        console.print(f"[yellow]{name} is not installed ({place}): its rows are skipped[/]")
    if "wrk" in results.skipped or "nginx" in results.skipped:
        sys.exit("Cannot compare without wrk and nginx. Install both.")
    names = chosen.benchmarks or list(BENCHMARKS)
    columns = (SpinnerColumn(), TextColumn("{task.description:<60}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=sum(BENCHMARKS[name].steps for name in names))

        def report_step(label: str) -> None:
            progress.update(task, description=label, advance=1)

        run = BenchmarkRun(
            results,
            seconds=chosen.seconds,
            rounds=chosen.rounds,
            large=chosen.configs,
            before=chosen.before,
            uses_distribution=chosen.postgresql == "distribution",
            report_step=report_step,
        )
        try:
            for name in names:
                try:
                    BENCHMARKS[name].measure(run)
                except Exception:  # noqa: BLE001 - earlier measurements are kept
                    console.print_exception()
                    results.skipped[name] = "it failed, see above"
        finally:
            shutil.rmtree(run.folder, ignore_errors=True)
    print_results(results)
    if chosen.json:
        results.write(chosen.json)
    failed = [name for name in names if name in results.skipped]
    if chosen.picture and "reads" in names:
        picture.draw(results, chosen.picture, date=json.loads(chosen.json.read_text())["date"] if chosen.json else "")
    if failed:
        sys.exit(f"Failed benchmarks: {', '.join(failed)}.")


def print_results(results: Results) -> None:
    console = Console(width=120)
    table = Table(title="loads", title_justify="left")
    for name in ("", "CPU µs a request", "requests/s", "p50 ms", "p99 ms", "errors"):
        table.add_column(name, justify="left" if not name else "right")
    group = ""
    for row in results.rows:
        if row.group != group:
            table.add_section()
            group = row.group
        numbers = (f"{row.cpu_us:,.1f}", f"{row.rate:,.0f}", f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}", str(row.errors))
        table.add_row(row.name, *numbers)
    console.print(table)
    figures = Table(title="figures", title_justify="left")
    for name in ("", "measured", "goal", ""):
        figures.add_column(name)
    for figure in results.figures:
        bound = (
            f"≤ {figure.max_value:g}"
            if figure.max_value is not None
            else f"≥ {figure.min_value:g}"
            if figure.min_value is not None
            else ""
        )
        spread = "" if figure.spread is None else f" ({figure.spread[0]:.2f} to {figure.spread[1]:.2f})"
        verdict = "" if not bound else "yes" if figure.is_reached else "NO"
        figures.add_row(figure.name, f"{figure.value:,.2f} {figure.unit}{spread}", bound, verdict)
    console.print(figures)


if __name__ == "__main__":
    main()
