"""The parts of one process, feature by feature. `wiring` builds them."""

from __future__ import annotations

from dataclasses import dataclass

from confide.audit.chain_writer import ChainWriter
from confide.audit.denials import DenialRecorder
from confide.audit.recorder import AuditRecorder
from confide.audit.retention import AuditRetention
from confide.audit.verification import AuditLog
from confide.caching.lease import Lease
from confide.caching.lru_cache import CacheEntry, LruCache
from confide.changes.positions import PositionFormat
from confide.changes.subscriber import ChangeSubscriber
from confide.changes.watch import WatchHub
from confide.configs.decryption import ConfigDecrypter
from confide.configs.export import ConfigExporter
from confide.configs.history import History
from confide.configs.listing import ConfigLister
from confide.configs.retention import Retention
from confide.configs.save import ConfigWriter
from confide.configs.tenants import Tenants
from confide.crypto.envelope import EnvelopeEncryption
from confide.database.model import DatabaseIdentity
from confide.fair_scheduler import FairScheduler
from confide.identity.access import Access
from confide.identity.authenticator import Authenticator
from confide.identity.hasher import Argon2Hasher
from confide.identity.tokens import Tokens
from confide.identity.users import Users
from confide.integration_types.active import ActiveIntegrationTypes
from confide.integration_types.conformance import ConformanceCheck
from confide.integration_types.manage import IntegrationTypes
from confide.reads.audited import AuditedReader
from confide.reads.cache import ConfigCache
from confide.reads.head_cache import RequestHeadCache
from confide.reads.reader import ConfigReader
from confide.reads.statistics import AccessStatistics
from confide.server.metrics import WorkerMetrics
from confide.server.settings import Settings
from confide.server.stores import Stores
from confide.telemetry.dispatcher import Dispatcher
from confide.telemetry.io_log import IoLog
from confide.telemetry.metrics_files import WorkerMetricsFiles
from confide.web.callers import CallerAddresses
from confide.web.connections import Connections
from confide.web.request_span import RequestCounter


@dataclass(frozen=True, slots=True)
class Observation:
    """I/O events, request counts and shared metrics of a process."""

    io: IoLog
    traffic: RequestCounter
    # None if I/O events are off.
    dispatcher: Dispatcher | None
    # None if this process is the only worker of its service.
    metrics_files: WorkerMetricsFiles | None = None
    # None under a server that does not count connections.
    connections: Connections | None = None

    def is_refusing_connections(self) -> bool:
        return self.connections is not None and self.connections.is_refusing()


@dataclass(frozen=True, slots=True)
class Caching:
    """Caches that several features share, and the lease that limits how long they count as fresh."""

    lease: Lease
    # Configs, tokens and integration types share one cache, so that the least recently used one is evicted first.
    memory: LruCache[CacheEntry]
    # A cache of its own, because request heads that never repeat would evict everything else.
    request_heads: RequestHeadCache
    ttl_seconds: float


@dataclass(frozen=True, slots=True)
class Identity:
    """Users, tokens and roles."""

    access: Access
    authenticator: Authenticator
    users: Users
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Audit:
    """The audit log and its hash chain."""

    recorder: AuditRecorder
    denials: DenialRecorder
    chain_writer: ChainWriter
    log: AuditLog
    retention: AuditRetention


@dataclass(frozen=True, slots=True)
class Types:
    """Integration types."""

    active: ActiveIntegrationTypes
    manager: IntegrationTypes
    conformance: ConformanceCheck


@dataclass(frozen=True, slots=True)
class Configs:
    """Saving, listing, exporting and pruning configs."""

    decrypter: ConfigDecrypter
    writer: ConfigWriter
    lister: ConfigLister
    history: History
    exporter: ConfigExporter
    tenants: Tenants
    retention: Retention


@dataclass(frozen=True, slots=True)
class Reads:
    """Reading current configs."""

    cache: ConfigCache
    reader: ConfigReader
    audited_reader: AuditedReader
    statistics: AccessStatistics


@dataclass(frozen=True, slots=True)
class Changes:
    """The change feed and watchers."""

    hub: WatchHub
    subscriber: ChangeSubscriber


class DrainState:
    """Whether this process is about to end. Health reports it, and watchers reconnect to another process."""

    def __init__(self, hub: WatchHub) -> None:
        self._hub = hub
        self.is_draining = False

    def begin(self) -> None:
        self.is_draining = True
        self._hub.drain()


@dataclass(frozen=True, slots=True)
class Process:
    """The parts of one process."""

    settings: Settings
    setup_token: str
    stores: Stores
    database: DatabaseIdentity
    encryption: EnvelopeEncryption
    hasher: Argon2Hasher
    observation: Observation
    caching: Caching
    audit: Audit
    identity: Identity
    callers: CallerAddresses
    types: Types
    configs: Configs
    reads: Reads
    changes: Changes
    metrics: WorkerMetrics
    positions: PositionFormat
    draining: DrainState
    scheduler: FairScheduler
