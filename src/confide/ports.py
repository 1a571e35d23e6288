"""What the service asks of the world: the store, sealing, password hashing and the clock."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from confide.domain.accounts import NewToken, NewUser, Token, User, UserChange
from confide.domain.audits import AuditEntry, Caller
from confide.domain.configs import ConfigLine, Kind, Outcome, StoredVersion, VersionLine
from confide.domain.grants import Scope
from confide.domain.names import Key
from confide.domain.positions import Position

# Where the request under way comes from; set once, at the door.
caller: ContextVar[Caller] = ContextVar("caller", default=Caller(None, "-"))  # noqa: B039 - frozen
# When, on the monotonic clock, the request under way must have its answer; None where nobody waits.
answer_by: ContextVar[float | None] = ContextVar("answer_by", default=None)
ANSWER_SECONDS = 2.0


def seconds_left() -> float:
    """How long the store may take now; raises `Unreachable` if the request's time is over."""
    until = answer_by.get()
    left = ANSWER_SECONDS if until is None else until - time.monotonic()
    if left <= 0:
        raise Unreachable
    return left


# Microseconds since 1970.
Clock = Callable[[], int]
SECOND = 1_000_000


class NewerSchema(Exception):  # noqa: N818 - the start ends with it, in one sentence
    """The store was written by a newer Confide."""


class UnsafeDurability(Exception):  # noqa: N818 - as above
    """The store's own settings let it lose what it acknowledged."""


class MasterKeyMissing(Exception):  # noqa: N818 - as above
    """The store names a master key that the ring lacks, or whose bytes are others."""


class SealBroken(Exception):  # noqa: N818 - the service makes a refusal of it
    """Sealed bytes do not open: altered, moved, or under a key that is gone."""


class Unreachable(Exception):  # noqa: N818 - as above
    """The store does not answer, or not in time."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The idempotency record of a request: under which name it came, and what it came to."""

    user_id: int
    route: str
    name: str
    mac: bytes
    version: int = 0
    outcome: Outcome = Outcome.UNCHANGED


class ReplayTaken(Exception):  # noqa: N818 - a signal between store and service
    """Another request with the same Idempotency-Key was stored first; nothing of this one was."""


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to be appended; without a body it is a tombstone."""

    key: Key
    version: int
    kind: Kind
    key_id: bytes | None
    body: bytes | None = field(repr=False)
    saved_by: int
    saved_at: int
    note: str | None = None


class Change(NamedTuple):
    """One row of the change log, without its body. What is about a whole tenant has a tenant and no key."""

    position: Position
    kind: str
    tenant: str | None
    key: Key | None
    version: int | None
    subject: int | None


class LogGone(Exception):  # noqa: N818 - a signal between store and service
    """The log cannot be read on: it no longer reaches back that far, or the store has begun a new epoch."""


class News(Protocol):
    """One process's ear on the change log. Used by one task only, but for `tell`."""

    async def read(self) -> list[Change]:
        """Every change that the read before could not see; the first read hears of none.

        None is heard twice, unless the link was lost in between. Raises `Unreachable`, after which the next read goes
        on from where the last good one stopped, or `LogGone`, after which it begins anew.
        """

    async def wait(self) -> None:
        """Until it is time to read: somebody told of a change, or the engine's own rhythm says so."""

    def tell(self) -> None:
        """Have other processes hear soon that something was committed; they read for themselves what."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A wrapped key; destroyed ones have lost their bytes."""

    id: bytes
    purpose: str
    tenant: str
    master_key_id: bytes
    wrapped: bytes | None = field(repr=False)


class WithKey(NamedTuple):
    """The current version of a config with its tenant's active key, if that came along: most likely it opens it."""

    current: StoredVersion | None
    key: StoredKey | None


