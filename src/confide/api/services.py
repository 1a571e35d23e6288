"""The parts of the service that routes may call, handed over by assembly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confide.api.heads import Heads
from confide.api.metrics import WorkerMetrics
from confide.api.under_way import Traffic
from confide.domain.positions import Position
from confide.operations import IoLog
from confide.service.accounts import Accounts
from confide.service.cache import Cache
from confide.service.chaining import Audit, Chain
from confide.service.configs import Configs
from confide.service.conformance import Conformance
from confide.service.exporting import Exporting
from confide.service.history import History
from confide.service.lease import Lease
from confide.service.listening import Listener
from confide.service.memory import Memory
from confide.service.opening import Opener
from confide.service.principals import Principals
from confide.service.reading import Reading
from confide.service.retention import Retention
from confide.service.tenants import Tenants
from confide.service.tokens import Tokens
from confide.service.types import Types, TypesInForce
from confide.service.usage import Usage
from confide.service.watching import Watching
from confide.stores import Store


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
