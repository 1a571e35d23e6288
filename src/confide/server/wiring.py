"""Wiring: builds the parts of one process, feature by feature, from explicit arguments."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from confide.audit.chain_writer import ChainWriter
from confide.audit.checkpoint_file import CheckpointFile
from confide.audit.denials import DenialRecorder
from confide.audit.recorder import AuditRecorder
from confide.audit.retention import AuditRetention
from confide.audit.store_check import StoreCheck
from confide.audit.verification import AuditLog
from confide.caching.lease import Lease
from confide.caching.lru_cache import LruCache
from confide.changes.positions import PositionFormat
from confide.changes.routes import format_change
from confide.changes.subscriber import ChangeSubscriber
from confide.changes.watch import WatchHub
from confide.clock import Clock, read_wall_clock
from confide.configs.decryption import ConfigDecrypter
from confide.configs.export import ConfigExporter
from confide.configs.history import History
from confide.configs.listing import ConfigLister
from confide.configs.retention import Retention
from confide.configs.save import ConfigWriter
from confide.configs.scan import ConfigScanner
from confide.configs.tenants import Tenants
from confide.crypto.envelope import EnvelopeEncryption
from confide.database.model import DatabaseIdentity
from confide.fair_scheduler import FairScheduler
from confide.identity.access import Access
from confide.identity.authenticator import Authenticator
from confide.identity.hasher import Argon2Hasher
from confide.identity.throttle import LoginThrottle
from confide.identity.tokens import Tokens
from confide.identity.users import Users
from confide.integration_types.active import ActiveIntegrationTypes
from confide.integration_types.conformance import ConformanceCheck
from confide.integration_types.manage import IntegrationTypes
from confide.reads.audited import AuditedReader
from confide.reads.cache import ConfigCache
from confide.reads.head_cache import RequestHeadCache
from confide.reads.reader import ConfigReader
from confide.reads.response import PreparedResponse
from confide.reads.statistics import AccessStatistics
from confide.server.limits import StreamLimits, compute_limits, read_file_limit
from confide.server.metrics import MetricSources, WorkerMetrics
from confide.server.preparation import build_encryption, build_signing, build_stores
from confide.server.process import (
    Audit,
    Caching,
    Changes,
    Configs,
    DrainState,
    Identity,
    Observation,
    Process,
    Reads,
    Types,
)
from confide.server.settings import MIB, Settings
from confide.server.stores import Stores
from confide.telemetry.dispatcher import Dispatcher
from confide.telemetry.events import EventRecorder
from confide.telemetry.histograms import Histograms
from confide.telemetry.io_log import NO_IO_LOG, IoLog
from confide.telemetry.metrics_files import WorkerMetricsFiles
from confide.telemetry.sinks.registry import build_sinks
from confide.telemetry.sinks.worker import build_sink_workers
from confide.web.callers import CallerAddresses
from confide.web.connections import Connections
from confide.web.request_span import RequestCounter

# The request head cache gets one eighth of the memory for caches.
HEAD_CACHE_SHARE = 8


@asynccontextmanager
async def record_io(settings: Settings) -> AsyncIterator[Dispatcher | None]:
    """Record I/O events. At the end, give the sinks a short time to finish. Yields None if I/O events are off."""
    if settings.is_io_off:
        yield None
        return
    sinks = build_sinks(
        settings.io_sinks.get_secret_value(),
        folder=settings.io_folder,
        max_bytes=settings.io_mib * MIB,
        max_age_days=settings.io_days,
    )
    recorder = EventRecorder(worker=f"{socket.gethostname()}-{os.getpid()}", max_events=settings.io_queue)
    dispatcher = Dispatcher(recorder, Histograms(), build_sink_workers(sinks, max_events=settings.io_queue))
    try:
        yield dispatcher
    finally:
        await asyncio.to_thread(dispatcher.close)


@asynccontextmanager
async def open_process(
    settings: Settings,
    *,
    setup_token: str = "",
    is_unsafe_accepted: bool = False,
    dispatcher: Dispatcher | None = None,
    metrics_files: WorkerMetricsFiles | None = None,
    connections: Connections | None = None,
) -> AsyncIterator[Process]:
    """Open the database, which `prepare` must have set up, and build the parts of one process.

    `metrics_files` are those of all workers of the service; None if this process is the only one.
    """
    io: IoLog = NO_IO_LOG if dispatcher is None else dispatcher.recorder
    stores = build_stores(settings, is_unsafe_accepted=is_unsafe_accepted, io=io)
    hasher = Argon2Hasher(io=io)
    try:
        await stores.database.connect()
        encryption, signing = build_encryption(settings, stores), build_signing(settings, stores)
        await signing.require_key()
        await encryption.start()
        await signing.begin_verification()
        database = await stores.database.open()
        yield build_process(
            settings,
            stores,
            encryption,
            hasher,
            database=database,
            observation=Observation(io, RequestCounter(), dispatcher, metrics_files, connections),
            setup_token=setup_token,
            clock=read_wall_clock,
        )
    finally:
        hasher.close()
        await stores.close()


def build_process(
    settings: Settings,
    stores: Stores,
    encryption: EnvelopeEncryption,
    hasher: Argon2Hasher,
    *,
    database: DatabaseIdentity,
    observation: Observation,
    setup_token: str,
    clock: Clock,
) -> Process:
    """Build all features in the order of their dependencies."""
    io = observation.io
    scheduler = FairScheduler()
    caching = build_caching(settings)
    position_format = PositionFormat(stores.epoch, has_xid=database.has_xid)
    recorder = AuditRecorder(stores.audit, encryption, clock)
    denials = DenialRecorder(recorder)
    access = Access(denials)
    identity = build_identity(
        settings, stores, encryption, hasher, caching=caching, access=access, recorder=recorder, clock=clock, io=io
    )
    audit = build_audit(settings, stores, encryption, recorder=recorder, denials=denials, access=access, clock=clock)
    active = ActiveIntegrationTypes(stores.types, caching.memory, caching.lease, stores.stamp_file.stamps, io=io)
    cache = build_config_cache(stores, caching)
    changes = build_changes(
        stores,
        caching,
        cache=cache,
        authenticator=identity.authenticator,
        active=active,
        positions=position_format,
        limits=compute_limits(settings, files=read_file_limit()).streams,
    )
    decrypter = ConfigDecrypter(stores.configs, encryption, recorder, epoch=stores.epoch)
    scanner = ConfigScanner(stores.configs, decrypter)
    types = build_types(
        stores,
        encryption,
        active=active,
        access=access,
        recorder=recorder,
        subscriber=changes.subscriber,
        scanner=scanner,
        scheduler=scheduler,
        clock=clock,
    )
    configs = build_configs(
        settings,
        stores,
        encryption,
        cache=cache,
        decrypter=decrypter,
        scanner=scanner,
        access=access,
        recorder=recorder,
        active=active,
        subscriber=changes.subscriber,
        scheduler=scheduler,
        clock=clock,
    )
    reads = build_reads(
        settings,
        stores,
        caching,
        cache=cache,
        authenticator=identity.authenticator,
        decrypter=decrypter,
        access=access,
        recorder=recorder,
        active=active,
        scheduler=scheduler,
        clock=clock,
        io=io,
    )
    metrics = build_metrics(stores, hasher, observation, caching=caching, reads=reads, changes=changes)
    return Process(
        settings=settings,
        setup_token=setup_token,
        stores=stores,
        database=database,
        encryption=encryption,
        hasher=hasher,
        observation=observation,
        caching=caching,
        audit=audit,
        identity=identity,
        types=types,
        configs=configs,
        reads=reads,
        changes=changes,
        metrics=metrics,
        positions=position_format,
        draining=DrainState(changes.hub),
        scheduler=scheduler,
        callers=CallerAddresses(trusted=settings.trusted_proxies, is_behind_proxy=settings.behind_tls_proxy),
    )


def build_caching(settings: Settings) -> Caching:
    head_bytes = settings.cache_bytes // HEAD_CACHE_SHARE
    return Caching(
        lease=Lease(),
        memory=LruCache(settings.cache_bytes - head_bytes),
        request_heads=RequestHeadCache(head_bytes),
        ttl_seconds=settings.cache_ttl_seconds,
    )


def build_config_cache(stores: Stores, caching: Caching) -> ConfigCache:
    return ConfigCache(
        caching.memory,
        caching.lease,
        stores.stamp_file.stamps,
        epoch=stores.epoch,
        prepare=PreparedResponse,
        ttl_seconds=caching.ttl_seconds,
    )


def build_identity(
    settings: Settings,
    stores: Stores,
    encryption: EnvelopeEncryption,
    hasher: Argon2Hasher,
    *,
    caching: Caching,
    access: Access,
    recorder: AuditRecorder,
    clock: Clock,
    io: IoLog,
) -> Identity:
    authenticator = Authenticator(
        stores.tokens,
        caching.memory,
        caching.lease,
        stores.stamp_file.stamps,
        clock=clock,
        ttl_seconds=caching.ttl_seconds,
        io=io,
    )
    throttle = LoginThrottle(stores.users, encryption, hasher.queue, clock)
    users = Users(
        stores.users,
        hasher,
        throttle=throttle,
        access=access,
        recorder=recorder,
        authenticator=authenticator,
        change_feed=stores.change_feed,
        min_password_characters=settings.min_password_characters,
    )
    tokens = Tokens(
        stores.users,
        stores.tokens,
        hasher,
        throttle=throttle,
        access=access,
        recorder=recorder,
        authenticator=authenticator,
        change_feed=stores.change_feed,
        clock=clock,
    )
    return Identity(access, authenticator, users, tokens)


def build_audit(
    settings: Settings,
    stores: Stores,
    encryption: EnvelopeEncryption,
    *,
    recorder: AuditRecorder,
    denials: DenialRecorder,
    access: Access,
    clock: Clock,
) -> Audit:
    stores.database.sign_losses(recorder.sign_epoch)
    checkpoint_file = CheckpointFile(settings.checkpoints_file)
    chain_writer = ChainWriter(stores.audit, encryption, seen=stores.seen, clock=clock, checkpoint_file=checkpoint_file)
    log = AuditLog(
        stores.users,
        stores.audit,
        encryption,
        store_check=StoreCheck(stores.database.host_engine, stores.rows),
        chain_writer=chain_writer,
        checkpoint_file=checkpoint_file,
        access=access,
        clock=clock,
    )
    retention = AuditRetention(
        stores.audit,
        stores.audit_retention,
        encryption,
        claim_job=stores.retention.claim_job,
        clock=clock,
        days=settings.audit_days,
    )
    return Audit(recorder, denials, chain_writer, log, retention)


def build_changes(
    stores: Stores,
    caching: Caching,
    *,
    cache: ConfigCache,
    authenticator: Authenticator,
    active: ActiveIntegrationTypes,
    positions: PositionFormat,
    limits: StreamLimits,
) -> Changes:
    hub = WatchHub(
        stores.configs,
        authenticator,
        epoch=stores.epoch,
        encode=partial(format_change, format_position=positions.format),
        max_streams=limits.streams,
        max_streams_of_a_token=limits.streams_of_a_token,
    )
    subscriber = ChangeSubscriber(
        stores.change_feed,
        epoch=stores.epoch,
        lease=caching.lease,
        memory=caching.memory,
        cache=cache,
        authenticator=authenticator,
        types=active,
        hub=hub,
    )
    return Changes(hub, subscriber)


def build_types(
    stores: Stores,
    encryption: EnvelopeEncryption,
    *,
    active: ActiveIntegrationTypes,
    access: Access,
    recorder: AuditRecorder,
    subscriber: ChangeSubscriber,
    scanner: ConfigScanner,
    scheduler: FairScheduler,
    clock: Clock,
) -> Types:
    manager = IntegrationTypes(
        stores.types,
        encryption,
        access=access,
        recorder=recorder,
        change_feed=stores.change_feed,
        epoch=stores.epoch,
        clock=clock,
        on_change=subscriber.apply_type_change,
    )
    return Types(active, manager, ConformanceCheck(scanner, active, access=access, scheduler=scheduler))


def build_configs(
    settings: Settings,
    stores: Stores,
    encryption: EnvelopeEncryption,
    *,
    cache: ConfigCache,
    decrypter: ConfigDecrypter,
    scanner: ConfigScanner,
    access: Access,
    recorder: AuditRecorder,
    active: ActiveIntegrationTypes,
    subscriber: ChangeSubscriber,
    scheduler: FairScheduler,
    clock: Clock,
) -> Configs:
    writer = ConfigWriter(
        stores.configs,
        encryption,
        access=access,
        recorder=recorder,
        decrypter=decrypter,
        cache=cache,
        types=active,
        change_feed=stores.change_feed,
        epoch=stores.epoch,
        scheduler=scheduler,
        clock=clock,
    )
    tenants = Tenants(
        stores.data_keys,
        encryption,
        access=access,
        recorder=recorder,
        subscriber=subscriber,
        change_feed=stores.change_feed,
        clock=clock,
    )
    return Configs(
        decrypter=decrypter,
        writer=writer,
        history=History(
            stores.configs, decrypter=decrypter, access=access, recorder=recorder, types=active, scheduler=scheduler
        ),
        lister=ConfigLister(stores.configs, scanner, active, scheduler=scheduler),
        exporter=ConfigExporter(scanner, active, recorder=recorder, scheduler=scheduler),
        tenants=tenants,
        retention=Retention(stores.retention, active, clock=clock, log_days=settings.log_days),
    )


def build_reads(
    settings: Settings,
    stores: Stores,
    caching: Caching,
    *,
    cache: ConfigCache,
    authenticator: Authenticator,
    decrypter: ConfigDecrypter,
    access: Access,
    recorder: AuditRecorder,
    active: ActiveIntegrationTypes,
    scheduler: FairScheduler,
    clock: Clock,
    io: IoLog,
) -> Reads:
    reader = ConfigReader(
        stores.configs,
        cache,
        authenticator,
        lease=caching.lease,
        stamps=stores.stamp_file.stamps,
        decrypter=decrypter,
        access=access,
        types=active,
        scheduler=scheduler,
        max_stale_seconds=settings.stale_reads_seconds,
        sample=0 if settings.is_io_off else settings.io_sample,
        io=io,
    )
    return Reads(
        cache,
        reader,
        AuditedReader(reader, recorder),
        AccessStatistics(stores.configs, stores.statistics, access=access, clock=clock),
    )


def build_metrics(
    stores: Stores,
    hasher: Argon2Hasher,
    observation: Observation,
    *,
    caching: Caching,
    reads: Reads,
    changes: Changes,
) -> WorkerMetrics:
    return WorkerMetrics(
        MetricSources(
            reads.reader,
            changes.subscriber,
            caching.lease,
            reads.statistics,
            observation.traffic,
            observation.dispatcher,
            observation.connections,
            memories={"configs": caching.memory, "heads": caching.request_heads},
            gauges={
                "hashes": lambda: hasher.queue.taken,
                "streams": changes.hub.__len__,
                "watermark": stores.change_feed.compute_watermark_age_seconds,
                "altered": lambda: len(stores.rows.altered),
                "stamps": lambda: stores.stamp_file.check() is not None,
            },
        ),
        observation.metrics_files,
    )


@asynccontextmanager
async def subscribe(process: Process) -> AsyncIterator[None]:
    """Subscribe to the change feed. The first read is done before the body of the `async with` runs."""
    await process.changes.subscriber.read_changes()
    async with run_alongside(process.changes.subscriber.run()), run_alongside(process.changes.hub.run()):
        yield


@asynccontextmanager
async def run_alongside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a task in the background, and cancel it at the end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
