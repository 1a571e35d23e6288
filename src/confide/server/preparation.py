"""Prepare the database and the keys before workers start. Commands on the host use the same functions."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from confide.audit.checkpoint_file import CheckpointFile
from confide.audit.recorder import AuditRecorder
from confide.clock import read_wall_clock
from confide.crypto import master_keys
from confide.crypto.envelope import EnvelopeEncryption
from confide.crypto.errors import MasterKeyMissing
from confide.crypto.master_keys import (
    DESTROYED_NAME,
    FILE_NAME,
    DestroyedKeys,
    MasterKeys,
    create_master_key,
    write_master_keys,
)
from confide.database.identity import Loss
from confide.database.model import DatabaseIdentity
from confide.errors import Busy, DatabaseUnavailable, describe_error
from confide.names import ConfigKey
from confide.server.settings import Settings
from confide.server.signing import SigningRecordFile, StoreSigning
from confide.server.stores import Stores, open_stores
from confide.telemetry.io_log import NO_IO_LOG, IoLog

# At a start, this many of the last checkpoints in the file are compared with the database: at least 16 hours.
MAX_COMPARED_CHECKPOINTS = 1_000

_log = logging.getLogger("confide")


@dataclass(frozen=True, slots=True)
class Preparation:
    """The result of the preparation."""

    database: DatabaseIdentity
    applied: list[str]
    has_had_user: bool
    created_master_keys: Path | None


def build_stores(settings: Settings, *, is_unsafe_accepted: bool = False, io: IoLog = NO_IO_LOG) -> Stores:
    """Build the stores, not yet connected. Creates the data folder, readable only by its owner.

    With `is_unsafe_accepted`, for commands on the host, any durability is accepted.
    """
    create_data_folder(settings.data)
    return open_stores(
        settings.database_url,
        data=settings.data,
        is_unsafe=settings.unsafe_durability,
        is_unsafe_accepted=is_unsafe_accepted,
        pool_size=settings.pool_size,
        io=io,
    )


def create_data_folder(folder: Path) -> None:
    os.umask(0o077)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_master_keys(settings: Settings) -> MasterKeys:
    """Read the master keys from the settings or their file. Raises `MasterKeyMissing`, which names the source."""
    if settings.master_keys is not None:
        return _parse_master_keys(settings.master_keys.get_secret_value(), "CONFIDE_MASTER_KEYS")
    file = settings.data / FILE_NAME
    try:
        return _parse_master_keys(master_keys.read_master_keys(file), str(file))
    except FileNotFoundError:
        raise MasterKeyMissing(f"There is no {FILE_NAME} in {settings.data}. Restore it from your backup.") from None


def _parse_master_keys(text: str, source: str) -> MasterKeys:
    try:
        return MasterKeys(text)
    except MasterKeyMissing as error:
        raise MasterKeyMissing(f"{source}: {error}") from None


def build_encryption(settings: Settings, stores: Stores) -> EnvelopeEncryption:
    destroyed = DestroyedKeys(settings.data / DESTROYED_NAME)
    return EnvelopeEncryption(
        stores.data_keys,
        stores.rows,
        read_master_keys=lambda: read_master_keys(settings),
        destroyed=destroyed,
        clock=read_wall_clock,
    )


def build_signing(settings: Settings, stores: Stores) -> StoreSigning:
    return StoreSigning(stores, SigningRecordFile(settings.signing_record), clock=read_wall_clock)


async def open_on_host(settings: Settings, stores: Stores) -> EnvelopeEncryption:
    """Open the database for a command on the host, and verify its rows if they are signed. Return the keys.

    The schema must exist. Raises `UnsignedStore` or `MasterKeyMissing`.
    """
    await stores.database.connect()
    await stores.database.require_schema()
    keys, signing = build_encryption(settings, stores), build_signing(settings, stores)
    await signing.require_key()
    if await keys.load_row_key():
        await signing.begin_verification()
    await stores.database.open()
    return keys


async def prepare(settings: Settings, *, is_unsafe_accepted: bool = False) -> Preparation:
    """Migrate, determine the epoch and create missing keys. Call this once, before any worker starts.

    Master keys are created only if the database has no data keys. Raises `DatabaseUnavailable`, `NewerSchema`,
    `UnsafeDurability`, `MasterKeyMissing` or `UnsignedStore`.
    """
    stores = build_stores(settings, is_unsafe_accepted=is_unsafe_accepted)
    await stores.database.connect()
    try:
        applied = await stores.database.migrate()
        created = await _create_master_keys(settings, stores)
        keys = build_encryption(settings, stores)
        await keys.check_master_keys()
        signing = build_signing(settings, stores)
        await signing.require_key()
        await keys.start()
        await signing.begin_verification()
        database = await stores.database.open()
        recorder = AuditRecorder(stores.audit, keys, read_wall_clock)
        try:
            await signing.sign_when_due(recorder)
        except (DatabaseUnavailable, Busy) as error:
            _log.warning("signing_postponed reason=%s", describe_error(error))
        await keys.remember_destroyed_keys(
            lambda tenant: stores.audit.has_destruction(tenant, lambda entry: keys.compute_mac("audit", entry))
        )
        database = await _begin_epoch_if_checkpoints_are_lost(settings, stores, keys, database)
        await _repeat_destructions(stores, keys)
        return Preparation(database, applied, await stores.users.has_had_user(), created)
    finally:
        await stores.close()


async def _begin_epoch_if_checkpoints_are_lost(
    settings: Settings, stores: Stores, keys: EnvelopeEncryption, database: DatabaseIdentity
) -> DatabaseIdentity:
    """Begin a new epoch if the checkpoint file has a checkpoint that the database lacks, and no recorded loss explains.

    After a restart of all processes, only this file can tell that commits were lost.
    """
    signed = [
        one
        for one in CheckpointFile(settings.checkpoints_file).read_last(MAX_COMPARED_CHECKPOINTS)
        if keys.is_signature_valid(one.encode_signed_part(), one.signature)
    ]
    links = await stores.audit.read_links([one.number for one in signed])
    removals = [
        one
        for one in await stores.audit.list_removals()
        if keys.is_signature_valid(one.encode_signed_part(), one.signature)
    ]
    lost = [
        one
        for one in signed
        if links.get(one.number) != one.link and not any(each.first <= one.number <= each.last for each in removals)
    ]
    losses = await stores.audit.list_losses(lambda entry: keys.compute_mac("audit", entry)) if lost else []
    unexplained = [one.number for one in lost if not any(loss.is_explaining(one) for loss in losses)]
    if not unexplained:
        return database
    recorder = AuditRecorder(stores.audit, keys, read_wall_clock)
    loss = Loss((), min(unexplained), min_number=0)
    epoch = await stores.database.begin_epoch_after_loss(loss, recorder.sign_epoch)
    _log.error(
        "commits_lost missing_changes=0 missing_checkpoint=%d ended_epoch=%s epoch=%s",
        min(unexplained),
        database.epoch.id,
        epoch.id,
    )
    return replace(database, epoch=epoch, has_lost_commits=True)


async def _repeat_destructions(stores: Stores, keys: EnvelopeEncryption) -> None:
    """Destroy tenants again if a restored backup contains them. Their configs cannot be decrypted any more."""
    recorder = AuditRecorder(stores.audit, keys, read_wall_clock)
    for tenant in await keys.find_restored_tenants():
        audit = recorder.sign("destroy tenant", "destroyed again", principal=None, key=ConfigKey(tenant, "*"))
        await stores.data_keys.destroy_tenant(tenant, user_id=None, at=read_wall_clock(), audit=audit)
        _log.warning("destroyed_tenant_restored tenant=%s action=destroyed", tenant)


async def _create_master_keys(settings: Settings, stores: Stores) -> Path | None:
    path = settings.data / FILE_NAME
    if settings.master_keys is not None or path.exists() or await stores.data_keys.list_all():
        return None
    write_master_keys(path, [create_master_key()])
    return path
