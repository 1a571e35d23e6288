"""Rows for tests of the database, which never decrypts bodies."""

from __future__ import annotations

from dataclasses import replace

from confide.audit.model import AuditEntry, EntryDraft, SignedEntry
from confide.caching.stamps import SlotChange, find_config_slot
from confide.configs.errors import IdempotencyKeyTaken, Superseded
from confide.configs.model import IdempotencyRecord, Kind, NewVersion
from confide.names import ConfigKey
from confide.server.settings import Settings
from confide.server.stores import Stores, open_stores

KEY = ConfigKey("acme", "crm")
ENTRY = AuditEntry(at=1, action="save", outcome="created", actor=1, key=KEY, version=1)
# An entry that belongs to no version, because no version can have the number of one.
MAC = b"m" * 32


def build_draft(entry: AuditEntry) -> EntryDraft:
    """Return a draft without a key. Tests of the database never verify it."""
    return EntryDraft(entry, lambda entry, _: SignedEntry(entry, MAC))


AUDIT = build_draft(replace(ENTRY, key=None, version=None))


def build_version(
    number: int, *, key: ConfigKey = KEY, body: bytes | None = b"ciphertext", data_key_id: bytes | None = None
) -> NewVersion:
    kind = Kind.DELETED if body is None else Kind.SAVED
    return NewVersion(key, number, kind, body, data_key_id=data_key_id, saved_by=1, saved_at=number)


async def append(store: Stores, new: NewVersion, replay: IdempotencyRecord | None = None) -> bool:
    """Append a version. False if the save lost a race."""
    try:
        audit = build_draft(replace(ENTRY, key=new.key, version=new.version))
        change = SlotChange(find_config_slot(*new.key))
        await store.configs.append(new, audit=audit, idempotency=replay, epoch=store.epoch.value, change=change)
    except IdempotencyKeyTaken:
        raise
    except Superseded:
        return False
    return True


async def open_store(settings: Settings) -> Stores:
    """Open a database with its schema. The caller closes it."""
    settings.data.mkdir(exist_ok=True)
    store = open_stores(settings.database_url, is_unsafe=True)
    await store.database.connect()
    await store.database.migrate()
    await store.database.open()
    return store
