"""Faults of a PostgreSQL cluster while a service is under load, and their results."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from confide.names import ConfigKey
from support.failover_checks import UNPROVEN_REASONS, FailoverResult, StoredChange, evaluate, find_bad_log_lines
from support.failover_load import CHANGES, HTTP_OK, TYPE, FailoverLoad, parse_position
from support.histories import load_histories
from support.patroni import NODES, PatroniCluster, build_url
from support.postgres import execute_sql
from support.processes import Service, list_group
from support.proxy import Proxy
from support.waiting import wait_until, wait_until_async

WORKERS = 2
PROBE_DATABASE = "probe"
# How long a fault lasts once its effect is visible.
HOLD_SECONDS = 5.0
# Longer than the time to live of the leader lock, after which the leader without etcd steps down.
ETCD_OUTAGE_SECONDS = 15.0
# Shorter than that time, so that the leader stays the leader.
SHORT_FREEZE_SECONDS = 4.0
LOST_SAVES = 20
MAX_RECOVERY_SECONDS = 60.0
MAX_CATCH_UP_SECONDS = 30.0
LOST = "lost, confirm"
AUDIT_FINDINGS = ("ok", LOST)
STEADY_HEALTH_CHECKS = 8
STEADY_SAVES = 20


@dataclass
class SystemUnderTest:
    """A service under load on a cluster, at one address."""

    cluster: PatroniCluster
    service: Service
    token: str
    database: str
    ports: list[int]
    proxies: list[Proxy] = field(default_factory=list)
    load: FailoverLoad = field(init=False)
    # Set if Patroni did not repair the cluster after a fault.
    is_cluster_broken: bool = False

    @property
    def probe_urls(self) -> list[str]:
        return [build_url(f"127.0.0.1:{port}", PROBE_DATABASE) for port in self.ports]

    async def wait_for_leader(self, *, other_than: str) -> None:
        await asyncio.to_thread(
            wait_until, lambda: self.cluster.find_leader() not in (None, other_than), "there is a new leader"
        )

    async def wait_until_whole(self, *, is_synchronous: bool = True) -> None:
        """Wait until the cluster is whole. If it is not after a long time, note that for the result."""
        try:
            await asyncio.to_thread(self.cluster.wait_until_whole, is_synchronous=is_synchronous)
        except AssertionError as error:
            print(error, file=sys.stderr)
            self.is_cluster_broken = True


@dataclass(frozen=True)
class Fault:
    """A fault: what happens, and what the cluster itself may lose by it."""

    title: str
    cause: Callable[[SystemUnderTest], Awaitable[None]]
    may_lose: bool = False
    needs_proxies: bool = False
    # Two servers accept connections. Only a watchdog prevents it, so no time is promised.
    has_two_leaders: bool = False
    # The old leader continues after another node replaced it. Before 3.0.3, Patroni can then lose commits.
    has_returning_leader: bool = False


async def kill_leader(system: SystemUnderTest) -> None:
    leader = await asyncio.to_thread(system.cluster.require_leader)
    await asyncio.to_thread(system.cluster.kill, leader)
    await system.wait_for_leader(other_than=leader)
    await asyncio.sleep(HOLD_SECONDS)
    await asyncio.to_thread(system.cluster.start_node, leader)
    await system.wait_until_whole()


async def kill_synchronous_replica(system: SystemUnderTest) -> None:
    members = await asyncio.to_thread(system.cluster.list_members)
    replica = next(one.name for one in members if one.role == "sync_standby")
    await asyncio.to_thread(system.cluster.kill, replica)
    await asyncio.sleep(HOLD_SECONDS)
    await asyncio.to_thread(system.cluster.start_node, replica)
    await system.wait_until_whole()


async def switch_over(system: SystemUnderTest) -> None:
    leader = await asyncio.to_thread(system.cluster.require_leader)
    await asyncio.to_thread(system.cluster.switch_over, leader)
    await system.wait_for_leader(other_than=leader)
    await asyncio.sleep(HOLD_SECONDS)
    await system.wait_until_whole()


async def freeze_leader(system: SystemUnderTest) -> None:
    """Freeze the leader until another node has replaced it, then thaw it."""
    await _freeze_until_replaced(system, system.cluster.freeze)


async def freeze_patroni_of_leader(system: SystemUnderTest) -> None:
    """Freeze Patroni of the leader until another node has replaced it. Meanwhile, two servers accept connections."""
    await _freeze_until_replaced(system, system.cluster.freeze_patroni)


async def _freeze_until_replaced(system: SystemUnderTest, freeze: Callable[[str], None]) -> None:
    leader = await asyncio.to_thread(system.cluster.require_leader)
    freeze(leader)
    try:
        await system.wait_for_leader(other_than=leader)
        await asyncio.sleep(HOLD_SECONDS)
    finally:
        system.cluster.thaw(leader)
    await system.wait_until_whole()


async def freeze_leader_briefly(system: SystemUnderTest) -> None:
    """Freeze the leader and thaw it before another node replaces it."""
    leader = await asyncio.to_thread(system.cluster.require_leader)
    system.cluster.freeze(leader)
    try:
        await asyncio.sleep(SHORT_FREEZE_SECONDS)
    finally:
        system.cluster.thaw(leader)
    await system.wait_until_whole()


async def stop_etcd(system: SystemUnderTest) -> None:
    await asyncio.to_thread(system.cluster.stop_etcd)
    await asyncio.sleep(ETCD_OUTAGE_SECONDS)
    await asyncio.to_thread(system.cluster.start_etcd)
    await system.wait_until_whole()


async def stop_etcd_without_failsafe(system: SystemUnderTest) -> None:
    """Stop etcd while the leader steps down without it."""
    await asyncio.to_thread(system.cluster.configure, failsafe_mode=False)
    # Patroni reads its settings in each loop.
    await asyncio.sleep(HOLD_SECONDS)
    await stop_etcd(system)
    await asyncio.to_thread(system.cluster.configure, failsafe_mode=True)


async def cut_path(system: SystemUnderTest) -> None:
    """Drop everything between the service and its address, then heal the path."""
    for proxy in system.proxies:
        proxy.stall()
    await asyncio.sleep(HOLD_SECONDS)
    for proxy in system.proxies:
        proxy.heal()


async def restart_all_nodes(system: SystemUnderTest) -> None:
    for name in NODES:
        await asyncio.to_thread(system.cluster.kill, name)
    await asyncio.sleep(HOLD_SECONDS)
    for name in NODES:
        await asyncio.to_thread(system.cluster.start_node, name)
    await system.wait_until_whole()


async def lose_commits(system: SystemUnderTest) -> None:
    """Kill a leader without synchronous replication, whose last commits no replica has."""
    cluster = system.cluster
    await asyncio.to_thread(cluster.configure, synchronous_mode=False)
    await asyncio.to_thread(wait_until, lambda: not cluster.has_synchronous_replica(), "replication is asynchronous")
    await asyncio.sleep(HOLD_SECONDS)
    leader = await asyncio.to_thread(cluster.require_leader)
    cluster.freeze_replication(leader)
    since = time.monotonic()
    await wait_until_async(lambda: system.load.record.count_saved(since=since) > LOST_SAVES, "saves without a replica")
    await asyncio.to_thread(cluster.kill, leader)
    await system.wait_for_leader(other_than=leader)
    await asyncio.sleep(HOLD_SECONDS)
    await asyncio.to_thread(cluster.start_node, leader)
    await system.wait_until_whole(is_synchronous=False)
    await asyncio.to_thread(cluster.configure, synchronous_mode=True)
    await system.wait_until_whole()


FAULTS = {
    "leader-killed": Fault("leader killed", kill_leader),
    "switchover": Fault("planned switchover", switch_over),
    "leader-frozen": Fault("leader frozen, replaced and thawed", freeze_leader, has_returning_leader=True),
    "leader-paused": Fault("leader frozen for 4 s and thawed", freeze_leader_briefly),
    "patroni-frozen": Fault(
        "two leaders: only Patroni of the leader frozen",
        freeze_patroni_of_leader,
        has_two_leaders=True,
        has_returning_leader=True,
    ),
    "replica-killed": Fault("synchronous replica killed", kill_synchronous_replica),
    "etcd-stopped": Fault("etcd stopped for 15 s", stop_etcd),
    "etcd-stopped-no-failsafe": Fault("etcd stopped for 15 s, `failsafe_mode` off", stop_etcd_without_failsafe),
    "path-cut": Fault("network path cut for 5 s", cut_path, needs_proxies=True),
    "all-restarted": Fault("all nodes killed and started", restart_all_nodes),
    "commits-lost": Fault("leader killed, asynchronous replication", lose_commits, may_lose=True),
}


@asynccontextmanager
async def run_system(
    cluster: PatroniCluster, folder: Path, *, address: str, database: str, has_proxies: bool = False
) -> AsyncIterator[SystemUnderTest]:
    """Run a service on a new database of the cluster. With proxies, they are between it and the cluster."""
    await asyncio.to_thread(cluster.create_database, database)
    proxies = [Proxy(port) for port in cluster.list_ports(address)] if has_proxies else []
    for proxy in proxies:
        await proxy.start()
    ports = [proxy.port for proxy in proxies] or cluster.list_ports(address)
    url = build_url(",".join(f"127.0.0.1:{port}" for port in ports), database)
    service = Service(folder, "--workers", f"{WORKERS}", database=url, is_unsafe=False)
    try:
        await asyncio.to_thread(service.start)
        session = await asyncio.to_thread(service.add_admin)
        token = await asyncio.to_thread(create_load_token, service, session)
        yield SystemUnderTest(cluster, service, token, database, ports, proxies)
    finally:
        await asyncio.to_thread(service.end)
        for proxy in proxies:
            await proxy.stop()


async def create_probe_database(cluster: PatroniCluster) -> None:
    await asyncio.to_thread(cluster.create_database, PROBE_DATABASE)
    leader = await asyncio.to_thread(cluster.require_leader)
    await create_probe_table(build_url(f"127.0.0.1:{cluster.ports[leader]}", PROBE_DATABASE))


async def create_probe_table(url: str) -> None:
    await execute_sql(url, "CREATE TABLE probe (n bigint)")


async def measure_fault(system: SystemUnderTest, fault: Fault) -> FailoverResult:
    """Put the service under load, cause the fault, wait for the recovery, and check everything."""
    workers = set(list_group(_find_pid(system.service)))
    log_start = system.service.log.stat().st_size
    system.load = load = FailoverLoad(system.service, system.token, system.probe_urls)
    await load.prepare()
    await load.start()
    try:
        await fault.cause(system)
        has_recovered = await _wait_for_recovery(load)
    finally:
        await load.stop()
    leader = await asyncio.to_thread(system.cluster.require_leader)
    url = build_url(f"127.0.0.1:{system.cluster.ports[leader]}", system.database)
    result = await check_load(load, system.service, url, may_lose=fault.may_lose)
    result.audit = await asyncio.to_thread(_verify_audit, system)
    log = system.service.log.read_bytes()[log_start:].decode()
    result.bad_log_lines = find_bad_log_lines(log)
    result.is_recovered = has_recovered
    result.is_cluster_whole = not system.is_cluster_broken
    # A new process is a new worker. Right after the start, one that only helps to start workers ends.
    result.has_restarted = not set(list_group(_find_pid(system.service))) <= workers
    result.load_average = os.getloadavg()[0]
    return result


async def check_load(load: FailoverLoad, service: Service, url: str, *, may_lose: bool = False) -> FailoverResult:
    """Compare a load that was stopped with the database."""
    stored = await _load_changes(url)
    await _wait_for_watchers(load, stored)
    await load.stop_watchers()
    histories = await load_histories(service.data, url)
    return evaluate(load.record, histories, stored, may_lose=may_lose)


async def _wait_for_recovery(load: FailoverLoad) -> bool:
    """Wait until saves succeed and health has confirmed the caches for a while. Return False if that takes too long."""
    since = time.monotonic()

    def is_steady() -> bool:
        latest = load.record.health[-STEADY_HEALTH_CHECKS:]
        is_healthy = latest[0].at > since and not any(UNPROVEN_REASONS & set(one.reasons) for one in latest)
        return is_healthy and load.record.count_saved(since=since) > STEADY_SAVES

    try:
        await wait_until_async(is_steady, "the service has recovered", max_seconds=MAX_RECOVERY_SECONDS)
    except AssertionError:
        return False
    return True


async def _wait_for_watchers(load: FailoverLoad, stored: Sequence[StoredChange]) -> None:
    """Wait until each watcher received the last change. A watcher that never does misses changes, which is reported."""
    last = max(one.position for one in stored)

    def have_all() -> bool:
        return all(parse_position(segments[-1].last_id) >= last for segments in load.record.watchers)

    try:
        await wait_until_async(have_all, "the watchers have the last change", max_seconds=MAX_CATCH_UP_SECONDS)
    except AssertionError:
        return


async def _load_changes(url: str) -> list[StoredChange]:
    connection = await asyncpg.connect(url)
    try:
        rows: Any = await connection.fetch(
            """SELECT xid::text::bigint, id, tenant, integration_type, version FROM changes
            WHERE kind = ANY($1) AND integration_type LIKE $2 ORDER BY xid, id""",
            list(CHANGES),
            f"{TYPE}%",
        )
    finally:
        await connection.close()
    return [StoredChange((row[0], row[1]), ConfigKey(row[2], row[3]), row[4]) for row in rows]


def _verify_audit(system: SystemUnderTest) -> str:
    """Verify the whole audit chain once all entries are in it. Return `ok`, `lost, confirm` or the finding."""
    deadline = time.monotonic() + MAX_CATCH_UP_SECONDS
    with system.service.client(system.token) as client:
        while True:
            finding = _verify_audit_once(client)
            if finding in AUDIT_FINDINGS or time.monotonic() > deadline:
                return finding
            time.sleep(1)


def _verify_audit_once(client: httpx2.Client) -> str:
    params: dict[str, str] = {}
    has_losses = False
    while True:
        reply = client.get("/audit/verify", params=params)
        if reply.status_code != HTTP_OK:
            return str(reply.json()["code"])
        answer = reply.json()
        if answer["first_bad"] is not None or answer["unlinked"]:
            return str(answer)
        has_losses |= bool(answer["lost"])
        if answer["next"] is None:
            return LOST if has_losses else "ok"
        params = {"after": answer["next"]}


def create_load_token(service: Service, session: str) -> str:
    """Create a token for the load. A service token stays valid when commits are lost, and a session does not."""
    with service.client(session) as client:
        return str(client.post("/tokens", json={"label": "load"}).raise_for_status().json()["token"])


def _find_pid(service: Service) -> int:
    assert service.process is not None
    return service.process.pid
