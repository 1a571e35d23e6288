"""What the service asks of a store: one engine, seen by its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

from confide.audit.chain import ChainedEntry, Checkpoint
from confide.audit.model import AuditEntry, AuditFilter, ListedEntry
from confide.changes.model import Change, LogBounds, Position
from confide.configs.model import (
    ANY_CONFIG,
    ConfigFilter,
    ConfigSummary,
    DestroyedTenant,
    EncryptedConfig,
    IdempotencyRecord,
    NewVersion,
    StoredVersion,
    VersionSummary,
    VersionWithDataKey,
)
from confide.crypto.model import WrappedKey
from confide.database.model import DatabaseIdentity, Row
from confide.identity.model import NewToken, NewUser, Scope, Token, User, UserChange
from confide.integration_types.model import TypeVersion
from confide.names import Key
from confide.reads.model import AccessSummary, ReadCount


class ChangeFeed(Protocol):
    """One process's ear on the change log. Used by one task only, but for `tell`."""

    async def read(self) -> list[Change]:
        """Every change that the read before could not see; the first read hears of none.

        None is heard twice, unless the link was lost in between. Raises `DatabaseUnavailable`, after which the next
        read goes on from where the last good one stopped, or `ChangeFeedReset`, after which it begins anew.
        """

    async def wait(self) -> None:
        """Until it is time to read: somebody told of a change, or the engine's own rhythm says so."""

    def horizon_age(self) -> float:
        """Seconds that watch and the audit chain lag by, because a transaction is still under way; 0 if none is."""

    def tell(self) -> None:
        """Have other processes hear soon that something was committed; they read for themselves what."""

    async def close(self) -> None: ...


class UsageStore(Protocol):
    """The usage ledger."""

    async def add(self, reads: Sequence[ReadCount]) -> None: ...

    async def of(self, key: Key, *, limit: int) -> list[AccessSummary]:
        """Those who read a config, the latest first."""


class UpkeepStore(Protocol):
    """Erasing what is older than its time."""

    async def take_turn(self, name: str, *, now: int, until: int) -> bool:
        """Whether a chore is the caller's until then; nobody else's it is."""

    async def depths(self, *, after: Key | None, limit: int) -> list[tuple[Key, int]]:
        """Keys with their highest version, retired ones too, in order of key."""

    async def prune(self, key: Key, *, after: int, until: int, limit: int) -> list[int]:
        """Erase the bodies of versions after one and up to another, the lowest first, so many; returns which."""

    async def trim(self, *, before: int, after: int, limit: int) -> int | None:
        """Delete rows of the log from before that time that are no config's latest, some at a time.

        Begins after a row's number; returns the number to go on after, None at the end.
        """


class ConfigStore(Protocol):
    """The versions of configs: the change log's rows that have a key."""

    async def read(self, key: Key) -> StoredVersion | None:
        """Read the current version, be it a tombstone."""

    async def read_with_key(self, key: Key) -> VersionWithDataKey: ...

    async def append(self, new: NewVersion, *, entry: AuditEntry, mac: bytes, replay: IdempotencyRecord | None) -> bool:
        """Append a version with its audit entry and idempotency record, all or nothing.

        False if that version exists already or the tenant's key is no longer active: the race is lost.
        Raises `IdempotencyKeyTaken` if the idempotency record exists.
        """

    async def read_version(self, key: Key, version: int) -> StoredVersion | None: ...

    async def versions(self, key: Key, *, before: int | None, limit: int) -> list[VersionSummary]:
        """List versions, the newest first, be they tombstones or pruned; those older than `before`, if given."""

    async def page(
        self, scopes: Sequence[Sequence[Scope]], *, after: Key | None, limit: int, more: ConfigFilter = ANY_CONFIG
    ) -> list[ConfigSummary]:
        """List current configs, not retired ones, in order of key: those that one scope of each group covers."""

    async def sealed_page(
        self, scopes: Sequence[Sequence[Scope]], *, after: Key | None, limit: int, more: ConfigFilter = ANY_CONFIG
    ) -> list[EncryptedConfig]:
        """The same page with what they hold."""

    async def changes_after(self, position: Position, *, limit: int) -> list[Change]:
        """Read the log on in the one order that never changes; only what can no longer be overtaken."""

    async def bounds(self) -> LogBounds: ...

    async def read_replay(self, replay: IdempotencyRecord, *, not_before: int) -> IdempotencyRecord | None: ...

    async def keep_replay(self, replay: IdempotencyRecord, *, saved_at: int) -> None:
        """Keep the record of a request that changed nothing; raises `IdempotencyKeyTaken`."""

    async def forget_replays(self, *, before: int) -> None: ...


