"""Decide when the rows of a store are verified: sign an existing store once, and then refuse an unsigned one."""

from __future__ import annotations

import json
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from confide.audit.recorder import AuditRecorder
from confide.clock import MICROSECONDS_PER_SECOND, Clock
from confide.crypto.envelope import ROWS_PURPOSE
from confide.database import signing
from confide.database.errors import UnsignedStore
from confide.database.identity import STORE_ROW, StoreRow
from confide.errors import DatabaseUnavailable, describe_error
from confide.identity.model import Token, User, has_admin
from confide.server.stores import Stores

# After the upgrade, processes of the release before can add rows for so long.
MIXED_SECONDS = 3_600
# Another process tries again after this time if signing failed.
CLAIM_SECONDS = 300
RESIGN_HINT = (
    "Someone may have changed it without Confide. Restore a backup, or list its admins and live tokens with"
    " `confide store sign`, and sign it with --reviewed if they are right."
)

_log = logging.getLogger("confide")


class SigningRecord(NamedTuple):
    """The record that a store was signed: the ID of its key of rows, or None if it must be reviewed first."""

    key_id: bytes | None


class SigningRecordFile:
    """The file that says that the store was signed. An attacker of the database cannot change it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> SigningRecord | None:
        """Read the record. None if the store was never signed. Raises `UnsignedStore` if the file is damaged."""
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return None
        try:
            key_id = json.loads(text)["rows_key"]
            return SigningRecord(None if key_id is None else bytes.fromhex(key_id))
        except (ValueError, KeyError, TypeError):
            raise UnsignedStore(f"{self._path} is damaged. {RESIGN_HINT}") from None

    def write(self, record: SigningRecord) -> None:
        """Replace the record and sync it to disk."""
        new = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}.new")
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps({"rows_key": None if record.key_id is None else record.key_id.hex()}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            new.rename(self._path)
        finally:
            new.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class StoreUsers:
    """Who can administer a store, and which tokens work: what an operator reviews before the store is signed."""

    users: list[User]
    tokens: list[Token]

    @property
    def admins(self) -> list[User]:
        return [user for user in self.users if has_admin(user.grants) and not user.is_disabled]


class StoreSigning:
    """Signs the rows of a store, and refuses a store whose signatures are gone."""

    def __init__(self, stores: Stores, record_file: SigningRecordFile, *, clock: Clock) -> None:
        self._stores = stores
        self._record_file = record_file
        self._clock = clock

    async def require_key(self) -> None:
        """Raise `UnsignedStore` if the store was signed with a key that it no longer has.

        Call this before a missing key is created.
        """
        record = self._record_file.read()
        if record is None:
            return
        if record.key_id is None:
            raise UnsignedStore(f"The restored backup was not signed. {RESIGN_HINT}")
        active = await self._stores.data_keys.find_active(ROWS_PURPOSE, "")
        if active is None or active.id != record.key_id:
            raise UnsignedStore(f"The key that signed the rows of this store is gone. {RESIGN_HINT}")

    async def begin_verification(self) -> bool:
        """Verify rows from now on if the store has been signed, and return whether it has.

        Call this when the key is loaded. Raises `UnsignedStore` if the row of the store has no valid signature.
        """
        rows = self._stores.rows
        record = self._record_file.read()
        found = await self._stores.engine.query(f"/* store.is_signed */ SELECT {STORE_ROW}")
        store = StoreRow(*found[0]) if found else None
        is_valid = store is not None and rows.is_valid("store", store._asdict())
        is_signed = is_valid and store is not None and store.signed_at is not None
        if record is not None and not is_signed:
            raise UnsignedStore(f"The row of the store was changed without Confide. {RESIGN_HINT}")
        if is_signed and record is None:
            await self._write_record()
        rows.is_enforced = is_signed
        return is_signed

    async def sign_when_due(self, recorder: AuditRecorder) -> bool:
        """Sign the store if no process of the release before can still be needed. Return whether it is signed now."""
        if self._stores.rows.is_enforced or await self.begin_verification():
            return True
        has_users = await self._stores.users.has_had_user()
        if has_users:
            ((migrated_at,),) = await self._stores.engine.query(signing.MIGRATED_AT)
            now = self._clock()
            if now - migrated_at < MIXED_SECONDS * MICROSECONDS_PER_SECOND:
                return False
            until = now + CLAIM_SECONDS * MICROSECONDS_PER_SECOND
            if not await self._stores.retention.claim_job("sign rows", now=now, until=until):
                return False
        # The audit log of a new store begins with its first user.
        await self.sign(recorder if has_users else None, outcome="upgraded")
        return True

    async def sign(self, recorder: AuditRecorder | None, *, outcome: str) -> int:
        """Sign all rows as they are, and verify them from now on. Return the number of rows that were unsigned."""
        engine, rows = self._stores.database.host_engine, self._stores.rows
        count = await signing.sign_in_batches(engine, rows)
        audit = None if recorder is None else recorder.sign("sign store", outcome, principal=None)
        await engine.transact_long(signing.seal(rows, engine=engine.name, at=self._clock(), audit=audit))
        await self._write_record()
        rows.is_enforced = True
        return count

    async def adopt_restored(self, recorder: AuditRecorder) -> bool:
        """Verify the rows of a restored backup that is proven unchanged from now on. Sign them if they are unsigned.

        Return False if an operator must review them: then the row of the store was altered before the backup.
        """
        rows, engine = self._stores.rows, self._stores.database.host_engine
        ((*values,),) = await engine.query(f"/* store.is_restored_signed */ SELECT {STORE_ROW}")
        store = StoreRow(*values)
        if store.signed_at is None:
            await self.sign(recorder, outcome="restored")
            return True
        if not rows.is_valid("store", store._asdict()):
            return False
        await engine.transact_long(signing.require_signatures())
        await self._write_record()
        rows.is_enforced = True
        return True

    async def read_users(self) -> StoreUsers:
        """Read the users and the tokens that work, before their rows are verified."""
        now = self._clock()
        users = await self._stores.users.list_all()
        disabled = {user.id for user in users if user.is_disabled}
        tokens = await self._stores.tokens.list_all(None)
        return StoreUsers(users, [one for one in tokens if one.expires_at > now and one.user_id not in disabled])

    async def _write_record(self) -> None:
        key = await self._stores.data_keys.find_active(ROWS_PURPOSE, "")
        if key is None:
            raise DatabaseUnavailable("The key of the rows was removed.")
        try:
            self._record_file.write(SigningRecord(key.id))
        except OSError as error:
            # A data folder can be read-only. The signatures are verified all the same.
            _log.warning("signing_record_unwritable path=%s reason=%s", error.filename, describe_error(error))

    def require_review(self) -> None:
        """Record that the store must be reviewed before the service uses it."""
        self._record_file.write(SigningRecord(None))
