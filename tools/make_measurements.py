"""Write `docs/reference/measurements.md`, the tables of all recorded benchmark runs."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
FILE = FOLDER / "measurements.md"
HEAD = """# Measurements

Written by `make measurements` from the recorded runs of the benchmark.
[Performance](../explanation/performance.md) explains the method and the results.
A range in parentheses covers several rounds.
"""
RUNS = (
    ("performance.json", "make bench"),
    (
        "performance-many.json",
        'make bench ARGS="many cost --rounds 5 --seconds 3 --json docs/reference/performance-many.json"',
    ),
    ("performance-io.json", 'make bench ARGS="io generators --json docs/reference/performance-io.json"'),
)
ROW_HEAD = "| | CPU µs a request | requests/s | p50 ms | p99 ms |\n| --- | --- | --- | --- | --- |\n"
TITLES = {
    "read": "Reads",
    "miss": "Reads that miss the cache",
    "save": "Saves",
    "growth": "Cached reads by number of configs",
    "other": "Other requests",
    "many": "Many configs and many watchers",
    "cost": "Compared with commit 652fec9",
    "io": "I/O events",
}


def write_page() -> str:
    """Return the page."""
    return HEAD + "".join(_write_run(name, command) for name, command in RUNS)


def _write_run(name: str, command: str) -> str:
    run = json.loads((FOLDER / name).read_text())
    machine = run["machine"]
    where = f"{machine['processors']}, {machine['system']}, CPython {machine['python']}"
    parts = [f"\n`{command}` on {run['date']}: {where}. Numbers: [{name}]({name}).\n"]
    for group in dict.fromkeys(row["group"] for row in run["rows"]):
        parts.append(f"\n## {TITLES[group]}\n\n{ROW_HEAD}")
        parts += [_write_row(row) for row in run["rows"] if row["group"] == group]
    parts.append(f"\n## Goals of `{name}`\n\n| | measured | goal | |\n| --- | --- | --- | --- |\n")
    parts += [_write_figure(figure) for figure in run["figures"]]
    return "".join(parts)


def _write_row(row: dict[str, Any]) -> str:
    # Some programs report no CPU time and no distribution.
    cpu = f"{row['cpu_us']:,.1f}" if math.isfinite(row["cpu_us"]) else "-"
    p99 = f"{row['p99_ms']:.2f}" if math.isfinite(row["p99_ms"]) else "-"
    return f"| {row['name']} | {cpu} | {row['rate']:,.0f} | {row['p50_ms']:.2f} | {p99} |\n"


def _write_figure(figure: dict[str, Any]) -> str:
    least, most = figure["least"], figure["most"]
    if least is not None and most is not None:
        goal = f"{least:g} to {most:g}"
    else:
        goal = "" if least is None and most is None else f"≤ {most:,g}" if least is None else f"≥ {least:,g}"
    verdict = "" if not goal else "reached" if figure["holds"] else "**not reached**"
    measured = f"{figure['value']:,.2f} {figure['unit']}".rstrip()
    if figure.get("spread"):
        measured += " ({:,.2f} to {:,.2f})".format(*figure["spread"])
    return f"| {figure['name']} | {measured} | {goal} | {verdict} |\n".replace("  |", " |")


if __name__ == "__main__":
    FILE.write_text(write_page())
    sys.stdout.write(f"{FILE.name}\n")