class AccountStore(Protocol):
    """Users and their tokens."""

    async def has_had_user(self) -> bool: ...

    async def add_first(self, user: NewUser, *, entry: AuditEntry, mac: bytes) -> int | None:
        """Add the first user that the store ever has; None if there was one before."""

    async def add(self, user: NewUser, *, entry: AuditEntry, mac: bytes) -> int:
        """Raises `UserExists`."""

    async def read(self, login: str) -> User | None: ...

    async def all(self) -> list[User]: ...

    async def change(self, login: str, change: UserChange, *, entry: AuditEntry, mac: bytes) -> User | None:
        """None if there is no such user; raises `LastAdmin`. A new password ends the user's sessions."""

    async def remove(self, login: str, *, entry: AuditEntry, mac: bytes) -> bool:
        """Raises `LastAdmin`."""

    async def set_password(self, user_id: int, password: str, *, keep: int, entry: AuditEntry, mac: bytes) -> None:
        """Change a user's own password and end all sessions but the one kept."""

    async def rehash(self, user_id: int, *, old: str, new: str) -> None: ...

    async def begin_attempt(self, login: bytes, address: str, *, now: int) -> int | None:
        """Count a login that is about to be tried; seconds to wait, if too many failed before."""

    async def clear_attempts(self, login: bytes, address: str) -> None: ...

    async def take_back_attempt(self, login: bytes, address: str) -> None:
        """Forget one attempt: nobody looked at its password."""


class TokenStore(Protocol):
    """Tokens by the hash of their secret."""

    async def read(self, token_hash: bytes) -> tuple[Token, User] | None: ...

    async def add(self, token: NewToken, *, made_at: int, entry: AuditEntry, mac: bytes) -> int | None:
        """None if the user is gone by now, or if it is a session and the user was disabled or has another password."""

    async def all(self, user_id: int | None) -> list[Token]: ...

    async def remove(self, token_id: int, *, of: int | None, entry: AuditEntry, mac: bytes) -> bool:
        """End a token; with `of` only if it is that user's."""

    async def forget_expired(self, *, before: int) -> None: ...


class TypeStore(Protocol):
    """Versions of integration types."""

    async def read(self, name: str) -> TypeVersion | None:
        """Read the version in force, be it that of a removed type."""

    async def all(self) -> list[TypeVersion]:
        """List those in force, not removed ones, by name."""

    async def append(self, new: TypeVersion, *, entry: AuditEntry, mac: bytes) -> bool:
        """Append a version with its change and audit entry; False if that version exists already."""


class AuditStore(Protocol):
    """The audit as one chain."""

    async def is_behind(self) -> bool:
        """Whether there are entries that no link covers yet."""

    async def link_next(self) -> int:
        """Link the next few hundred entries, one process at a time; returns how many. None that may be overtaken."""

    async def linked(self, *, after: int, limit: int) -> list[ChainedEntry]: ...

    async def last_number(self) -> int: ...

    async def link_of(self, number: int) -> bytes | None: ...

    async def unlinked(self, *, before: int) -> int:
        """How many entries made before that time no link covers."""

    async def page(self, wanted: AuditFilter, *, before: int | None, limit: int) -> list[ListedEntry]:
        """List entries, the newest first; those numbered below `before`, if given."""

    async def checkpoints(self, *, after: int = 0, limit: int | None = None) -> list[Checkpoint]: ...

    async def keep_checkpoint(self, checkpoint: Checkpoint) -> bool:
        """False if there is one of that number."""


class KeyStore(Protocol):
    """Wrapped keys of tenants and of the store itself."""

    async def add_if_none(self, new: WrappedKey, *, made_at: int) -> WrappedKey:
        """Insert the key unless its purpose and tenant have an active one; return the active one, read back."""

    async def active(self, purpose: str, tenant: str) -> WrappedKey | None: ...

    async def read(self, key_id: bytes) -> WrappedKey | None: ...

    async def all(self) -> list[WrappedKey]: ...

    async def rewrap(self, key: WrappedKey, *, instead_of: bytes) -> None:
        """Replace the wrapping, unless somebody else did."""

    async def destroy_tenant(
        self, tenant: str, *, user_id: int | None, at: int, entry: AuditEntry, mac: bytes
    ) -> DestroyedTenant | None:
        """Retire all configs of a tenant and erase its keys, in one transaction; None if there was nothing."""


class Store(Protocol):
    """One engine: everything that is kept, in whole transactions.

    Every method raises `DatabaseUnavailable` within 2 s if the store does not answer; a write may then have happened.
    """

    @property
    def configs(self) -> ConfigStore: ...
    @property
    def accounts(self) -> AccountStore: ...
    @property
    def tokens(self) -> TokenStore: ...
    @property
    def types(self) -> TypeStore: ...
    @property
    def audit(self) -> AuditStore: ...
    @property
    def usage(self) -> UsageStore: ...
    @property
    def upkeep(self) -> UpkeepStore: ...
    @property
    def keys(self) -> KeyStore: ...
    @property
    def news(self) -> ChangeFeed: ...

    async def connect(self) -> None:
        """Connect, whatever the schema; raises `DatabaseUnavailable` or `UnsafeDurability`."""

    async def open(self) -> DatabaseIdentity:
        """Connect and read which life this is; the schema must be there."""

    async def migrate(self) -> list[str]:
        """Bring the schema up to date under a lock; return what was applied. Raises `NewerSchema`."""

    async def close(self) -> None: ...

    async def ping(self) -> None: ...

    async def note(self, entry: AuditEntry, *, mac: bytes) -> None:
        """Append an audit entry that explains no change: a refusal or a login."""

    def dump(self) -> AsyncIterator[tuple[str, Row]]:
        """Read every row of every table, in one snapshot."""

    async def load(self, rows: Iterator[tuple[str, Row]]) -> None:
        """Fill an empty store with the rows of a dump and begin a new epoch, in one transaction."""

    async def is_empty(self) -> bool: ...
