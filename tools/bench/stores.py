"""Measure the databases without Confide: the lower bounds for a save and a read."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import asyncpg
from load import Figures
from results import compute_percentile
from seeds import build_key

from confide.configs import store
from confide.database.log import INSERT_AUDIT
from confide.database.sqlite.engine import connect
from confide.database.sqlite.writer import bind_arguments

BODY = os.urandom(280)
MAC = os.urandom(32)


def measure_sqlite_commits(path: Path, *, seconds: float) -> Figures:
    """Measure single durable commits with the statements of a save."""
    connection = connect(path, is_unsafe=False)
    last: Any = connection.execute("SELECT max(version) FROM changes").fetchall()[0][0]
    epoch: Any = connection.execute("SELECT epoch FROM store").fetchall()[0][0]
    took: list[float] = []
    start, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - start < seconds:
        last += 1
        at = time.monotonic()
        connection.execute("BEGIN IMMEDIATE")
        saved = ("saved", *build_key(0), last, None, BODY, 1, 1, None, epoch)
        ((change_id,),) = connection.execute(store.SQLITE_APPEND, bind_arguments(saved)).fetchall()
        entry = (1, "save", "updated", 1, 1, "127.0.0.1", "0" * 16, *build_key(0), last, None, MAC, MAC, change_id)
        connection.execute(INSERT_AUDIT, bind_arguments(entry))
        connection.execute("COMMIT")
        took.append(time.monotonic() - at)
    seconds = time.monotonic() - start
    cpu_us = (time.process_time() - cpu) / len(took) * 1e6
    connection.close()
    return Figures(
        len(took), 0, seconds, cpu_us, compute_percentile(took, 50) * 1e3, compute_percentile(took, 99) * 1e3
    )


async def measure_asyncpg_fetches(url: str, *, count: int, connections: int, seconds: float) -> Figures:
    """Measure the statement of a read with the bare driver, in a closed loop on each connection."""
    took: list[float] = []
    until = time.monotonic() + seconds

    async def fetch(number: int) -> None:
        connection = await asyncpg.connect(url)
        statement = await connection.prepare(store.POSTGRESQL_READ)
        while time.monotonic() < until:
            number = (number * 1_103_515_245 + 12_345) % count
            at = time.monotonic()
            await statement.fetch(*build_key(number))
            took.append(time.monotonic() - at)
        await connection.close()

    cpu = time.process_time()
    await asyncio.gather(*(fetch(number) for number in range(connections)))
    cpu_us = (time.process_time() - cpu) / len(took) * 1e6
    return Figures(
        len(took), 0, seconds, cpu_us, compute_percentile(took, 50) * 1e3, compute_percentile(took, 99) * 1e3
    )


def run_pgbench(binary: Path, url: str, folder: Path, *, count: int, connections: int, seconds: int) -> Figures:
    """Measure the two statements of a save with the load generator of PostgreSQL."""
    script = folder / "save.sql"
    tenant, type_ = "'tenant-' || :n / 10", "'flight-information-system-' || :n % 10"
    read = store.POSTGRESQL_READ.replace("$1", f"({tenant})").replace("$2", f"({type_})")
    version = f"(SELECT max(version) + 1 FROM changes WHERE tenant = {tenant} AND integration_type = {type_})"
    values = {
        1: "'saved'", 2: tenant, 3: type_, 4: version, 5: "NULL::bytea", 6: f"'\\x{BODY.hex()}'::bytea", 7: "1", 8: "1",
        9: "NULL", 10: "1", 11: "'save'", 12: "'updated'", 13: "1", 14: "1", 15: "'127.0.0.1'",
        16: "'0123456789abcdef'",
        17: tenant, 18: type_, 19: "1", 20: "NULL", 21: f"'\\x{MAC.hex()}'::bytea", 22: f"'\\x{MAC.hex()}'::bytea",
        store.EPOCH_AT: "(SELECT epoch FROM store)",
    }  # fmt: skip
    append = store.POSTGRESQL_APPEND
    for number in sorted(values, reverse=True):
        append = append.replace(f"${number}", values[number])
    lines = [" ".join(read.split()) + ";", " ".join(append.split()) + ";"]
    script.write_text(f"\\set n random(0, {count - 1})\n" + "\n".join(lines) + "\n")
    command = [binary, "-n", "-M", "prepared", "-f", script, "-c", str(connections), "-j", "1", "-T", str(seconds), url]
    output = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
    rate = float(next(line for line in output.splitlines() if line.startswith("tps")).split()[2])
    latency = float(next(line for line in output.splitlines() if line.startswith("latency average")).split()[3])
    return Figures(int(rate * seconds), 0, float(seconds), float("nan"), latency, float("nan"))
