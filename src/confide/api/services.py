"""The parts of the service that routes may call, handed over by assembly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confide.api.heads import Heads
from confide.api.metrics import WorkerMetrics
from confide.domain.positions import Position
from confide.ports import Store
from confide.service.accounts import Accounts
from confide.service.cache import Cache
from confide.service.configs import Configs
from confide.service.history import History
from confide.service.lease import Lease
from confide.service.listening import Listener
from confide.service.memory import Memory
from confide.service.opening import Opener
from confide.service.principals import Principals
from confide.service.reading import Reading
from confide.service.tenants import Tenants
from confide.service.tokens import Tokens


@dataclass(slots=True)
class Services:
    """Everything a route may ask for, and the state of this process that health tells of."""

    store: Store
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
    opener: Opener
    accounts: Accounts
    tokens: Tokens
    tenants: Tenants
    is_loopback: bool
    setup_token: str = field(repr=False)
    is_old_contract_on: bool = True
    is_unsafe: bool = False
    has_open_metrics: bool = False
    is_draining: bool = False
    # Writes a position as callers see it, in this epoch.
    position: Callable[[Position], str] = str
