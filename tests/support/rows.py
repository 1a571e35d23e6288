"""Rows for tests of a store, which never looks into bodies."""

from __future__ import annotations

from confide.audit.model import AuditEntry
from confide.configs.model import IdempotencyRecord, Kind, NewVersion
from confide.names import Key
from confide.server.engines import open_store
from confide.server.settings import Settings
from confide.server.stores import Store

KEY = Key("acme", "crm")
ENTRY = AuditEntry(at=1, action="save", outcome="created", actor=1, key=KEY, version=1)
MAC = b"m" * 32


def version(number: int, *, key: Key = KEY, body: bytes | None = b"sealed", key_id: bytes | None = None) -> NewVersion:
    kind = Kind.DELETED if body is None else Kind.SAVED
    return NewVersion(key, number, kind, key_id, body, saved_by=1, saved_at=number)


async def append(store: Store, new: NewVersion, replay: IdempotencyRecord | None = None) -> bool:
    return await store.configs.append(new, entry=ENTRY, mac=MAC, replay=replay)


async def opened(settings: Settings) -> Store:
    """A store with its schema, open; whoever asks for it closes it."""
    settings.data.mkdir(exist_ok=True)
    store = open_store(settings.database_url, is_unsafe=True)
    await store.connect()
    await store.migrate()
    await store.open()
    return store
