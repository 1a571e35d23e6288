"""Watchers of changes, and an index that finds the watchers of a change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from confide.changes.model import Change, Position
from confide.clock import read_boot_clock
from confide.epoch import Epoch
from confide.identity.model import Credential, Scope

if TYPE_CHECKING:
    from confide.identity.authenticator import AuthenticatedToken

# A watcher without changes gets a heartbeat with its position at this interval.
HEARTBEAT_SECONDS = 15.0


class Wake(Protocol):
    """Wakes the task that writes the stream of a watcher."""

    def __call__(self, *, is_heartbeat: bool = False) -> None: ...


def _ignore(*, is_heartbeat: bool = False) -> None:
    """Do nothing. The stream has no writer yet."""


class WatchEvent(NamedTuple):
    """A change with the encoded event, which is the same for every watcher."""

    position: Position
    change: Change
    encoded: bytes


class NextEvents(NamedTuple):
    """The next events of a watcher, and its position after them."""

    events: list[WatchEvent]
    position: Position


class Watcher:
    """One watch stream. All its events up to `position` were sent."""

    __slots__ = (
        "credential",
        "ended_by",
        "epoch",
        "heartbeat_at",
        "is_caught_up",
        "position",
        "scope",
        "token",
        "wake",
    )

    def __init__(
        self,
        credential: Credential,
        scope: Scope,
        token: AuthenticatedToken,
        position: Position,
        *,
        epoch: Epoch,
    ) -> None:
        self.credential = credential
        # The epoch of `position`. When it ends, the stream ends.
        self.epoch = epoch
        self.scope = scope
        self.token = token
        self.position = position
        # All shared events were sent, and the writer sleeps until `wake`.
        self.is_caught_up = False
        # The reason why the stream ends: the token, every grant or the epoch has ended, or the process drains.
        self.ended_by: Exception | None = None
        # The hub calls it when there are events or a heartbeat to send. It must not block.
        self.wake: Wake = _ignore
        self.schedule_heartbeat(read_boot_clock())

    def schedule_heartbeat(self, now: float) -> None:
        self.heartbeat_at = now + HEARTBEAT_SECONDS

    def can_see(self, change: Change) -> bool:
        """Return whether a change is in the scope of the watcher and a grant covers it."""
        principal = self.token.principal
        if change.key is not None:
            return self.scope.is_covering(change.key) and principal.find_role(change.key) is not None
        name = change.integration_type or ""
        return self.scope.is_covering_type(name) and principal.can_see_type(name)


class WatcherIndex:
    """Watchers by the tenants that they can see. Watchers with a tenant pattern are under None."""

    def __init__(self) -> None:
        self._tenants: dict[Watcher, frozenset[str] | None] = {}
        self._by_tenant: dict[str | None, dict[Watcher, None]] = {}
        self._counts: Counter[Credential] = Counter()

    def __len__(self) -> int:
        return len(self._tenants)

    def __iter__(self) -> Iterator[Watcher]:
        return iter(list(self._tenants))

    def __contains__(self, watcher: Watcher) -> bool:
        return watcher in self._tenants

    def count(self, credential: Credential) -> int:
        """Return the number of watchers of a token."""
        return self._counts[credential]

    def add(self, watcher: Watcher) -> None:
        """Add a watcher, or index it again after its grants changed."""
        self.remove(watcher)
        self._counts[watcher.credential] += 1
        tenants = self._tenants[watcher] = _find_tenants(watcher)
        for tenant in (None,) if tenants is None else tenants:
            self._by_tenant.setdefault(tenant, {})[watcher] = None

    def remove(self, watcher: Watcher) -> None:
        if watcher in self._tenants:
            self._counts[watcher.credential] -= 1
            if not self._counts[watcher.credential]:
                del self._counts[watcher.credential]
        tenants = self._tenants.pop(watcher, frozenset())
        for tenant in (None,) if tenants is None else tenants:
            self._by_tenant[tenant].pop(watcher)
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]

    def find_watchers_of(self, changes: Iterable[Change]) -> list[Watcher]:
        """List the watchers that can see at least one of the changes."""
        found: dict[Watcher, None] = {}
        for change in changes:
            # Watchers of any tenant can see a change of an integration type.
            names = self._by_tenant if change.key is None else (change.key.tenant, None)
            for group in [self._by_tenant.get(name, {}) for name in names]:
                found.update((one, None) for one in group if one not in found and one.can_see(change))
        return list(found)


def _find_tenants(watcher: Watcher) -> frozenset[str] | None:
    """Return the tenants that the scope or a group of grants names exactly. None if all of them have patterns."""
    groups = watcher.token.principal.grant_groups
    for scopes in ([watcher.scope], *([grant.scope for grant in group] for group in groups)):
        if scopes and not any(scope.tenant.endswith("*") for scope in scopes):
            return frozenset(scope.tenant for scope in scopes)
    return None
