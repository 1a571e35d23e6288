"""The benchmarks: the servers that they load, the order of the loads, and the ratios between results."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import ExitStack

import peers
import service
import stores
from load import Figures, build_post, measure
from observability import ObservabilityBenchmarks
from results import compute_percentile, compute_ratio
from running import measure_memory_bytes
from scale import ScaleBenchmarks
from seeds import CONFIGURATION, Seeded, build_key

from support.postgres import PostgresServer, find_binaries

KEYS = 5_000
PEER_KEYS = 500
# After the start, the service hashes one password and frees that memory.
SETTLE_SECONDS = 2
MIB = 1024 * 1024
ANSWER = b'{"tenant":"%b","integration_type":"%b","configuration":%b}' % (
    *map(str.encode, build_key(KEYS - 1)),
    CONFIGURATION,
)


class BenchmarkRun(ScaleBenchmarks, ObservabilityBenchmarks):
    """All benchmarks. Each can run alone."""

    def measure_reads(self) -> None:
        """Compare cached reads with nginx, a bare ASGI function and the reads of other systems."""
        seeded = self.fill_store(KEYS)
        warm = service.build_reads(seeded, range(KEYS))
        known = service.build_reads(seeded, range(KEYS), 'If-None-Match: "1"')
        fresh = service.build_unique_reads(seeded, 300_000, KEYS)
        found: dict[str, list[Figures]] = {
            name: [] for name in ("seen", "fresh", "304", "nginx", "nginx-fresh", "asgi", "bare")
        }
        with ExitStack() as stack:
            pid, port = stack.enter_context(service.run_confide(self.folder, seeded))
            asgi_pid, asgi_port = stack.enter_context(service.run_asgi_frame(self.folder, seeded))
            nginx = stack.enter_context(peers.run_nginx(self.folder, ANSWER))
            bare = stack.enter_context(peers.run_bare_asgi(self.folder, ANSWER))
            for warmed in (port, asgi_port):
                self.load([pid], warmed, warm, seconds=2)
            for number in range(self.rounds):
                self.report_step(f"cached reads, round {number + 1} of {self.rounds}")
                found["seen"].append(self.load([pid], port, warm))
                found["nginx"].append(self.load(nginx.pids, nginx.port, warm))
                found["fresh"].append(self.load([pid], port, fresh, is_in_turn=True))
                found["nginx-fresh"].append(self.load(nginx.pids, nginx.port, fresh, is_in_turn=True))
                found["304"].append(self.load([pid], port, known))
                found["asgi"].append(self.load([asgi_pid], asgi_port, warm))
                found["bare"].append(self.load(bare.pids, bare.port, warm))
        add = self.results.add_row
        add("read", "nginx, constant", found["nginx"])
        ours = add("read", "Confide, repeated head", found["seen"])
        add("read", "Confide, new head", found["fresh"])
        add("read", "Confide, 304", found["304"])
        add("read", "bare ASGI, constant, on uvicorn", found["bare"])
        add("read", "Confide, ASGI frame on uvicorn", found["asgi"])
        figure = self.results.add_figure
        figure("cached read, repeated head / nginx", compute_ratio(found["seen"], found["nginx"]), "x", max_value=1.4)
        figure("cached read, new head / nginx", compute_ratio(found["fresh"], found["nginx-fresh"]), "x", max_value=1.8)
        figure("cached read, ASGI frame / bare ASGI", compute_ratio(found["asgi"], found["bare"]), "x", max_value=1.35)
        self._measure_peer_reads(ours.cpu_us)

    def _measure_peer_reads(self, our_cpu_us: float) -> None:
        if peers.find_bao() is not None:
            self.report_step("reads of OpenBao on raft with a file audit")
            with peers.run_openbao(self.folder, CONFIGURATION, PEER_KEYS) as bao:
                row = self.results.add_row(
                    "read", "OpenBao KV 2, raft, file audit", [self.load(bao.pids, bao.port, bao.reads)]
                )
            self.results.add_figure("OpenBao / cached read", row.cpu_us / our_cpu_us, "x", min_value=20)
        if "etcd" not in peers.find_missing():
            self.report_step("reads of etcd through its gateway")
            with peers.run_etcd(self.folder, CONFIGURATION, PEER_KEYS) as etcd:
                row = self.results.add_row("read", "etcd, JSON gateway", [self.load(etcd.pids, etcd.port, etcd.reads)])
                saves = self.results.add_row(
                    "save", "etcd, gateway put, 16", [self.load(etcd.pids, etcd.port, etcd.saves, connections=16)]
                )
            self.results.add_figure("etcd / cached read", row.cpu_us / our_cpu_us, "x", min_value=15)
            self._etcd_rate = saves.rate

    def measure_sqlite(self) -> None:
        """Measure cache misses, saves and growth to a million configs on SQLite."""
        few, many = self.fill_store(1_000), self.fill_store(self.large)
        self._measure_misses("SQLite", few, many, max_us=50)
        self.report_step("saves on SQLite, waiting for the disk")
        # In a separate database, because its rows cannot be decrypted.
        bare = [
            stores.measure_sqlite_commits(self.fill_store(1_000).settings.data / "confide.db", seconds=self.seconds)
        ]
        self.results.add_row("save", "SQLite, bare loop of single commits", bare)
        found = {}
        for name, seeded in (("1,000", few), (f"{self.large:,}", many)):
            requests = service.build_merges(seeded, range(1_000))
            with service.run_confide(self.folder, seeded, durable=True) as (pid, port):
                for connections in (1, 16, 64):
                    loads = [self.load([pid], port, requests, connections=connections)]
                    found[name, connections] = self.results.add_row(
                        "save", f"Confide, SQLite of {name}, {connections}", loads
                    )
        figure = self.results.add_figure
        figure(
            "SQLite save, 1 connection, p50 over a bare commit",
            (found["1,000", 1].p50_ms - bare[0].p50_ms) * 1e3,
            "µs",
            max_value=400,
        )
        figure(
            "SQLite save, 16 connections / bare commits", found["1,000", 16].rate / bare[0].rate, "x rate", min_value=1
        )
        self._measure_growth("SQLite", few, many)

    def measure_postgresql(self) -> None:
        """Compare cache misses and saves on PostgreSQL with its own load generator."""
        with self.run_postgres() as server:
            few, many = (self.fill_store(count, server.new_database()) for count in (1_000, self.large))
            self._measure_misses("PostgreSQL", few, many, max_us=75)
            self.report_step("bare reads by asyncpg")
            fetch = asyncio.run(
                stores.measure_asyncpg_fetches(
                    many.settings.database_url, count=self.large, connections=16, seconds=self.seconds
                )
            )
            self.results.add_row("miss", "asyncpg, bare fetch, 16", [fetch])
            ours = next(row for row in self.results.rows if row.name == f"Confide, PostgreSQL of {self.large:,}, 16")
            self.results.add_figure(
                "PostgreSQL missed read / bare fetch", ours.rate / fetch.rate, "x rate", min_value=0.4
            )
            self._measure_postgres_saves(
                few, many, bare_url=self.fill_store(1_000, server.new_database()).settings.database_url
            )
            self._measure_growth("PostgreSQL", few, many)
            if peers.find_bao() is not None:
                self._measure_openbao_saves(server)

    def _measure_postgres_saves(self, few: Seeded, many: Seeded, *, bare_url: str) -> None:
        found = {}
        self.report_step("saves on PostgreSQL")
        for name, seeded in (("1,000", few), (f"{self.large:,}", many)):
            requests = service.build_merges(seeded, range(1_000))
            with service.run_confide(self.folder, seeded, "--workers", "2", durable=True) as (pid, port):
                for connections in (1, 16, 64):
                    loads = [self.load([pid], port, requests, connections=connections)]
                    found[name, connections] = self.results.add_row(
                        "save", f"Confide, PostgreSQL of {name}, {connections}", loads
                    )
        bench = stores.run_pgbench(
            find_binaries() / "pgbench",
            bare_url,
            self.folder,
            count=1_000,
            connections=16,
            seconds=int(self.seconds),
        )
        self.results.add_row("save", "pgbench, the same statements, 16", [bench])
        ours = found["1,000", 16]
        self.results.add_figure("PostgreSQL save / pgbench", ours.rate / bench.rate, "x rate", min_value=0.4)
        self.results.add_figure("PostgreSQL save, CPU time", ours.cpu_us, "µs", max_value=250)
        if hasattr(self, "_etcd_rate"):
            self.results.add_figure("PostgreSQL save / etcd put", ours.rate / self._etcd_rate, "x rate", min_value=1.5)
        self._our_save_rate = ours.rate

    def _measure_openbao_saves(self, server: PostgresServer) -> None:
        self.report_step("saves of OpenBao on PostgreSQL")
        with peers.run_openbao(self.folder, CONFIGURATION, PEER_KEYS, postgres=server.new_database()) as bao:
            row = self.results.add_row(
                "save", "OpenBao on PostgreSQL, 16", [self.load(bao.pids, bao.port, bao.saves, connections=16)]
            )
        self.results.add_figure(
            "PostgreSQL save / OpenBao on PostgreSQL", self._our_save_rate / row.rate, "x rate", min_value=15
        )

    def _measure_misses(self, engine: str, few: Seeded, many: Seeded, *, max_us: float) -> None:
        """Measure reads of keys that are not in the cache."""
        for name, seeded, count in (("1,000", few, 1_000), (f"{self.large:,}", many, self.large)):
            self.report_step(f"missed reads on {engine} of {name}")
            step = 7_919  # a prime, so that neighbors are not read in turn
            requests = [
                service.build_reads(seeded, range(n * step % count, n * step % count + 1))[0]
                for n in range(min(count, 100_000))
            ]
            with service.run_confide(self.folder, seeded, cache_bytes=64 * 1024) as (pid, port):
                self.load([pid], port, requests[:100], connections=1, seconds=1)
                loads = [self.load([pid], port, requests, connections=16, is_in_turn=True) for _ in range(2)]
            row = self.results.add_row("miss", f"Confide, {engine} of {name}, 16", loads)
        self.results.add_figure(f"{engine} missed read, CPU time", row.cpu_us, "µs", max_value=max_us)

    def _measure_growth(self, engine: str, few: Seeded, many: Seeded) -> None:
        """Measure cached reads and memory with few and many configs."""
        loads: dict[str, list[Figures]] = {}
        for name, seeded, among in (("10", few, 10), ("1,000", few, 1_000), (f"{self.large:,}", many, KEYS)):
            self.report_step(f"growth on {engine}: {name}")
            with service.run_confide(self.folder, seeded) as (pid, port):
                requests = service.build_reads(seeded, range(among))
                self.load([pid], port, requests, seconds=2)
                loads[name] = [self.load([pid], port, requests) for _ in range(2)]
                self.results.add_figure(
                    f"memory of one process, {engine}, {among:,} of {name} read", measure_memory_bytes(pid) / MIB, "MiB"
                )
            self.results.add_row("growth", f"cached read, {engine}, {among:,} of {name}", loads[name])

    def measure_change_feed(self) -> None:
        """Measure how soon another process returns a saved version."""
        for engine, max_ms in (("SQLite", 100), ("PostgreSQL", 20)):
            self.report_step(f"change feed on {engine}")
            with ExitStack() as stack:
                server = stack.enter_context(self.run_postgres()) if engine == "PostgreSQL" else None
                seeded = self.fill_store(100, server.new_database() if server else None)
                ports = tuple(stack.enter_context(service.run_confide(self.folder, seeded))[1] for _ in range(2))
                took = asyncio.run(service.measure_propagation_seconds(ports, seeded))  # type: ignore[arg-type]
            figure = self.results.add_figure
            figure(f"change feed on {engine}, p50", compute_percentile(took, 50) * 1e3, "ms")
            figure(f"change feed on {engine}, p99", compute_percentile(took, 99) * 1e3, "ms", max_value=max_ms)
            figure(f"change feed on {engine}, longest", max(took) * 1e3, "ms", max_value=1_000)

    def measure_other_operations(self) -> None:
        """Measure the start, memory, lists, logins, and reads during password hashing."""
        seeded = self.fill_store(1_000)
        self.report_step("starts")
        starts = [service.measure_start_seconds(self.folder, seeded) for _ in range(5)]
        self.results.add_figure("start to first answer", statistics.median(starts), "s", max_value=0.6)
        warm = service.build_reads(seeded, range(1_000))
        login = build_post(
            "/login", b'{"login":"%b","password":"%b"}' % (seeded.login.encode(), seeded.password.encode())
        )
        lists = [request.replace(b"/config?", b"/configs?") for request in service.build_reads(seeded, range(1))]
        lists = [
            line.partition(b" HTTP")[0].partition(b"?")[0] + b" HTTP" + line.partition(b" HTTP")[2] for line in lists
        ]
        with service.run_confide(self.folder, seeded) as (pid, port):
            time.sleep(SETTLE_SECONDS)
            self.results.add_figure(
                "memory of one process, empty", measure_memory_bytes(pid) / MIB, "MiB", max_value=75
            )
            self.report_step("lists and logins")
            self.results.add_row("other", "Confide, list of 100, 16", [self.load([pid], port, lists, connections=16)])
            self.results.add_row("other", "Confide, login, 2", [self.load([pid], port, [login], connections=2)])
            self._measure_reads_beside_hashes(pid, port, warm, login)
        self._measure_full_cache()

    def _measure_reads_beside_hashes(self, pid: int, port: int, warm: list[bytes], login: bytes) -> None:
        import threading  # noqa: PLC0415 - only here

        self.report_step("reads while two passwords are hashed")
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
        self.results.add_row("other", "Confide, cached read, 4, quiet", [quiet])
        self.results.add_row("other", "Confide, cached read, 4, beside two hashes", [beside])
        self.results.add_figure(
            "p99 of reads beside two hashes / quiet", beside.p99_ms / quiet.p99_ms, "x", max_value=5
        )

    def _measure_full_cache(self) -> None:
        self.report_step("memory with a full cache")
        limit = 64 * MIB
        seeded = self.fill_store(100_000)
        requests = service.build_reads(seeded, range(100_000))
        with service.run_confide(self.folder, seeded, cache_bytes=limit) as (pid, port):
            time.sleep(SETTLE_SECONDS)
            before = measure_memory_bytes(pid)
            for _ in range(3):
                self.load([pid], port, requests, is_in_turn=True, seconds=8)
            grown = measure_memory_bytes(pid) - before
        self.results.add_figure("growth with a full cache / CONFIDE_CACHE_BYTES", grown / limit, "x", max_value=1.25)
