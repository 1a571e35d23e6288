"""Puts the parts together: the only place that knows every one of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from confide.api.heads import Heads
from confide.api.metrics import WorkerMetrics
from confide.api.prepared import Prepared
from confide.api.services import Services
from confide.crypto.keys import TenantKeys
from confide.crypto.master_keys import (
    DESTROYED_NAME,
    FILE_NAME,
    DestroyedKeys,
    MasterKeys,
    make_file,
    new_master_key,
)
from confide.crypto.passwords import Argon2Hasher
from confide.domain import positions
from confide.domain.names import Key
from confide.ports import Home, MasterKeyMissing, Store
from confide.service.access import Access
from confide.service.accounts import Accounts
from confide.service.auditing import Auditor
from confide.service.cache import Cache
from confide.service.configs import Configs
from confide.service.guesses import Guesses
from confide.service.history import History
from confide.service.lease import Lease
from confide.service.listening import Listener
from confide.service.memory import Memory
from confide.service.opening import Opener
from confide.service.principals import Principals
from confide.service.reading import Reading
from confide.service.tenants import Tenants
from confide.service.tokens import Tokens
from confide.settings import Settings
from confide.storage.clock import now
from confide.storage.engines import open_store

VERSION = "0.1.0"
HEADS_PART = 8

_log = logging.getLogger("confide")


@dataclass(frozen=True, slots=True)
class Started:
    """What the parent process found and did before anything is served."""

    home: Home
    applied: list[str]
    has_had_user: bool
    made_master_keys: Path | None


@dataclass(frozen=True, slots=True)
class Parts:
    """The living parts of one process."""

    store: Store
    keys: TenantKeys
    hasher: Argon2Hasher
    home: Home
    services: Services


def store_of(settings: Settings, *, accepts_unsafe: bool = False) -> Store:
    """Make the store, not yet connected; a new data folder is for its owner only.

    With `accepts_unsafe`, for commands on the host, a store is taken as it is; it is never made less safe.
    """
    make_data_folder(settings.data)
    return open_store(
        settings.database_url,
        is_unsafe=settings.unsafe_durability,
        accepts_unsafe=accepts_unsafe,
        pool_size=settings.pool_size,
    )


def make_data_folder(folder: Path) -> None:
    os.umask(0o077)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def ring_of(settings: Settings) -> MasterKeys:
    """Read the master keys; raises `MasterKeyMissing` if there are none."""
    if settings.master_keys is not None:
        return MasterKeys(settings.master_keys.get_secret_value())
    try:
        return MasterKeys((settings.data / FILE_NAME).read_text())
    except FileNotFoundError:
        raise MasterKeyMissing(f"There is no {FILE_NAME} in {settings.data}.") from None


def keys_of(settings: Settings, store: Store) -> TenantKeys:
    destroyed = DestroyedKeys(settings.data / DESTROYED_NAME)
    return TenantKeys(store.keys, ring=lambda: ring_of(settings), destroyed=destroyed, clock=now)


async def prepare(settings: Settings, *, accepts_unsafe: bool = False) -> Started:
    """Migrate, settle the epoch and make the keys, once, before any worker starts.

    Raises `Unreachable`, `NewerSchema`, `UnsafeDurability` or `MasterKeyMissing`; master keys are made only
    where the store holds nothing yet.
    """
    store = store_of(settings, accepts_unsafe=accepts_unsafe)
    await store.connect()
    try:
        applied = await store.migrate()
        home = await store.open()
        made = await _made_master_keys(settings, store)
        keys = keys_of(settings, store)
        await keys.check_all()
        await keys.start()
        await _finish_destructions(store, keys)
        return Started(home, applied, await store.accounts.has_had_user(), made)
    finally:
        await store.close()


async def _finish_destructions(store: Store, keys: TenantKeys) -> None:
    """A backup brought a destroyed tenant back: end it again, before anybody meets what does not open."""
    auditor = Auditor(store, keys, now)
    for tenant in await keys.undead_tenants():
        entry, mac = auditor.entry("destroy tenant", "destroyed again", by=None, key=Key(tenant, "*"))
        await store.keys.destroy_tenant(tenant, by=None, at=now(), entry=entry, mac=mac)
        _log.warning("tenant %s was destroyed before this backup was restored: destroyed again", tenant)


async def _made_master_keys(settings: Settings, store: Store) -> Path | None:
    path = settings.data / FILE_NAME
    if settings.master_keys is not None or path.exists() or await store.keys.all():
        return None
    make_file(path, [new_master_key()])
    return path


@asynccontextmanager
async def parts_of(settings: Settings, *, setup_token: str = "", accepts_unsafe: bool = False) -> AsyncIterator[Parts]:
    """Bring the parts of one process to life, on a store that `prepare` has seen."""
    store = store_of(settings, accepts_unsafe=accepts_unsafe)
    hasher = Argon2Hasher()
    try:
        home = await store.open()
        keys = keys_of(settings, store)
        await keys.start()
        services = _services(settings, store, keys, hasher=hasher, home=home, setup_token=setup_token)
        yield Parts(store, keys, hasher, home, services)
    finally:
        hasher.close()
        await store.close()


class _Remembering(NamedTuple):
    """What a process remembers, and what keeps that true."""

    lease: Lease
    memory: Memory[Any]
    heads: Heads
    cache: Cache
    principals: Principals
    listener: Listener


def _remembering(settings: Settings, store: Store) -> _Remembering:
    # Heads have a part of their own: where each is unlike all before, they would push out all else.
    for_heads = settings.cache_bytes // HEADS_PART
    lease, heads = Lease(), Heads(for_heads)
    memory = Memory[Any](settings.cache_bytes - for_heads)
    ttl_seconds = settings.cache_ttl_seconds
    cache = Cache(memory, lease, prepare=Prepared, ttl_seconds=ttl_seconds)
    principals = Principals(store, memory, lease, clock=now, ttl_seconds=ttl_seconds)
    listener = Listener(store.news, lease=lease, memory=memory, cache=cache, principals=principals)
    return _Remembering(lease, memory, heads, cache, principals, listener)


def _services(
    settings: Settings, store: Store, keys: TenantKeys, *, hasher: Argon2Hasher, home: Home, setup_token: str
) -> Services:
    auditor = Auditor(store, keys, now)
    access = Access(auditor)
    opener = Opener(store, keys, auditor)
    lease, memory, heads, cache, principals, listener = _remembering(settings, store)
    # What several acts are given alike; each names what it takes, so a wrong name ends the start.
    judging: dict[str, Any] = {"guesses": Guesses(store, keys, now), "access": access, "auditor": auditor}
    telling: dict[str, Any] = {"principals": principals, "news": store.news}
    acting: dict[str, Any] = {"access": access, "auditor": auditor, "news": store.news, "clock": now}
    least = settings.min_password_characters
    stale_seconds = settings.stale_reads_seconds
    reading = Reading(store, cache, principals, lease=lease, opener=opener, access=access, stale_seconds=stale_seconds)
    memories = {"configs": memory, "heads": heads}
    return Services(
        store=store,
        lease=lease,
        memory=memory,
        heads=heads,
        cache=cache,
        principals=principals,
        listener=listener,
        opener=opener,
        reading=reading,
        metrics=WorkerMetrics(reading, listener=listener, lease=lease, memories=memories),
        history=History(store, opener=opener, access=access, auditor=auditor),
        configs=Configs(store, keys, opener=opener, cache=cache, **acting),
        accounts=Accounts(store, hasher, **judging, **telling, min_password_characters=least),
        tokens=Tokens(store, hasher, **judging, **telling, clock=now),
        tenants=Tenants(store, keys, listener=listener, **acting),
        is_loopback=settings.is_for_this_machine,
        setup_token=setup_token,
        is_old_contract_on=settings.old_contract,
        is_unsafe=home.is_unsafe,
        has_open_metrics=settings.metrics == "open",
        position=partial(positions.write, home.epoch, has_xid=home.has_xid),
    )


@asynccontextmanager
async def listening(services: Services) -> AsyncIterator[None]:
    """Hear what other processes change for as long as this lasts; the first of it is heard before it begins."""
    await services.listener.hear()
    async with alongside(services.listener.run()):
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
