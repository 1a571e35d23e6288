"""Compare Confide with other systems on this machine: a table, JSON and a picture (`make bench`)."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import peers  # noqa: E402 - after the path is set
import picture  # noqa: E402
from race import Race  # noqa: E402
from results import Results  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402

LEGS = ("reads", "sqlite", "postgres_saves", "change_feed", "rest", "many", "cost", "io", "generators")
# The approximate number of steps of each leg, for the progress bar.
STEPS = {
    "reads": 8,
    "sqlite": 10,
    "postgres_saves": 12,
    "change_feed": 4,
    "rest": 7,
    "many": 6,
    "cost": 26,
    "io": 96,
    "generators": 3,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("legs", nargs="*", metavar="LEG", help=f"any of {', '.join(LEGS)}; default: all")
    parser.add_argument("--seconds", type=float, default=4, help="duration of each load")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison")
    parser.add_argument("--configs", type=int, default=1_000_000, help="configs in the large databases")
    parser.add_argument("--before", default="8fc2178", help="earlier commit for the leg cost")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--picture", type=Path, help="file for the picture")
    chosen = parser.parse_args()
    results = Results(skipped=peers.find_missing())
    console = Console(stderr=True)
    for name, place in results.skipped.items():
        console.print(f"[yellow]{name} is not installed ({place}): its rows are skipped[/]")
    if "wrk" in results.skipped or "nginx" in results.skipped:
        sys.exit("Cannot compare without wrk and nginx. Install both.")
    legs = chosen.legs or LEGS
    columns = (SpinnerColumn(), TextColumn("{task.description:<60}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=sum(STEPS[leg] for leg in legs))

        def report_step(what: str) -> None:
            progress.update(task, description=what, advance=1)

        race = Race(
            results,
            seconds=chosen.seconds,
            rounds=chosen.rounds,
            large=chosen.configs,
            before=chosen.before,
            report_step=report_step,
        )
        try:
            for leg in legs:
                try:
                    getattr(race, leg)()
                except Exception:  # noqa: BLE001 - earlier measurements are kept
                    console.print_exception()
                    results.skipped[leg] = "it failed, see above"
        finally:
            shutil.rmtree(race.folder, ignore_errors=True)
    print_results(results)
    if chosen.json:
        results.write(chosen.json)
    skipped = [leg for leg in legs if leg in results.skipped]
    if chosen.picture and "reads" in legs:
        picture.draw(results, chosen.picture, date=json.loads(chosen.json.read_text())["date"] if chosen.json else "")
    if skipped:
        sys.exit(f"Failed legs: {', '.join(skipped)}.")


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
            f"≤ {figure.most:g}"
            if figure.most is not None
            else f"≥ {figure.least:g}"
            if figure.least is not None
            else ""
        )
        spread = "" if figure.spread is None else f" ({figure.spread[0]:.2f} to {figure.spread[1]:.2f})"
        verdict = "" if not bound else "yes" if figure.is_reached else "NO"
        figures.add_row(figure.name, f"{figure.value:,.2f} {figure.unit}{spread}", bound, verdict)
    console.print(figures)


if __name__ == "__main__":
    main()
