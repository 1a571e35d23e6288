"""What the service asks of the world: the store, sealing, password hashing and the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from confide.domain.audits import AuditEntry, Caller
from confide.domain.chains import Checkpoint
from confide.domain.configs import Kind, Outcome, StoredVersion
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
    """One row of the change log, without its body.

    What is about a whole tenant has a tenant and no key; what is about an integration type has its name and no key.
    """

    position: Position
    kind: str
    tenant: str | None
    integration_type: str | None
    version: int | None
    subject: int | None

    @property
    def key(self) -> Key | None:
        if self.tenant is None or self.integration_type is None:
            return None
        return Key(self.tenant, self.integration_type)


class LogBounds(NamedTuple):
    """What the log holds: everything after `begins`, in its order up to `now`; nothing can be after `ends` yet."""

    begins: Position
    now: Position
    ends: Position


class LogGone(Exception):  # noqa: N818 - a signal between store and service
    """The log cannot be read on: it no longer reaches back that far, or the store has begun a new epoch."""


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


class SealedConfig(NamedTuple):
    """A current config of a list with what it holds, sealed, and its tenant's active key."""

    saved_at: int
    current: StoredVersion
    key: StoredKey | None


class ListFilter(NamedTuple):
    """Which configs of a list are wanted, beside their keys; in microseconds since 1970, None is any."""

    changed_since: int | None = None
    # Nobody has read it since, and it was not saved since either.
    unread_since: int | None = None


EVERY_CONFIG = ListFilter()


class Reads(NamedTuple):
    """Reads of one config with one token."""

    key: Key
    token_id: int
    last_read_at: int
    reads: int


class UsageLine(NamedTuple):
    """What the usage ledger tells of one token; login and label if it is still there."""

    token_id: int
    login: str | None
    label: str | None
    last_read_at: int
    reads: int


class AuditFilter(NamedTuple):
    """Which entries are wanted; None is any. `since` and `until` are microseconds, the second exclusive."""

    scope: Scope | None = None
    actor: int | None = None
    action: str | None = None
    since: int | None = None
    until: int | None = None


class AuditLine(NamedTuple):
    """One entry of the audit as it is shown: with its number, the login of who acted, and the change it explains."""

    number: int
    entry: AuditEntry
    login: str | None
    position: Position | None


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

    def sign(self, data: bytes) -> bytes:
        """Ed25519 (RFC 8032) under the store's own key."""

    def has_signed(self, data: bytes, signature: bytes) -> bool: ...

    @property
    def public_key(self) -> bytes: ...

    def forget(self, key_ids: Sequence[bytes]) -> None:
        """Never open under these again, in this life of the store or a restored one."""


class Witness(Protocol):
    """A second place for checkpoints, apart from the store."""

    def append(self, checkpoint: Checkpoint) -> None: ...

    def read(self) -> list[Checkpoint]: ...


class PasswordHasher(Protocol):
    """Slow hashing of passwords, a few at a time; raises `Busy` when too many wait."""

    async def hash(self, password: str) -> str: ...

    async def verify(self, password: str, known: str | None) -> bool:
        """Whether it is the password; without a known hash it costs the same and is False."""

    def is_outdated(self, known: str) -> bool: ...
