"""Write the tables of recorded runs: `measurements.md` from the benchmark, `failover.md` from the failovers."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
FILE, FAILOVER_FILE = FOLDER / "measurements.md", FOLDER / "failover.md"
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

FAILOVER_HEAD = """# Measured failovers

Written by `make measurements` from [failover.json](failover.json), the result of `{command}` on {date}.
Machine: {processors}, {system}, CPython {python}; everything runs on it. The `ttl` of Patroni is 8 s, so that
a new leader comes sooner than with the default. [Run on a PostgreSQL
cluster](../how-to/run-on-a-postgresql-cluster.md) explains the addresses and what to expect.

During each fault, four writers save unique values, five readers read cached and uncached configs, two watchers follow
all changes, and tokens are created and revoked. A probe connects to the same address all the time, and commits.
Afterwards every acknowledged save and every received change is compared with the database. **Bold** misses a promise.
For [two leaders](../how-to/run-on-a-postgresql-cluster.md#prevent-two-leaders) no time is promised, because a watchdog
prevents them. If the leader returns after it was replaced, Patroni before 3.0.3 can lose commits that were on two
machines. Those rows use a newer Patroni, whose `ttl` is at least 20 s, and the others that of Debian 12.

- **no saves**: seconds without an acknowledged save. In parentheses: those after a new connection of the probe had
  committed. Promised: 1 s.
- **unproven**: seconds in which reads were marked as stale, or health did not confirm the caches. In parentheses: those
  after the commit of the probe. Promised: 2 s.
- **lost**: acknowledged saves that the database does not have.
- **refused**: reads of cached configs without a 200 response.
- **stale**: unmarked reads that lack a save acknowledged more than a second before, or that have a lost value; and
  accepted tokens that were revoked more than a second before.
- **watch**: changes that a watcher missed, received twice or received out of order, and lost changes after which it was
  not disconnected.
- **other**: responses other than success and 503, requests without a response, and restarts of a worker.
- **audit chain**: the result of verifying it. After lost commits it is `lost, confirm` if a checkpoint had signed lost
  entries, and `ok` otherwise.
- **load**: load average of the machine at the end. It has {count} processors.
"""
FAILOVER_COLUMNS = (
    *("fault", "no saves", "unproven", "saves", "lost", "refused", "stale", "watch", "other"),
    *("audit chain", "Patroni", "load"),
)
FAILOVER_COMMAND = "make failover"
MAX_UNSAVED_SECONDS, MAX_UNPROVEN_SECONDS = 1.0, 2.0
ADDRESS_TITLES = {
    "multi-host": "All hosts in the address",
    "haproxy": "HAProxy",
    "pgbouncer": "PgBouncer in session mode, in front of HAProxy",
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


def write_failover_page() -> str:
    """Return the page of the failovers."""
    run = json.loads((FOLDER / "failover.json").read_text())
    count = run["machine"]["processors"].partition(" ")[0]
    parts = [FAILOVER_HEAD.format(command=FAILOVER_COMMAND, date=run["date"], count=count, **run["machine"])]
    for address in dict.fromkeys(row["address"] for row in run["rows"]):
        parts.append(f"\n## {ADDRESS_TITLES[address]}\n\n")
        parts.append(f"| {' | '.join(FAILOVER_COLUMNS)} |\n| {' | '.join('---' for _ in FAILOVER_COLUMNS)} |\n")
        parts += [_write_failover(row) for row in run["rows"] if row["address"] == address]
    return "".join(parts)


def _write_failover(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"| {row['title']} | **not measured: {row['error']}** |\n"
    unsaved, unproven = row["unsaved_after_path_seconds"], row["unproven_after_path_seconds"]
    has_bound = not row["has_two_leaders"]
    cells = [
        row["title"],
        _mark(f"{row['unsaved_seconds']:.1f} ({unsaved:.2f})", is_broken=has_bound and unsaved > MAX_UNSAVED_SECONDS),
        _mark(
            f"{row['unproven_seconds']:.1f} ({unproven:.2f})", is_broken=has_bound and unproven > MAX_UNPROVEN_SECONDS
        ),
        f"{row['saves']:,}",
        _mark(row["saves_lost"], is_broken=row["saves_lost"] > 0 and not row["may_lose"]),
        *(
            _mark(found, is_broken=found > 0)
            for found in (
                row["reads_refused"],
                row["reads_stale_unmarked"] + row["revoked_tokens_accepted"],
                row["watcher_violations"],
                row["unexpected_statuses"] + row["has_restarted"],
            )
        ),
        _mark(row["audit"], is_broken=row["audit"] not in (("ok", "lost, confirm") if row["may_lose"] else ("ok",))),
        row["patroni"],
        f"{row['load_average']:.1f}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _mark(value: object, *, is_broken: bool) -> str:
    return f"**{value}**" if is_broken else str(value)


if __name__ == "__main__":
    FILE.write_text(write_page())
    FAILOVER_FILE.write_text(write_failover_page())
    sys.stdout.write(f"{FILE.name}\n{FAILOVER_FILE.name}\n")