class ConfigStore(Protocol):
    """The versions of configs: the change log's rows that have a key."""

    async def read(self, key: Key) -> StoredVersion | None:
        """Read the current version, be it a tombstone."""

    async def read_with_key(self, key: Key) -> WithKey: ...

    async def append(self, new: NewVersion, *, entry: AuditEntry, mac: bytes, replay: Replay | None) -> bool:
        """Append a version with its audit entry and idempotency record, all or nothing.

        False if that version exists already or the tenant's key is no longer active: the race is lost.
        Raises `ReplayTaken` if the idempotency record exists.
        """

    async def read_version(self, key: Key, version: int) -> StoredVersion | None: ...

    async def versions(self, key: Key, *, before: int | None, limit: int) -> list[VersionLine]:
        """List versions, the newest first, be they tombstones or pruned; those older than `before`, if given."""

    async def page(self, scopes: Sequence[Sequence[Scope]], *, after: Key | None, limit: int) -> list[ConfigLine]:
        """List current configs, not retired ones, in order of key: those that one scope of each group covers."""

    async def changes_after(self, position: Position, *, limit: int) -> list[Change]:
        """Read the log on in the one order that never changes; only what can no longer be overtaken."""

    async def read_replay(self, replay: Replay, *, not_before: int) -> Replay | None: ...

    async def keep_replay(self, replay: Replay, *, saved_at: int) -> None:
        """Keep the record of a request that changed nothing; raises `ReplayTaken`."""

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


class KeyStore(Protocol):
    """Wrapped keys of tenants and of the store itself."""

    async def add_if_none(self, new: StoredKey, *, made_at: int) -> StoredKey:
        """Insert the key unless its purpose and tenant have an active one; return the active one, read back."""

    async def active(self, purpose: str, tenant: str) -> StoredKey | None: ...

    async def read(self, key_id: bytes) -> StoredKey | None: ...

    async def all(self) -> list[StoredKey]: ...

    async def rewrap(self, key: StoredKey, *, instead_of: bytes) -> None:
        """Replace the wrapping, unless somebody else did."""

    async def destroy_tenant(
        self, tenant: str, *, by: int | None, at: int, entry: AuditEntry, mac: bytes
    ) -> Destroyed | None:
        """Retire all configs of a tenant and erase its keys, in one transaction; None if there was nothing."""


class Destroyed(NamedTuple):
    """What destroying a tenant came to."""

    retired: int
    key_ids: list[bytes]


@dataclass(frozen=True, slots=True)
class Home:
    """Where a store lives and which life of it this is."""

    epoch: str
    durability: str
    is_unsafe: bool
    has_begun_anew: bool = False
    # Whether positions hold the number of a transaction.
    has_xid: bool = False


Row = Sequence[Any]
Rows = Sequence[Row]


class Store(Protocol):
    """One engine: everything that is kept, in whole transactions.

    Every method raises `Unreachable` within 2 s if the store does not answer; a write may then have happened.
    """

    @property
    def configs(self) -> ConfigStore: ...
    @property
    def accounts(self) -> AccountStore: ...
    @property
    def tokens(self) -> TokenStore: ...
    @property
    def keys(self) -> KeyStore: ...
    @property
    def news(self) -> News: ...

    async def connect(self) -> None:
        """Connect, whatever the schema; raises `Unreachable` or `UnsafeDurability`."""

    async def open(self) -> Home:
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


@dataclass(frozen=True, slots=True)
class SealContext:
    """What sealed bytes are bound to, so that a row moved or swapped does not open."""

    key: Key
    version: int
    kind: str


class Sealer(Protocol):
    """Seals and opens bodies under each tenant's own key, and authenticates with the store's own keys."""

    async def key_for_saving(self, tenant: str, active: StoredKey | None) -> bytes:
        """Return the id of the tenant's active key, made now if there is none, ready to seal."""

    def seal(self, plain: bytes, context: SealContext, *, key_id: bytes) -> bytes: ...

    async def open(self, sealed: bytes, context: SealContext, *, key: StoredKey | None = None) -> bytes:
        """Open what was sealed; asks the store for the key unless it is at hand. Raises `SealBroken`."""

    async def is_erased(self, sealed: bytes) -> bool:
        """Whether the key that something was sealed under was destroyed."""

    def mac(self, purpose: str, data: bytes) -> bytes:
        """HMAC-SHA256 under the store's key of that purpose: audit or idempotency."""

    def forget(self, key_ids: Sequence[bytes]) -> None:
        """Never open under these again, in this life of the store or a restored one."""


class PasswordHasher(Protocol):
    """Slow hashing of passwords, a few at a time; raises `Busy` when too many wait."""

    async def hash(self, password: str) -> str: ...

    async def verify(self, password: str, known: str | None) -> bool:
        """Whether it is the password; without a known hash it costs the same and is False."""

    def is_outdated(self, known: str) -> bool: ...
