"""Measure the cost of I/O events, the effect of hanging sinks, and how well load tools agree."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import apsw
import service
from environment import BenchmarkEnvironment
from load import build_get
from results import compute_ratio
from running import find_free_port, measure_cpu_seconds, run_program
from scale import KEYS, build_reads, build_saves
from seeds import Seeded

from confide.client import Client
from confide.loadtest.plan import Plan, Stage
from confide.loadtest.results import Result
from confide.loadtest.run import create_configs, find_missing_configs, run_plan
from confide.telemetry.sinks.sqlite import NEW_CLOCK, SCHEMA, build_insert
from support.collectors import run_silent_server

EVENTS = 1_000_000
HANGING_SECONDS = 15
HANGING_PAIRS = 6
HANGING_RATE = 300
STEADY_RATE = 500
WAITING = Path(__file__).with_name("waiting.py")
# Connections of each load tool to the server that answers after ten milliseconds.
CONNECTIONS = 10


class ObservabilityBenchmarks(BenchmarkEnvironment):
    """Benchmarks that measure I/O events, sinks and load generators."""

    def measure_io_events(self) -> None:
        """Measure requests with and without events, hanging sinks, and a report of a million events."""
        with self.run_postgres() as server:
            for engine, database in (("SQLite", None), ("PostgreSQL", server.new_database)):
                self._measure_cost_of_events(engine, [self.fill_store(KEYS, database and database()) for _ in range(2)])
        self._measure_hanging_sinks()
        self._measure_report()

    def _measure_cost_of_events(self, engine: str, stores: list[Seeded]) -> None:
        with ExitStack() as stack:
            servers = {
                events: (
                    *stack.enter_context(
                        service.run_confide(self.folder, seeded, durable=True, env={"CONFIDE_IO_SINKS": sinks})
                    ),
                    seeded,
                )
                for (events, sinks), seeded in zip((("off", "off"), ("on", "sqlite")), stores, strict=True)
            }
            for label, build_requests, connections, max_ratio in (
                ("cached read", build_reads, 32, 1.02),
                ("save, closed loop", build_saves, 16, None),
            ):
                loads = self.load_in_turn(
                    f"{label}, {engine}, I/O events off and on",
                    servers,
                    build_requests,
                    rounds=2 * self.rounds,
                    connections=connections,
                )
                for events in servers:
                    self.results.add_row("io", f"{label}, {engine}, I/O events {events}", loads[events])
                ratio = compute_ratio(loads["on"], loads["off"])
                self.results.add_figure(
                    f"{label}, {engine}, CPU time with I/O events / without", ratio, "x", max_value=max_ratio
                )

            self._measure_steady_rate(engine, servers)

    def _measure_steady_rate(self, engine: str, servers: Mapping[str, tuple[int, int, Seeded]]) -> None:
        """Measure saves at a constant rate, because the batches of a closed loop depend on the latency."""
        found: dict[str, list[float]] = {events: [] for events in servers}
        for number in range(2 * self.rounds + 1):
            for events in sorted(servers, reverse=bool(number % 2)):
                self.report_step(f"saves at {STEADY_RATE}/s, {engine}, I/O events {events}")
                pid, port, seeded = servers[events]
                self._create_configs(port, seeded)
                before = measure_cpu_seconds(pid)
                line = self._load_saves(port, seeded, rate=STEADY_RATE, seconds=2 * self.seconds)
                spent = (measure_cpu_seconds(pid) - before) / line["answered"] * 1e6
                found[events].extend([spent] if number else [])
        ratio = statistics.median(on / off for on, off in zip(found["on"], found["off"], strict=True))
        name_of_figure = f"save at {STEADY_RATE}/s, {engine}, CPU time with I/O events / without"
        self.results.add_figure(name_of_figure, ratio, "x", max_value=1.05)

    def _measure_hanging_sinks(self) -> None:
        """Load two services with healthy sinks, to measure the noise, and one with only hanging sinks, in turn."""
        with run_silent_server() as silent, ExitStack() as stack:
            address = f"127.0.0.1:{silent}"
            sinks = f"elasticsearch+http://{address},otlp+http://{address},postgresql://x@{address}/x"
            # Opening it for writing blocks, because no process reads it.
            fifo = self.folder / "fifo"
            os.mkfifo(fifo)
            ports = {}
            for name, env in (
                ("healthy", {"CONFIDE_IO_SINKS": "sqlite"}),
                ("healthy too", {"CONFIDE_IO_SINKS": "sqlite"}),
                ("hanging", {"CONFIDE_IO_SINKS": f"{sinks},file://{fifo}", "CONFIDE_IO_QUEUE": "2000"}),
            ):
                env["CONFIDE_METRICS"] = "open"
                seeded = self.fill_store(100)
                # Without durability: stalls of the disk would hide the effect.
                _, port = stack.enter_context(service.run_confide(self.folder, seeded, env=env))
                ports[name] = (port, seeded)
                self._create_configs(port, seeded)
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in ports}
            names = list(ports)
            for number in range(HANGING_PAIRS):
                # Each service is first, second and last equally often.
                for name in (*names[number % len(names) :], *names[: number % len(names)]):
                    self.report_step(f"saves, sinks {name}, {number + 1} of {HANGING_PAIRS}")
                    port, seeded = ports[name]
                    found[name].append(self._load_saves(port, seeded, rate=HANGING_RATE, seconds=HANGING_SECONDS))
            dropped = sum(_read_samples(ports["hanging"][0], "confide_io_dropped_events_total"))
        figure, seconds = self.results.add_figure, HANGING_PAIRS * HANGING_SECONDS
        for name, max_ratio in (("healthy too", None), ("hanging", 1.1)):
            for percentile in ("p50_ms", "p99_ms"):
                # The median of the ratios of neighboring runs.
                pairs = zip(found["healthy"], found[name], strict=True)
                ratio = statistics.median(theirs[percentile] / healthy[percentile] for healthy, theirs in pairs)
                sinks = f"{name.removesuffix(' too')} sinks, {seconds} s / healthy sinks"
                name_of_figure = f"saves at {HANGING_RATE}/s, {sinks}, {percentile.removesuffix('_ms')}"
                figure(name_of_figure, ratio, "x", max_value=max_ratio)
        lost = sum(run["intended"] - run["answered"] for runs in found.values() for run in runs)
        figure("saves without a response", lost, "", max_value=0)
        figure("I/O events dropped by hanging sinks", dropped, "", min_value=1)

    def _create_configs(self, port: int, seeded: Seeded) -> None:
        plan = _plan_saves(port, rate=1, seconds=1)
        with Client(plan.url, token=seeded.admin) as client:
            missing = find_missing_configs(client, plan)
        create_configs(missing, url=plan.url, token=seeded.admin, on_progress=lambda _: None)

    def _load_saves(self, port: int, seeded: Seeded, *, rate: float, seconds: float) -> dict[str, Any]:
        return _summarize(
            run_plan(_plan_saves(port, rate=rate, seconds=seconds), [seeded.admin], on_progress=lambda _: None)
        )

    def _measure_report(self) -> None:
        self.report_step(f"a report of {EVENTS:,} events")
        data = self.folder / "many-events"
        (data / "io").mkdir(parents=True)
        connection = apsw.Connection(str(data / "io" / "0.db"))
        connection.execute(SCHEMA)
        connection.execute(NEW_CLOCK, ("made-up", time.time_ns()))
        with connection:
            connection.executemany(build_insert(1), _generate_events(EVENTS))
        connection.close()
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "confide",
            "io",
            "report",
            "--data",
            str(data),
            "--html",
            str(self.folder / "r.html"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        self.results.add_figure(
            f"report of {EVENTS:,} I/O events, with its page", time.monotonic() - began, "s", max_value=10
        )

    def measure_load_generators(self) -> None:
        """Compare `confide load` with wrk and hey on a server that answers after ten milliseconds."""
        port = find_free_port()
        with run_program([sys.executable, WAITING, str(port)], port=port, log=self.folder / "waiting.log") as pid:
            self.report_step("wrk on a server that takes 10 ms")
            closed = self.load([pid], port, [build_get("/")], connections=CONNECTIONS)
            rate = round(closed.rate)
            tools: dict[str, Callable[[], dict[str, float]]] = {
                "confide load": lambda: self._run_confide_load(port, rate),
                "hey": lambda: _run_hey(port, rate, seconds=self.seconds),
            }
            if shutil.which("hey") is None:
                self.results.skipped["hey"] = "Debian: hey"
                del tools["hey"]
            found = {"wrk": {"rate": closed.rate, "p50_ms": closed.p50_ms, "p99_ms": closed.p99_ms}}
            for name, run_tool in tools.items():
                self.report_step(f"{name} on a server that takes 10 ms, at {rate}/s")
                found[name] = run_tool()
        ours = found.pop("confide load")
        for name, theirs in found.items():
            for member in ("rate", "p50_ms", "p99_ms"):
                ratio = ours[member] / theirs[member]
                self.results.add_figure(
                    f"confide load / {name} at {rate}/s, {member.removesuffix('_ms')}",
                    ratio,
                    "x",
                    min_value=0.9,
                    max_value=1.1,
                )

    def _run_confide_load(self, port: int, rate: int) -> dict[str, float]:
        plan = Plan(f"http://127.0.0.1:{port}", (Stage(self.seconds, rate),), (("get", 1.0),), tenants=1, types=1)
        return _summarize(run_plan(plan, ["none"], on_progress=lambda _: None))


def _plan_saves(port: int, *, rate: float, seconds: float) -> Plan:
    stages = (Stage(seconds, rate),)
    # Without warm-up, so that all processor time belongs to counted responses.
    return Plan(
        f"http://127.0.0.1:{port}", stages, (("merge", 1.0),), tenants=200, types=1, skew=0.0, warm_up_seconds=0.0
    )


def _summarize(result: Result) -> dict[str, Any]:
    return {**result.summarize(), "intended": result.intended}


def _run_hey(port: int, rate: int, *, seconds: float) -> dict[str, float]:
    each = max(1, round(rate / CONNECTIONS))
    output = subprocess.run(
        ["hey", "-z", f"{seconds:g}s", "-c", str(CONNECTIONS), "-q", str(each), f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    def number(pattern: str) -> float:
        match = re.search(pattern, output)
        if match is None:
            raise RuntimeError(f"Cannot parse the output of hey:\n{output}")
        return float(match[1])

    return {
        "rate": number(r"Requests/sec:\s+([\d.]+)"),
        "p50_ms": number(r"50% in ([\d.]+) secs") * 1e3,
        "p99_ms": number(r"99% in ([\d.]+) secs") * 1e3,
    }


def _read_samples(port: int, name: str) -> Iterator[float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(name + "{"):
                yield float(line.split()[-1])


def _generate_events(count: int) -> Iterator[tuple[Any, ...]]:
    """Generate an hour of requests with four operations each."""
    operations = ("sql configs.read", "sql configs.append", "sql audits.note", "commit")
    for number in range(count // 5):
        began, whole = number * 18_000_000, number * 5 + 4
        for place, operation in enumerate(operations):
            took = 50_000 + number * 7_919 % 400_000
            yield _build_event_row(number * 5 + place, whole, operation, began=began + place * 200_000, took=took)
        took = 1_000_000 + number * 104_729 % 4_000_000
        yield _build_event_row(whole, None, "request POST /config", began=began, took=took)


def _build_event_row(id_: int, parent: int | None, operation: str, *, began: int, took: int) -> tuple[Any, ...]:
    outcome, request_id = "ok" if parent else "200", f"{id_ // 5:016x}"
    return (1, id_, parent, operation, began, began + took, outcome, 1, request_id, None, None, 1)
