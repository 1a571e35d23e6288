"""The parts of the service that routes may call, handed over by assembly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confide.audit.linker import ChainLinker
from confide.audit.verification import AuditLog
from confide.caching.lease import Lease
from confide.caching.memory import BoundedMemory
from confide.changes.model import Position
from confide.changes.subscriber import ChangeSubscriber
from confide.changes.watch import WatchHub
from confide.configs.decryption import ConfigDecrypter
from confide.configs.export import ConfigExporter
from confide.configs.history import History
from confide.configs.retention import Retention
from confide.configs.save import ConfigWriter
from confide.configs.tenants import Tenants
from confide.identity.authenticator import Authenticator
from confide.identity.tokens import Tokens
from confide.identity.users import Users
from confide.integration_types.active import ActiveIntegrationTypes
from confide.integration_types.conformance import ConformanceCheck
from confide.integration_types.manage import IntegrationTypes
from confide.reads.cache import Cache
from confide.reads.head_cache import RequestHeadCache
from confide.reads.reader import ConfigReader
from confide.reads.statistics import AccessStatistics
from confide.server.metrics import WorkerMetrics
from confide.server.stores import Store
from confide.telemetry.operations import IoLog
from confide.web.request_scope import RequestCounter


@dataclass(slots=True)
class Services:
    """Everything a route may ask for, and the state of this process that health tells of."""

    store: Store
    io: IoLog
    traffic: RequestCounter
    listener: ChangeSubscriber
    lease: Lease
    configs: ConfigWriter
    history: History
    reading: ConfigReader
    memory: BoundedMemory[Any]
    heads: RequestHeadCache
    metrics: WorkerMetrics
    cache: Cache
    authenticator: Authenticator
    types_in_force: ActiveIntegrationTypes
    watching: WatchHub
    opener: ConfigDecrypter
    accounts: Users
    tokens: Tokens
    tenants: Tenants
    types: IntegrationTypes
    conformance: ConformanceCheck
    exporting: ConfigExporter
    usage: AccessStatistics
    retention: Retention
    chain: ChainLinker
    audit: AuditLog
    is_loopback: bool
    setup_token: str = field(default="", repr=False)
    is_old_contract_on: bool = True
    is_unsafe: bool = False
    has_open_metrics: bool = False
    is_draining: bool = False
    # Write and read a position as callers see it, in this epoch.
    position: Callable[[Position], str] = str
    position_of: Callable[[str], Position] = Position  # type: ignore[assignment]

    def begin_draining(self) -> None:
        """The process is about to end: health says so, and whoever watches is sent elsewhere."""
        self.is_draining = True
        self.watching.drain()
