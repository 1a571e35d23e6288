"""Many of something: configs that are checked or exported, watchers that wait, entries of the audit that are proven."""

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
from load import Figures, get
from results import ratios, spread
from running import memory_bytes
from seeds import Seeded, key
from track import Track

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


class Crowd(Track):
    """Legs of a run beside the race."""

    def many(self) -> None:
        """What takes long, and whether others notice."""
        seeded = self.filled(CHECKED)
        with service.confide(self.folder, seeded, durable=True) as (pid, port):
            self._conformance(pid, port, seeded)
        self._proof()
        self._watchers()

    def _conformance(self, pid: int, port: int, seeded: Seeded) -> None:
        saves = service.merges(seeded, range(1_000))
        self.say("saves with nothing beside")
        quiet = self.load([pid], port, saves, connections=4)
        self.say(f"a stricter schema over {CHECKED:,} configs, beside saves")
        found: dict[str, Any] = {}
        checking = threading.Thread(target=lambda: found.update(_checked_all(port, seeded, found)))
        began = time.monotonic()
        checking.start()
        beside = self.load([pid], port, saves, connections=4)
        checking.join()
        took = time.monotonic() - began
        add, figure = self.results.add, self.results.figure
        add("many", "save, SQLite, 4, quiet", [quiet])
        add("many", "save, SQLite, 4, beside conformance", [beside])
        figure(f"conformance of {found['checked']:,} configs beside saves", took, "s", most=30)
        figure("conformance, progress events", found["progress"], "events", least=2)
        figure("p50 of saves beside conformance / quiet", beside.p50_ms / quiet.p50_ms, "x")

    def _proof(self) -> None:
        self.say(f"{ENTRIES:,} audit entries")
        linked, proven = asyncio.run(_proven(self.filled(10)))
        self.results.figure("audit entries linked", linked, "/s")
        self.results.figure("audit entries verified, with MACs", proven, "/s", least=100_000)

    def _watchers(self) -> None:
        seeded = self.filled(KEYS)
        warm = service.reads(seeded, range(KEYS))
        with service.confide(self.folder, seeded) as (pid, port):
            self.load([pid], port, warm, seconds=2)
            time.sleep(2)
            before_bytes = memory_bytes(pid)
            quiet = [self.load([pid], port, warm) for _ in range(2)]
            self.say(f"{WATCHERS:,} idle watchers")
            grown, beside = asyncio.run(_watched(pid, port, seeded, lambda: self.load([pid], port, warm)))
        figure = self.results.figure
        self.results.add("many", "Confide, cached read, no watchers", quiet)
        self.results.add("many", f"Confide, cached read, {WATCHERS:,} watchers", beside)
        figure(f"memory for {WATCHERS:,} idle watchers", (grown - before_bytes) / MIB, "MiB", most=150)
        figure("cached read beside idle watchers / alone", ratios(beside, quiet), "x")

    def cost(self) -> None:
        """A save and a cached read beside those of an earlier commit, in turn."""
        tree = before.checked_out(self.before, self.folder)
        with self.postgres() as server:
            for engine, database in (("SQLite", False), ("PostgreSQL", True)):
                self._cost(engine, tree, [server.new_database() if database else None for _ in range(2)])

    def _cost(self, engine: str, tree: Any, databases: list[str | None]) -> None:
        self.say(f"what a change costs on {engine}")
        then = before.filled(tree, self.folder / f"then-{engine}", databases[0], KEYS)
        now = before.filled(before.ROOT, self.folder / f"now-{engine}", databases[1], KEYS)
        with ExitStack() as stack:
            servers = {
                "then": (*stack.enter_context(before.serving(tree, self.folder, then)), then),
                "now": (*stack.enter_context(before.serving(before.ROOT, self.folder, now)), now),
            }
            for what, ask, rounds, connections, most in (
                ("cached read", asked_reads, self.rounds, 32, 1.05),
                ("save", asked_saves, self.rounds, 16, 1.05),
            ):
                found = self.in_turn(f"{what}, {engine}", servers, ask, rounds=rounds, connections=connections)
                for which in servers:
                    self.results.add("cost", f"{what}, {engine}, {which}", found[which])
                ratio = ratios(found["now"], found["then"])
                self.results.figure(
                    f"{what}, {engine}, CPU time / commit {self.before}",
                    ratio,
                    "x",
                    most=most,
                    spread=spread(found["now"], found["then"]),
                )


def asked_reads(seeded: Seeded) -> list[bytes]:
    return service.reads(seeded, range(KEYS))


def asked_saves(seeded: Seeded) -> list[bytes]:
    return service.merges(seeded, range(1_000))


async def _proven(seeded: Seeded) -> tuple[float, float]:
    """How many entries a second are linked, and checked with links and MACs."""
    async with open_process(seeded.settings, accepts_unsafe=True) as process:
        rows = []
        for version in range(ENTRIES):
            audit = process.configs.writer._recorder.sign(
                "save", "updated", principal=None, key=key(0), version=version
            )
            rows.append((*build_entry_row(audit), version))

        def inserted() -> Transaction[None]:
            yield Many(INSERT_AUDIT, rows)

        await process.stores.database._host_engine.transact_long(inserted())
        began = time.monotonic()
        linked = await process.audit.chain_writer.append_entries() / (time.monotonic() - began)
        began = time.monotonic()
        proof = [proof async for proof in process.audit.log.verify_all()][-1]
        if proof.bad is not None or proof.checked < ENTRIES:
            raise RuntimeError(proof)
        return linked, proof.checked / (time.monotonic() - began)


def _checked_all(port: int, seeded: Seeded, found: dict[str, Any]) -> dict[str, Any]:
    """Check the configs of every type, one type after the other, as one would after a change of many."""
    names = sorted({key(number).integration_type for number in range(CHECKED)})
    checked = progress = 0
    for name in names:
        *signs, result = _events(port, seeded, "PUT", f"/integration-types/{name}?dry_run=true", {"schema": STRICTER})
        checked, progress = checked + result["checked"], progress + len(signs)
        if result["broken"] != result["checked"]:
            raise RuntimeError("a stricter schema that breaks nothing")
    return {"checked": checked, "progress": progress, **found}


def _events(port: int, seeded: Seeded, method: str, path: str, document: Any) -> list[dict[str, Any]]:
    import urllib.request  # noqa: PLC0415 - for this alone

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


async def _watched(pid: int, port: int, seeded: Seeded, load: Callable[[], Figures]) -> tuple[int, list[Figures]]:
    """Memory and loads while that many watch and nothing happens to what they watch."""
    request = get("/watch?tenant=nobody-*", f"Authorization: Bearer {seeded.reader}")
    streams = []
    for _ in range(WATCHERS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        streams.append((reader, writer))
    for reader, _ in streams:
        await reader.readuntil(b"ready")
    await asyncio.sleep(2)
    grown = memory_bytes(pid)
    loads = [await asyncio.to_thread(load) for _ in range(2)]
    for _, writer in streams:
        writer.transport.abort()
    return grown, loads
