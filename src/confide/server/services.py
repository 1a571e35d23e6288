"""The parts of the service that routes may call, handed over by assembly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confide.audit.linker import Chain
from confide.audit.verification import Audit
from confide.caching.lease import Lease
from confide.caching.memory import Memory
from confide.changes.model import Position
from confide.changes.subscriber import Listener
from confide.changes.watch import Watching
from confide.configs.decryption import Opener
from confide.configs.export import Exporting
from confide.configs.history import History
from confide.configs.retention import Retention
from confide.configs.save import Configs
from confide.configs.tenants import Tenants
from confide.identity.authenticator import Principals
from confide.identity.tokens import Tokens
from confide.identity.users import Accounts
from confide.integration_types.active import TypesInForce
from confide.integration_types.conformance import Conformance
from confide.integration_types.manage import Types
from confide.reads.cache import Cache
from confide.reads.head_cache import Heads
from confide.reads.reader import Reading
from confide.reads.statistics import Usage
from confide.server.metrics import WorkerMetrics
from confide.server.stores import Store
from confide.telemetry.operations import IoLog
from confide.web.request_scope import Traffic


@dataclass(slots=True)
class Services:
    """Everything a route may ask for, and the state of this process that health tells of."""

    store: Store
    io: IoLog
    traffic: Traffic
    listener: Listener
    lease: Lease
    configs: Configs
    history: History
    reading: Reading
    memory: Memory[Any]
    heads: Heads
    metrics: WorkerMetrics
    cache: Cache
    principals: Principals
    types_in_force: TypesInForce
    watching: Watching
    opener: Opener
    accounts: Accounts
    tokens: Tokens
    tenants: Tenants
    types: Types
    conformance: Conformance
    exporting: Exporting
    usage: Usage
    retention: Retention
    chain: Chain
    audit: Audit
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
