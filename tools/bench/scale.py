"""Measurements with many configs, watchers or audit entries, and of the cost of a change."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import before
import service
from environment import BenchmarkEnvironment
from load import Figures, build_get
from results import compute_ratio, compute_spread
from running import measure_memory_bytes
from seeds import Seeded, build_key

from confide.database.engine import Many, Transaction
from confide.database.log import INSERT_AUDIT, build_entry_row
from confide.server.wiring import open_process

CHECKED = 100_000
WATCHERS = 10_000
ENTRIES = 200_000
KEYS = 5_000
MIB = 1024 * 1024
SCHEMA = {
    "required": ["username", "password", "wsdl_urls"],
    "properties": {
        "username": {"type": "string", "maxLength": 64},
        "password": {"type": "string", "writeOnly": True},
        "wsdl_urls": {"additionalProperties": {"type": "string", "format": "uri", "pattern": "^https://"}},
        "timeout_seconds": {"type": "integer", "default": 30},
    },
}
STRICTER = {**SCHEMA, "required": ["username", "password", "wsdl_urls", "tenant_code"]}


class ScaleBenchmarks(BenchmarkEnvironment):
    """Benchmarks that measure scale, and the cost of a change against an earlier commit."""

    def measure_long_operations(self) -> None:
        """Measure long operations and their effect on other requests."""
        seeded = self.fill_store(CHECKED)
        with service.run_confide(self.folder, seeded, durable=True) as (pid, port):
            self._measure_conformance(pid, port, seeded)
        self._measure_audit_chain()
        self._measure_watchers()

    def _measure_conformance(self, pid: int, port: int, seeded: Seeded) -> None:
        saves = service.build_merges(seeded, range(1_000))
        self.report_step("saves without other load")
        quiet = self.load([pid], port, saves, connections=4)
        self.report_step(f"a stricter schema over {CHECKED:,} configs, during saves")
        found: dict[str, Any] = {}
        checking = threading.Thread(target=lambda: found.update(_check_all_types(port, seeded, found)))
        start = time.monotonic()
        checking.start()
        beside = self.load([pid], port, saves, connections=4)
        checking.join()
        duration = time.monotonic() - start
        add, figure = self.results.add_row, self.results.add_figure
        add("many", "save, SQLite, 4, quiet", [quiet])
        add("many", "save, SQLite, 4, beside conformance", [beside])
        figure(f"conformance of {found['checked']:,} configs beside saves", duration, "s", max_value=30)
        figure("conformance, progress events", found["progress"], "events", min_value=2)
        figure("p50 of saves beside conformance / quiet", beside.p50_ms / quiet.p50_ms, "x")

    def _measure_audit_chain(self) -> None:
        self.report_step(f"{ENTRIES:,} audit entries")
        linked, proven = asyncio.run(_measure_audit(self.fill_store(10)))
        self.results.add_figure("audit entries linked", linked, "/s")
        self.results.add_figure("audit entries verified, with MACs", proven, "/s", min_value=100_000)

    def _measure_watchers(self) -> None:
        seeded = self.fill_store(KEYS)
        warm = service.build_reads(seeded, range(KEYS))
        # All of them come from one address, with one token.
        env = {"CONFIDE_MAX_CONNECTIONS_PER_ADDRESS": str(2 * WATCHERS), "CONFIDE_MAX_STREAMS_PER_TOKEN": str(WATCHERS)}
        with service.run_confide(self.folder, seeded, env=env) as (pid, port):
            self.load([pid], port, warm, seconds=2)
            time.sleep(2)
            before_bytes = measure_memory_bytes(pid)
            quiet = [self.load([pid], port, warm) for _ in range(2)]
            self.report_step(f"{WATCHERS:,} idle watchers")
            grown, beside = asyncio.run(_measure_watchers(pid, port, seeded, lambda: self.load([pid], port, warm)))
        figure = self.results.add_figure
        self.results.add_row("many", "Confide, cached read, no watchers", quiet)
        self.results.add_row("many", f"Confide, cached read, {WATCHERS:,} watchers", beside)
        figure(f"memory for {WATCHERS:,} idle watchers", (grown - before_bytes) / MIB, "MiB", max_value=150)
        figure("cached read beside idle watchers / alone", compute_ratio(beside, quiet), "x")

    def measure_cost_of_changes(self) -> None:
        """Compare a save and a cached read with those of an earlier commit, in turn."""
        tree = before.check_out(self.before, self.folder)
        with self.run_postgres() as server:
            for engine, database in (("SQLite", False), ("PostgreSQL", True)):
                self._measure_cost(engine, tree, [server.new_database() if database else None for _ in range(2)])

    def _measure_cost(self, engine: str, tree: Any, databases: list[str | None]) -> None:
        self.report_step(f"cost of a change on {engine}")
        then = before.fill_store(tree, self.folder / f"then-{engine}", databases[0], KEYS)
        now = before.fill_store(before.ROOT, self.folder / f"now-{engine}", databases[1], KEYS)
        with ExitStack() as stack:
            servers = {
                "then": (*stack.enter_context(before.run_tree(tree, self.folder, then)), then),
                "now": (*stack.enter_context(before.run_tree(before.ROOT, self.folder, now)), now),
            }
            for label, build_requests, rounds, connections, max_ratio in (
                ("cached read", build_reads, self.rounds, 32, 1.05),
                ("save", build_saves, self.rounds, 16, 1.05),
            ):
                found = self.load_in_turn(
                    f"{label}, {engine}", servers, build_requests, rounds=rounds, connections=connections
                )
                for version in servers:
                    self.results.add_row("cost", f"{label}, {engine}, {version}", found[version])
                ratio = compute_ratio(found["now"], found["then"])
                self.results.add_figure(
                    f"{label}, {engine}, CPU time / commit {self.before}",
                    ratio,
                    "x",
                    max_value=max_ratio,
                    spread=compute_spread(found["now"], found["then"]),
                )


def build_reads(seeded: Seeded) -> list[bytes]:
    return service.build_reads(seeded, range(KEYS))


def build_saves(seeded: Seeded) -> list[bytes]:
    return service.build_merges(seeded, range(1_000))


async def _measure_audit(seeded: Seeded) -> tuple[float, float]:
    """Return how many audit entries a second are chained, and how many are verified with their MACs."""
    async with open_process(seeded.settings, is_unsafe_accepted=True) as process:
        rows = []
        for version in range(ENTRIES):
            audit = process.configs.writer._recorder.sign(
                "save", "updated", principal=None, key=build_key(0), version=version
            )
            rows.append((*build_entry_row(audit.sign()), version))

        def insert() -> Transaction[None]:
            yield Many(INSERT_AUDIT, rows)

        await process.stores.database._host_engine.transact_long(insert())
        start = time.monotonic()
        linked = await process.audit.chain_writer.append_entries() / (time.monotonic() - start)
        start = time.monotonic()
        proof = [proof async for proof in process.audit.log.verify_all()][-1]
        if proof.bad is not None or proof.checked < ENTRIES:
            raise RuntimeError(proof)
        return linked, proof.checked / (time.monotonic() - start)


def _check_all_types(port: int, seeded: Seeded, found: dict[str, Any]) -> dict[str, Any]:
    """Check the configs of all types, one type after another."""
    names = sorted({build_key(number).integration_type for number in range(CHECKED)})
    checked = progress = 0
    for name in names:
        *progress_events, result = _request_events(
            port, seeded, "PUT", f"/integration-types/{name}?dry_run=true", {"schema": STRICTER}
        )
        checked, progress = checked + result["checked"], progress + len(progress_events)
        if result["broken"] != result["checked"]:
            raise RuntimeError("the stricter schema breaks no config")
    return {"checked": checked, "progress": progress, **found}


def _request_events(port: int, seeded: Seeded, method: str, path: str, document: Any) -> list[dict[str, Any]]:
    import urllib.request  # noqa: PLC0415 - only here

    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        method=method,
        data=None if document is None else json.dumps(document).encode(),
        headers={
            "Authorization": f"Bearer {seeded.admin}",
            "Accept": "text/event-stream",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - as above
        return [json.loads(line[6:]) for line in answer if line.startswith(b"data: ")]


async def _measure_watchers(
    pid: int, port: int, seeded: Seeded, load: Callable[[], Figures]
) -> tuple[int, list[Figures]]:
    """Measure memory and reads while idle watchers are connected."""
    request = build_get("/watch?tenant=idle-*", f"Authorization: Bearer {seeded.reader}")
    streams = []
    for _ in range(WATCHERS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        streams.append((reader, writer))
    for reader, _ in streams:
        await reader.readuntil(b"ready")
    await asyncio.sleep(2)
    grown = measure_memory_bytes(pid)
    loads = [await asyncio.to_thread(load) for _ in range(2)]
    for _, writer in streams:
        writer.transport.abort()
    return grown, loads
