"""Puts the parts together: the only place that knows every one of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from confide.audit.checkpoint_file import CheckpointFile
from confide.audit.linker import ChainLinker
from confide.audit.recorder import AuditRecorder
from confide.audit.verification import AuditLog
from confide.caching.lease import Lease
from confide.caching.memory import BoundedMemory
from confide.changes import positions
from confide.changes.model import Position
from confide.changes.routes import format_change
from confide.changes.subscriber import ChangeSubscriber
from confide.changes.watch import WatchHub
from confide.clock import now
from confide.configs.decryption import ConfigDecrypter
from confide.configs.export import ConfigExporter
from confide.configs.history import History
from confide.configs.retention import Retention
from confide.configs.save import ConfigWriter
from confide.configs.scan import ConfigScanner
from confide.configs.tenants import Tenants
from confide.crypto.envelope import EnvelopeEncryption
from confide.database.model import DatabaseIdentity
from confide.identity.access import Access
from confide.identity.authenticator import Authenticator
from confide.identity.hasher import Argon2Hasher
from confide.identity.throttle import LoginThrottle
from confide.identity.tokens import Tokens
from confide.identity.users import Users
from confide.integration_types.active import ActiveIntegrationTypes
from confide.integration_types.conformance import ConformanceCheck
from confide.integration_types.manage import IntegrationTypes
from confide.reads.cache import Cache
from confide.reads.head_cache import RequestHeadCache
from confide.reads.reader import ConfigReader
from confide.reads.response import PreparedResponse
from confide.reads.statistics import AccessStatistics
from confide.server.metrics import Counting, WorkerMetrics
from confide.server.preparation import keys_of, store_of
from confide.server.services import Services
from confide.server.settings import MIB, Settings
from confide.server.stores import Store
from confide.telemetry.events import Recorder
from confide.telemetry.histograms import Histograms
from confide.telemetry.operations import SILENT, IoLog
from confide.telemetry.sink_workers import Dispatcher, outlets_of
from confide.telemetry.sinks import sinks_of
from confide.web.request_scope import RequestCounter

HEADS_PART = 8


@dataclass(frozen=True, slots=True)
class Parts:
    """The living parts of one process."""

    store: Store
    keys: EnvelopeEncryption
    hasher: Argon2Hasher
    home: DatabaseIdentity
    services: Services


@asynccontextmanager
async def noting_io(settings: Settings) -> AsyncIterator[Dispatcher | None]:
    """Note I/O events for as long as this lasts, and give the sinks a moment at the end; None where it is off."""
    if settings.is_io_off:
        yield None
        return
    sinks = sinks_of(
        settings.io_sinks.get_secret_value(),
        folder=settings.io_folder,
        most_bytes=settings.io_mib * MIB,
        days=settings.io_days,
    )
    recorder = Recorder(worker=f"{socket.gethostname()}-{os.getpid()}", most_events=settings.io_queue)
    pump = Dispatcher(recorder, Histograms(), outlets_of(sinks, most_events=settings.io_queue))
    try:
        yield pump
    finally:
        await asyncio.to_thread(pump.close)


@asynccontextmanager
async def parts_of(
    settings: Settings, *, setup_token: str = "", accepts_unsafe: bool = False, pump: Dispatcher | None = None
) -> AsyncIterator[Parts]:
    """Bring the parts of one process to life, on a store that `prepare` has seen."""
    io: IoLog = SILENT if pump is None else pump.recorder
    store = store_of(settings, accepts_unsafe=accepts_unsafe, io=io)
    hasher = Argon2Hasher(io=io)
    try:
        home = await store.open()
        keys = keys_of(settings, store)
        await keys.start()
        observing = _Observing(io, RequestCounter(), pump, hash_queue=lambda: hasher.waiting)
        services = _services(settings, store, keys, hasher=hasher, home=home, observing=observing)
        services.setup_token = setup_token
        yield Parts(store, keys, hasher, home, services)
    finally:
        hasher.close()
        await store.close()


class _Observing(NamedTuple):
    """What takes note of what a process does."""

    io: IoLog
    traffic: RequestCounter
    pump: Dispatcher | None
    hash_queue: Callable[[], int]


class _Remembering(NamedTuple):
    """What a process remembers, and what keeps that true."""

    lease: Lease
    memory: BoundedMemory[Any]
    heads: RequestHeadCache
    cache: Cache
    authenticator: Authenticator
    types_in_force: ActiveIntegrationTypes
    watching: WatchHub
    listener: ChangeSubscriber


def _remembering(settings: Settings, store: Store, home: DatabaseIdentity, *, io: IoLog) -> _Remembering:
    # Heads have a part of their own: where each is unlike all before, they would push out all else.
    for_heads = settings.cache_bytes // HEADS_PART
    lease, heads = Lease(), RequestHeadCache(for_heads)
    memory = BoundedMemory[Any](settings.cache_bytes - for_heads)
    ttl_seconds = settings.cache_ttl_seconds
    cache = Cache(memory, lease, prepare=PreparedResponse, ttl_seconds=ttl_seconds)
    authenticator = Authenticator(store, memory, lease, clock=now, ttl_seconds=ttl_seconds, io=io)
    types = ActiveIntegrationTypes(store, memory, lease, io=io)
    watching = WatchHub(store, authenticator, write=partial(format_change, format_position=_positions(home)))
    told: dict[str, Any] = {"cache": cache, "authenticator": authenticator, "types": types, "watching": watching}
    listener = ChangeSubscriber(store.news, lease=lease, memory=memory, **told)
    return _Remembering(lease, memory, heads, cache, authenticator, types, watching, listener)


def _positions(home: DatabaseIdentity) -> Callable[[Position], str]:
    """Writes a position as callers see it, in this epoch."""
    return partial(positions.write, home.epoch, has_xid=home.has_xid)


def _services(
    settings: Settings,
    store: Store,
    keys: EnvelopeEncryption,
    *,
    hasher: Argon2Hasher,
    home: DatabaseIdentity,
    observing: _Observing,
) -> Services:
    auditor = AuditRecorder(store, keys, now)
    access = Access(auditor)
    kept = _remembering(settings, store, home, io=observing.io)
    # What several acts are given alike; each names what it takes, so a wrong name ends the start.
    judging: dict[str, Any] = {"guesses": LoginThrottle(store, keys, now), "access": access, "auditor": auditor}
    telling: dict[str, Any] = {"authenticator": kept.authenticator, "news": store.news}
    acting: dict[str, Any] = {"access": access, "auditor": auditor, "news": store.news, "clock": now}
    showing: dict[str, Any] = {"opener": ConfigDecrypter(store, keys, auditor), "types": kept.types_in_force}
    walker = ConfigScanner(store, showing["opener"])
    reading = _reading(settings, store, kept, io=observing.io, access=access, **showing)
    usage = AccessStatistics(store, access=access, clock=now)
    checkpoint_file = CheckpointFile(settings.checkpoints_file)
    chain = ChainLinker(store, keys, clock=now, checkpoint_file=checkpoint_file)
    least = settings.min_password_characters
    return Services(
        **kept._asdict(),
        store=store,
        opener=showing["opener"],
        reading=reading,
        usage=usage,
        io=observing.io,
        traffic=observing.traffic,
        metrics=_metrics(store, reading, kept, usage, observing),
        history=History(store, access=access, auditor=auditor, **showing),
        configs=ConfigWriter(store, keys, cache=kept.cache, **showing, **acting),
        types=IntegrationTypes(store, keys, heard=kept.listener.apply_type_change, **acting),
        chain=chain,
        audit=AuditLog(store, keys, chain=chain, checkpoint_file=checkpoint_file, access=access, clock=now),
        exporting=ConfigExporter(walker, kept.types_in_force, auditor=auditor),
        retention=Retention(store, kept.types_in_force, clock=now, log_days=settings.log_days),
        conformance=ConformanceCheck(walker, kept.types_in_force, access=access),
        accounts=Users(store, hasher, **judging, **telling, min_password_characters=least),
        tokens=Tokens(store, hasher, **judging, **telling, clock=now),
        tenants=Tenants(store, keys, listener=kept.listener, **acting),
        **_ways(settings, home),
    )


def _reading(settings: Settings, store: Store, kept: _Remembering, **given: Any) -> ConfigReader:
    sample = 0 if settings.is_io_off else settings.io_sample
    stale_seconds = settings.stale_reads_seconds
    return ConfigReader(
        store, kept.cache, kept.authenticator, lease=kept.lease, stale_seconds=stale_seconds, sample=sample, **given
    )


def _metrics(
    store: Store, reading: ConfigReader, kept: _Remembering, usage: AccessStatistics, observing: _Observing
) -> WorkerMetrics:
    return WorkerMetrics(
        Counting(
            reading,
            kept.listener,
            kept.lease,
            usage,
            observing.traffic,
            observing.pump,
            memories={"configs": kept.memory, "heads": kept.heads},
            depths={
                "hashes": observing.hash_queue,
                "streams": kept.watching.__len__,
                "horizon": store.news.horizon_age,
            },
        )
    )


def _ways(settings: Settings, home: DatabaseIdentity) -> dict[str, Any]:
    """How this service is set up, as far as routes must know."""
    return {
        "is_loopback": settings.is_for_this_machine,
        "is_old_contract_on": settings.old_contract,
        "is_unsafe": home.is_unsafe,
        "has_open_metrics": settings.metrics == "open",
        "position": _positions(home),
        "position_of": lambda text: positions.read(text, home.epoch, has_xid=home.has_xid),
    }


@asynccontextmanager
async def listening(services: Services) -> AsyncIterator[None]:
    """Hear what other processes change for as long as this lasts; the first of it is heard before it begins."""
    await services.listener.read_changes()
    async with alongside(services.listener.run()), alongside(services.watching.run()):
        yield


@asynccontextmanager
async def alongside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
