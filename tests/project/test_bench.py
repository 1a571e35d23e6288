"""Run a short benchmark, and check how it reads the output of wrk and compares figures with goals."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from confide.server.settings import Settings
from confide.server.wiring import open_process
from support.app import build_settings
from support.postgres import find_binaries

ROOT = Path(__file__).parents[2]


def run_benchmark(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/bench", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)


def test_a_short_benchmark_prints_its_table_and_writes_numbers_and_a_picture(tmp_path: Path) -> None:
    missing = [name for name in ("wrk", "nginx") if shutil.which(name) is None]
    if missing:
        if os.environ.get("CI"):
            pytest.fail(f"install {missing} in CI")
        pytest.skip(f"{missing} is not installed")
    numbers, picture = tmp_path / "numbers.json", tmp_path / "picture.svg"
    done = run_benchmark("reads", "--seconds", "1", "--rounds", "1", "--json", str(numbers), "--picture", str(picture))
    assert done.returncode == 0, done.stderr[-2_000:]
    for words in ("CPU µs a request", "nginx, constant", "Confide, repeated head", "goal"):
        assert words in done.stdout
    found = json.loads(numbers.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert all(row["errors"] == 0 and row["cpu_us"] > 0 for row in rows.values())
    assert "<svg" in picture.read_text()
    assert "Confide, repeated head" in picture.read_text()


def test_a_benchmark_can_use_the_server_of_the_distribution(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    done = run_benchmark("change_feed", "--seconds", "1", "--postgresql", "distribution", "--json", str(numbers))
    assert done.returncode == 0, done.stderr[-2_000:]
    found = json.loads(numbers.read_text())
    assert found["postgresql"] == "PostgreSQL of the distribution, with its defaults"
    assert "change feed on PostgreSQL, p99" in {figure["name"] for figure in found["figures"]}


def test_the_bare_statements_of_a_save_store_it(
    tmp_path: Path, database: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "bench"))
    import seeds  # noqa: PLC0415 - a script's module
    import stores  # noqa: PLC0415 - as above

    seeded = asyncio.run(seeds.seed(build_settings(tmp_path, database), 10))
    if database is None:
        figures = stores.measure_sqlite_commits(tmp_path / "confide.db", seconds=0.1)
    else:
        pgbench = find_binaries() / "pgbench"
        figures = stores.run_pgbench(pgbench, database, tmp_path, count=10, connections=2, seconds=1)
    assert figures.requests > 0
    assert asyncio.run(count_versions(seeded.settings)) > 10


async def count_versions(settings: Settings) -> int:
    async with open_process(settings) as process:
        rows = [row async for row in process.stores.database.dump()]
    return sum(table == "changes" and row[2] is not None for table, row in rows)


def test_the_output_of_wrk_is_parsed_and_other_output_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "bench"))
    import load  # noqa: PLC0415 - a script's module
    import results  # noqa: PLC0415 - as above

    output = "  50%  410.00us\n  99%    2.50ms\n  1000 requests in 2.00s, 1.0MB read\nNon-2xx or 3xx responses: 7\n"
    assert load._parse_count(r"(\d+) requests in ([\d.]+)(\w+),", output) == (1000.0, 2.0)
    assert load._parse_latency(output, 99) == pytest.approx(0.0025)
    assert load._count_errors(output) == 7
    with pytest.raises(RuntimeError):
        load._parse_count(r"(\d+) requests in ([\d.]+)(\w+),", "unable to connect")
    reached: Any = results.Figure("a", 1.2, "x", max_value=1.4)
    assert reached.is_reached
    assert not results.Figure("a", 1.5, "x", max_value=1.4).is_reached
    assert not results.Figure("a", 19, "x", min_value=20).is_reached
    # The recorded files keep these members.
    recorded = json.loads((ROOT / "docs" / "reference" / "performance.json").read_text())
    assert recorded["figures"][0].keys() | {"spread"} == reached.as_json().keys()


def test_the_readme_shows_the_measured_figures() -> None:
    """Each row of the table in the README is a row of docs/reference/performance.json."""
    found = json.loads((ROOT / "docs" / "reference" / "performance.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    readme = (ROOT / "README.md").read_text()
    lines = [line for line in readme.splitlines() if line.startswith("| ") and line.split("|")[1].strip() in rows]
    assert len(lines) >= 6
    for line in lines:
        name, cpu, rate = (cell.strip() for cell in line.split("|")[1:4])
        assert cpu == f"{rows[name]['cpu_us']:,.1f}", line
        assert rate == f"{rows[name]['rate']:,.0f}", line
    assert found["date"] in readme
