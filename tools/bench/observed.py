"""What it costs to take note of I/O, what sinks that hang do to requests, and whether load tools agree."""

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
from load import get
from many import KEYS, asked_reads, asked_saves
from results import ratios
from running import cpu_seconds, free_port, running
from seeds import Seeded
from track import Track

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
# What all of them ask of the waiting server, which answers each after ten milliseconds.
CONNECTIONS = 10


class Observer(Track):
    """Legs of a run beside the race."""

    def io(self) -> None:
        """Saves and cached reads with and without events, in turn; sinks that hang; a report of a million events."""
        with self.postgres() as server:
            for engine, database in (("SQLite", None), ("PostgreSQL", server.new_database)):
                self._cost_of_events(engine, [self.filled(KEYS, database and database()) for _ in range(2)])
        self._hanging()
        self._report()

    def _cost_of_events(self, engine: str, stores: list[Seeded]) -> None:
        with ExitStack() as stack:
            servers = {
                which: (
                    *stack.enter_context(
                        service.confide(self.folder, seeded, durable=True, env={"CONFIDE_IO_SINKS": sinks})
                    ),
                    seeded,
                )
                for (which, sinks), seeded in zip((("off", "off"), ("on", "sqlite")), stores, strict=True)
            }
            for what, ask, connections, most in (
                ("cached read", asked_reads, 32, 1.02),
                ("save, closed loop", asked_saves, 16, None),
            ):
                loads = self.in_turn(
                    f"{what}, {engine}, I/O events off and on",
                    servers,
                    ask,
                    rounds=2 * self.rounds,
                    connections=connections,
                )
                for which in servers:
                    self.results.add("io", f"{what}, {engine}, I/O events {which}", loads[which])
                ratio = ratios(loads["on"], loads["off"])
                self.results.figure(f"{what}, {engine}, CPU time with I/O events / without", ratio, "x", most=most)

            self._steady(engine, servers)

    def _steady(self, engine: str, servers: Mapping[str, tuple[int, int, Seeded]]) -> None:
        """Saves at a constant rate: a closed loop groups them in other ways where one side is slower."""
        found: dict[str, list[float]] = {which: [] for which in servers}
        for number in range(2 * self.rounds + 1):
            for which in sorted(servers, reverse=bool(number % 2)):
                self.say(f"saves at {STEADY_RATE}/s, {engine}, I/O events {which}")
                pid, port, seeded = servers[which]
                self._made(port, seeded)
                before = cpu_seconds(pid)
                line = self._loaded(port, seeded, rate=STEADY_RATE, seconds=2 * self.seconds)
                spent = (cpu_seconds(pid) - before) / line["answered"] * 1e6
                found[which].extend([spent] if number else [])
        ratio = statistics.median(on / off for on, off in zip(found["on"], found["off"], strict=True))
        said = f"save at {STEADY_RATE}/s, {engine}, CPU time with I/O events / without"
        self.results.figure(said, ratio, "x", most=1.05)

    def _hanging(self) -> None:
        """Load two services with sound sinks, which tell the noise, and one whose sinks all hang, in turn."""
        with run_silent_server() as silent, ExitStack() as stack:
            address = f"127.0.0.1:{silent}"
            sinks = f"elasticsearch+http://{address},otlp+http://{address},postgresql://x@{address}/x"
            # Whoever opens it to write waits for a reader, and there is none.
            fifo = self.folder / "fifo"
            os.mkfifo(fifo)
            ports = {}
            for name, env in (
                ("healthy", {"CONFIDE_IO_SINKS": "sqlite"}),
                ("healthy too", {"CONFIDE_IO_SINKS": "sqlite"}),
                ("hanging", {"CONFIDE_IO_SINKS": f"{sinks},file://{fifo}", "CONFIDE_IO_QUEUE": "2000"}),
            ):
                env["CONFIDE_METRICS"] = "open"
                seeded = self.filled(100)
                # Not waiting for the disk, whose own stalls are longer than anything else here.
                _, port = stack.enter_context(service.confide(self.folder, seeded, env=env))
                ports[name] = (port, seeded)
                self._made(port, seeded)
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in ports}
            names = list(ports)
            for number in range(HANGING_PAIRS):
                # Each is the first, the second and the last equally often.
                for name in (*names[number % len(names) :], *names[: number % len(names)]):
                    self.say(f"saves, sinks {name}, {number + 1} of {HANGING_PAIRS}")
                    port, seeded = ports[name]
                    found[name].append(self._loaded(port, seeded, rate=HANGING_RATE, seconds=HANGING_SECONDS))
            dropped = sum(_samples(ports["hanging"][0], "confide_io_dropped_events_total"))
        figure, seconds = self.results.figure, HANGING_PAIRS * HANGING_SECONDS
        for name, most in (("healthy too", None), ("hanging", 1.1)):
            for what in ("p50_ms", "p99_ms"):
                # Each pair ran one after the other; their ratios in the middle.
                ratio = statistics.median(b[what] / a[what] for a, b in zip(found["healthy"], found[name], strict=True))
                sinks = f"{name.removesuffix(' too')} sinks, {seconds} s / healthy sinks"
                said = f"saves at {HANGING_RATE}/s, {sinks}, {what.removesuffix('_ms')}"
                figure(said, ratio, "x", most=most)
        lost = sum(run["intended"] - run["answered"] for runs in found.values() for run in runs)
        figure("saves without a response", lost, "", most=0)
        figure("I/O events dropped by hanging sinks", dropped, "", least=1)

    def _made(self, port: int, seeded: Seeded) -> None:
        plan = _saves(port, rate=1, seconds=1)
        with Client(plan.url, token=seeded.admin) as client:
            missing = find_missing_configs(client, plan)
        create_configs(missing, url=plan.url, token=seeded.admin, on_progress=lambda _: None)

    def _loaded(self, port: int, seeded: Seeded, *, rate: float, seconds: float) -> dict[str, Any]:
        return _line(run_plan(_saves(port, rate=rate, seconds=seconds), [seeded.admin], on_progress=lambda _: None))

    def _report(self) -> None:
        self.say(f"a report of {EVENTS:,} events")
        data = self.folder / "many-events"
        (data / "io").mkdir(parents=True)
        connection = apsw.Connection(str(data / "io" / "0.db"))
        connection.execute(SCHEMA)
        connection.execute(NEW_CLOCK, ("made-up", time.time_ns()))
        with connection:
            connection.executemany(build_insert(1), _made_up(EVENTS))
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
        self.results.figure(f"report of {EVENTS:,} I/O events, with its page", time.monotonic() - began, "s", most=10)

    def generators(self) -> None:
        """`confide load` beside wrk and hey, on a server that takes ten milliseconds for each answer."""
        port = free_port()
        with running([sys.executable, WAITING, str(port)], port=port, log=self.folder / "waiting.log") as pid:
            self.say("wrk on a server that takes 10 ms")
            closed = self.load([pid], port, [get("/")], connections=CONNECTIONS)
            rate = round(closed.rate)
            tools: dict[str, Callable[[], dict[str, float]]] = {
                "confide load": lambda: self._open(port, rate),
                "hey": lambda: _hey(port, rate, seconds=self.seconds),
            }
            if shutil.which("hey") is None:
                self.results.skipped["hey"] = "Debian: hey"
                del tools["hey"]
            found = {"wrk": {"rate": closed.rate, "p50_ms": closed.p50_ms, "p99_ms": closed.p99_ms}}
            for name, ask in tools.items():
                self.say(f"{name} on a server that takes 10 ms, at {rate}/s")
                found[name] = ask()
        ours = found.pop("confide load")
        for name, theirs in found.items():
            for what in ("rate", "p50_ms", "p99_ms"):
                ratio = ours[what] / theirs[what]
                self.results.figure(
                    f"confide load / {name} at {rate}/s, {what.removesuffix('_ms')}", ratio, "x", least=0.9, most=1.1
                )

    def _open(self, port: int, rate: int) -> dict[str, float]:
        plan = Plan(f"http://127.0.0.1:{port}", (Stage(self.seconds, rate),), (("get", 1.0),), tenants=1, types=1)
        return _line(run_plan(plan, ["none"], on_progress=lambda _: None))


