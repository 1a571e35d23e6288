"""The race: what is loaded beside what, in which order, and which ratios are made of it."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import ExitStack

import peers
import service
import stores
from load import Figures, measure, post
from many import Crowd
from observed import Observer
from results import percentile, ratios
from running import memory_bytes
from seeds import CONFIGURATION, Seeded, key

from support.postgres import PostgresServer, find_binaries

KEYS = 5_000
PEER_KEYS = 500
# After a start a password is hashed, whose memory is given back.
SETTLE_SECONDS = 2
MIB = 1024 * 1024
ANSWER = b'{"tenant":"%b","integration_type":"%b","configuration":%b}' % (
    *map(str.encode, key(KEYS - 1)),
    CONFIGURATION,
)


class Race(Crowd, Observer):
    """The legs of a run, each of which may be run alone."""

    def reads(self) -> None:
        """Cached reads beside nginx and a bare ASGI function; the others' reads after each other."""
        seeded = self.filled(KEYS)
        warm = service.reads(seeded, range(KEYS))
        known = service.reads(seeded, range(KEYS), 'If-None-Match: "1"')
        fresh = service.never_seen(seeded, 300_000, KEYS)
        found: dict[str, list[Figures]] = {
            name: [] for name in ("seen", "fresh", "304", "nginx", "nginx-fresh", "asgi", "bare")
        }
        with ExitStack() as stack:
            pid, port = stack.enter_context(service.confide(self.folder, seeded))
            asgi_pid, asgi_port = stack.enter_context(service.asgi_frame(self.folder, seeded))
            nginx = stack.enter_context(peers.nginx(self.folder, ANSWER))
            bare = stack.enter_context(peers.bare_asgi(self.folder, ANSWER))
            for warmed in (port, asgi_port):
                self.load([pid], warmed, warm, seconds=2)
            for number in range(self.rounds):
                self.say(f"cached reads, round {number + 1} of {self.rounds}")
                found["seen"].append(self.load([pid], port, warm))
                found["nginx"].append(self.load(nginx.pids, nginx.port, warm))
                found["fresh"].append(self.load([pid], port, fresh, is_in_turn=True))
                found["nginx-fresh"].append(self.load(nginx.pids, nginx.port, fresh, is_in_turn=True))
                found["304"].append(self.load([pid], port, known))
                found["asgi"].append(self.load([asgi_pid], asgi_port, warm))
                found["bare"].append(self.load(bare.pids, bare.port, warm))
        add = self.results.add
        add("read", "nginx, constant", found["nginx"])
        ours = add("read", "Confide, repeated head", found["seen"])
        add("read", "Confide, new head", found["fresh"])
        add("read", "Confide, 304", found["304"])
        add("read", "bare ASGI, constant, on uvicorn", found["bare"])
        add("read", "Confide, ASGI frame on uvicorn", found["asgi"])
        figure = self.results.figure
        figure("cached read, repeated head / nginx", ratios(found["seen"], found["nginx"]), "x", most=1.4)
        figure("cached read, new head / nginx", ratios(found["fresh"], found["nginx-fresh"]), "x", most=1.8)
        figure("cached read, ASGI frame / bare ASGI", ratios(found["asgi"], found["bare"]), "x", most=1.35)
        self._others_reads(ours.cpu_us)

    def _others_reads(self, our_cpu_us: float) -> None:
        if peers.bao() is not None:
            self.say("reads of OpenBao on raft with a file audit")
            with peers.openbao(self.folder, CONFIGURATION, PEER_KEYS) as bao:
                row = self.results.add(
                    "read", "OpenBao KV 2, raft, file audit", [self.load(bao.pids, bao.port, bao.reads)]
                )
            self.results.figure("OpenBao / cached read", row.cpu_us / our_cpu_us, "x", least=20)
        if "etcd" not in peers.missing():
            self.say("reads of etcd through its gateway")
            with peers.etcd(self.folder, CONFIGURATION, PEER_KEYS) as etcd:
                row = self.results.add("read", "etcd, JSON gateway", [self.load(etcd.pids, etcd.port, etcd.reads)])
                saves = self.results.add(
                    "save", "etcd, gateway put, 16", [self.load(etcd.pids, etcd.port, etcd.saves, connections=16)]
                )
            self.results.figure("etcd / cached read", row.cpu_us / our_cpu_us, "x", least=15)
            self._etcd_rate = saves.rate

    def sqlite(self) -> None:
        """Missed reads and saves on SQLite, and what grows with a million configs."""
        few, many = self.filled(1_000), self.filled(self.large)
        self._missed("SQLite", few, many, most_us=50)
        self.say("saves on SQLite, waiting for the disk")
        # In a store of its own: what it writes there does not open.
        bare = [stores.sqlite_commits(self.filled(1_000).settings.data / "confide.db", seconds=self.seconds)]
        self.results.add("save", "SQLite, bare loop of single commits", bare)
        found = {}
        for name, seeded in (("1,000", few), (f"{self.large:,}", many)):
            requests = service.merges(seeded, range(1_000))
            with service.confide(self.folder, seeded, durable=True) as (pid, port):
                for connections in (1, 16, 64):
                    loads = [self.load([pid], port, requests, connections=connections)]
                    found[name, connections] = self.results.add(
                        "save", f"Confide, SQLite of {name}, {connections}", loads
                    )
        figure = self.results.figure
        figure(
            "SQLite save, 1 connection, p50 over a bare commit",
            (found["1,000", 1].p50_ms - bare[0].p50_ms) * 1e3,
            "µs",
            most=400,
        )
        figure("SQLite save, 16 connections / bare commits", found["1,000", 16].rate / bare[0].rate, "x rate", least=1)
        self._growth("SQLite", few, many)

    def postgres_saves(self) -> None:
        """Missed reads and saves on PostgreSQL beside its own load generator."""
        with self.postgres() as server:
            few, many = (self.filled(count, server.new_database()) for count in (1_000, self.large))
            self._missed("PostgreSQL", few, many, most_us=75)
            self.say("bare reads by asyncpg")
            fetch = asyncio.run(
                stores.asyncpg_fetches(
                    many.settings.database_url, count=self.large, connections=16, seconds=self.seconds
                )
            )
            self.results.add("miss", "asyncpg, bare fetch, 16", [fetch])
            ours = next(row for row in self.results.rows if row.name == f"Confide, PostgreSQL of {self.large:,}, 16")
            self.results.figure("PostgreSQL missed read / bare fetch", ours.rate / fetch.rate, "x rate", least=0.4)
            self._postgres_saves(few, many, bare_url=self.filled(1_000, server.new_database()).settings.database_url)
            self._growth("PostgreSQL", few, many)
            if peers.bao() is not None:
                self._bao_saves(server)

    def _postgres_saves(self, few: Seeded, many: Seeded, *, bare_url: str) -> None:
        found = {}
        self.say("saves on PostgreSQL")
        for name, seeded in (("1,000", few), (f"{self.large:,}", many)):
            requests = service.merges(seeded, range(1_000))
            with service.confide(self.folder, seeded, "--workers", "2", durable=True) as (pid, port):
                for connections in (1, 16, 64):
                    loads = [self.load([pid], port, requests, connections=connections)]
                    found[name, connections] = self.results.add(
                        "save", f"Confide, PostgreSQL of {name}, {connections}", loads
                    )
        bench = stores.pgbench(
            find_binaries() / "pgbench",
            bare_url,
            self.folder,
            count=1_000,
            connections=16,
            seconds=int(self.seconds),
        )
        self.results.add("save", "pgbench, the same statements, 16", [bench])
        ours = found["1,000", 16]
        self.results.figure("PostgreSQL save / pgbench", ours.rate / bench.rate, "x rate", least=0.4)
        self.results.figure("PostgreSQL save, CPU time", ours.cpu_us, "µs", most=250)
        if hasattr(self, "_etcd_rate"):
            self.results.figure("PostgreSQL save / etcd put", ours.rate / self._etcd_rate, "x rate", least=1.5)
        self._our_save_rate = ours.rate

    def _bao_saves(self, server: PostgresServer) -> None:
        self.say("saves of OpenBao on PostgreSQL")
        with peers.openbao(self.folder, CONFIGURATION, PEER_KEYS, postgres=server.new_database()) as bao:
            row = self.results.add(
                "save", "OpenBao on PostgreSQL, 16", [self.load(bao.pids, bao.port, bao.saves, connections=16)]
            )
        self.results.figure(
            "PostgreSQL save / OpenBao on PostgreSQL", self._our_save_rate / row.rate, "x rate", least=15
        )

    def _missed(self, engine: str, few: Seeded, many: Seeded, *, most_us: float) -> None:
        """Reads of keys that are not in memory: each is asked for once, or nothing is remembered."""
        for name, seeded, count in (("1,000", few, 1_000), (f"{self.large:,}", many, self.large)):
            self.say(f"missed reads on {engine} of {name}")
            step = 7_919  # a prime: neighbours are not asked for one after the other
            requests = [
                service.reads(seeded, range(n * step % count, n * step % count + 1))[0]
                for n in range(min(count, 100_000))
            ]
            with service.confide(self.folder, seeded, cache_bytes=64 * 1024) as (pid, port):
                self.load([pid], port, requests[:100], connections=1, seconds=1)
                loads = [self.load([pid], port, requests, connections=16, is_in_turn=True) for _ in range(2)]
            row = self.results.add("miss", f"Confide, {engine} of {name}, 16", loads)
        self.results.figure(f"{engine} missed read, CPU time", row.cpu_us, "µs", most=most_us)

    def _growth(self, engine: str, few: Seeded, many: Seeded) -> None:
        """Cached reads and memory however many configs there are."""
        loads: dict[str, list[Figures]] = {}
        for name, seeded, among in (("10", few, 10), ("1,000", few, 1_000), (f"{self.large:,}", many, KEYS)):
            self.say(f"growth on {engine}: {name}")
            with service.confide(self.folder, seeded) as (pid, port):
                requests = service.reads(seeded, range(among))
                self.load([pid], port, requests, seconds=2)
                loads[name] = [self.load([pid], port, requests) for _ in range(2)]
                self.results.figure(
                    f"memory of one process, {engine}, {among:,} of {name} read", memory_bytes(pid) / MIB, "MiB"
                )
            self.results.add("growth", f"cached read, {engine}, {among:,} of {name}", loads[name])

    def news(self) -> None:
        """How soon another process shows what one has saved."""
        for engine, most_ms in (("SQLite", 100), ("PostgreSQL", 20)):
            self.say(f"change feed on {engine}")
            with ExitStack() as stack:
                server = stack.enter_context(self.postgres()) if engine == "PostgreSQL" else None
                seeded = self.filled(100, server.new_database() if server else None)
                ports = tuple(stack.enter_context(service.confide(self.folder, seeded))[1] for _ in range(2))
                took = asyncio.run(service.news_seconds(ports, seeded))  # type: ignore[arg-type]
            figure = self.results.figure
            figure(f"change feed on {engine}, p50", percentile(took, 50) * 1e3, "ms")
            figure(f"change feed on {engine}, p99", percentile(took, 99) * 1e3, "ms", most=most_ms)
            figure(f"change feed on {engine}, longest", max(took) * 1e3, "ms", most=1_000)

    def rest(self) -> None:
        """Start, memory, lists, logins, and reads while passwords are hashed."""
        seeded = self.filled(1_000)
        self.say("starts")
        starts = [service.start_seconds(self.folder, seeded) for _ in range(5)]
        self.results.figure("start to first answer", statistics.median(starts), "s", most=0.6)
        warm = service.reads(seeded, range(1_000))
        login = post("/login", b'{"login":"%b","password":"%b"}' % (seeded.login.encode(), seeded.password.encode()))
        lists = [request.replace(b"/config?", b"/configs?") for request in service.reads(seeded, range(1))]
        lists = [
            line.partition(b" HTTP")[0].partition(b"?")[0] + b" HTTP" + line.partition(b" HTTP")[2] for line in lists
        ]
        with service.confide(self.folder, seeded) as (pid, port):
            time.sleep(SETTLE_SECONDS)
            self.results.figure("memory of one process, empty", memory_bytes(pid) / MIB, "MiB", most=75)
            self.say("lists and logins")
            self.results.add("other", "Confide, list of 100, 16", [self.load([pid], port, lists, connections=16)])
            self.results.add("other", "Confide, login, 2", [self.load([pid], port, [login], connections=2)])
            self._reads_beside_hashes(pid, port, warm, login)
        self._full_memory()

    def _reads_beside_hashes(self, pid: int, port: int, warm: list[bytes], login: bytes) -> None:
        import threading  # noqa: PLC0415 - for this alone

        self.say("reads while two passwords are hashed")
        quiet = self.load([pid], port, warm, connections=4)
        side = self.folder / "side"
        side.mkdir(exist_ok=True)
        logins = threading.Thread(
            target=measure,
            args=([pid], port, [login]),
            kwargs={"folder": side, "connections": 2, "seconds": self.seconds + 1},
        )
        logins.start()
        beside = self.load([pid], port, warm, connections=4)
        logins.join()
        self.results.add("other", "Confide, cached read, 4, quiet", [quiet])
        self.results.add("other", "Confide, cached read, 4, beside two hashes", [beside])
        self.results.figure("p99 of reads beside two hashes / quiet", beside.p99_ms / quiet.p99_ms, "x", most=5)

    def _full_memory(self) -> None:
        self.say("memory when the cache is full")
        limit = 64 * MIB
        seeded = self.filled(100_000)
        requests = service.reads(seeded, range(100_000))
        with service.confide(self.folder, seeded, cache_bytes=limit) as (pid, port):
            time.sleep(SETTLE_SECONDS)
            before = memory_bytes(pid)
            for _ in range(3):
                self.load([pid], port, requests, is_in_turn=True, seconds=8)
            grown = memory_bytes(pid) - before
        self.results.figure("growth with a full cache / CONFIDE_CACHE_BYTES", grown / limit, "x", most=1.25)