def _saves(port: int, *, rate: float, seconds: float) -> Plan:
    stages = (Stage(seconds, rate),)
    # Without warming up: what is answered is all that the processor time was spent on.
    return Plan(
        f"http://127.0.0.1:{port}", stages, (("merge", 1.0),), tenants=200, types=1, skew=0.0, warm_up_seconds=0.0
    )


def _line(result: Result) -> dict[str, Any]:
    return {**result.summarize(), "intended": result.intended}


def _hey(port: int, rate: int, *, seconds: float) -> dict[str, float]:
    each = max(1, round(rate / CONNECTIONS))
    said = subprocess.run(
        ["hey", "-z", f"{seconds:g}s", "-c", str(CONNECTIONS), "-q", str(each), f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    def number(pattern: str) -> float:
        match = re.search(pattern, said)
        if match is None:
            raise RuntimeError(f"hey said what was not understood:\n{said}")
        return float(match[1])

    return {
        "rate": number(r"Requests/sec:\s+([\d.]+)"),
        "p50_ms": number(r"50% in ([\d.]+) secs") * 1e3,
        "p99_ms": number(r"99% in ([\d.]+) secs") * 1e3,
    }


def _samples(port: int, name: str) -> Iterator[float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(name + "{"):
                yield float(line.split()[-1])


def _made_up(count: int) -> Iterator[tuple[Any, ...]]:
    """Requests with four operations each, over an hour, as a worker would have written them."""
    operations = ("sql configs.read", "sql configs.append", "sql audits.note", "commit")
    for number in range(count // 5):
        began, whole = number * 18_000_000, number * 5 + 4
        for place, operation in enumerate(operations):
            took = 50_000 + number * 7_919 % 400_000
            yield _row(number * 5 + place, whole, operation, began=began + place * 200_000, took=took)
        took = 1_000_000 + number * 104_729 % 4_000_000
        yield _row(whole, None, "request POST /config", began=began, took=took)


def _row(id_: int, parent: int | None, operation: str, *, began: int, took: int) -> tuple[Any, ...]:
    outcome, request_id = "ok" if parent else "200", f"{id_ // 5:016x}"
    return (1, id_, parent, operation, began, began + took, outcome, 1, request_id, None, None, 1)
