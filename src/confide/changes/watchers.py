"""Watchers of changes, and an index that finds the few that a change concerns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from confide.changes.model import Change, Position
from confide.clock import boottime
from confide.identity.model import Credential, Scope

if TYPE_CHECKING:
    from confide.identity.authenticator import AuthenticatedToken

# Without changes, a watcher gets a heartbeat with its position at this interval.
HEARTBEAT_SECONDS = 15.0


class Wake(Protocol):
    """Wakes the writer of a watcher's stream."""

    def __call__(self, *, is_beat: bool = False) -> None: ...


def _ignore(*, is_beat: bool = False) -> None:
    """Do nothing, before the stream has a writer."""


class WatchEvent(NamedTuple):
    """A change with the bytes that are sent to each watcher."""

    position: Position
    change: Change
    written: bytes


class Watcher:
    """One watch stream; everything up to `position` was sent or is not visible to it."""

    __slots__ = ("checked", "credential", "ended_by", "heartbeat_at", "is_caught_up", "position", "scope", "wake")

    def __init__(self, credential: Credential, scope: Scope, checked: AuthenticatedToken, position: Position) -> None:
        self.credential = credential
        self.scope = scope
        self.checked = checked
        self.position = position
        # Whether all shared events were sent: then the writer sleeps until it is woken.
        self.is_caught_up = False
        # Why the stream ends: the token or every grant has ended, or the process drains.
        self.ended_by: Exception | None = None
        # Called when there are events or a heartbeat to send; must not block.
        self.wake: Wake = _ignore
        self.schedule_heartbeat(boottime())

    def schedule_heartbeat(self, now: float) -> None:
        self.heartbeat_at = now + HEARTBEAT_SECONDS

    def can_see(self, change: Change) -> bool:
        """Return whether the watcher asked for a change and a grant allows it."""
        principal = self.checked.principal
        if change.key is not None:
            return self.scope.covers(change.key) and principal.find_role(change.key) is not None
        name = change.integration_type or ""
        return self.scope.covers_type(name) and principal.can_see_type(name)


class WatcherIndex:
    """Watchers by the tenants that they can see; those with a tenant pattern are under None."""

    def __init__(self) -> None:
        self._tenants: dict[Watcher, frozenset[str] | None] = {}
        self._of: dict[str | None, dict[Watcher, None]] = {}

    def __len__(self) -> int:
        return len(self._tenants)

    def __iter__(self) -> Iterator[Watcher]:
        return iter(list(self._tenants))

    def __contains__(self, watcher: Watcher) -> bool:
        return watcher in self._tenants

    def add(self, watcher: Watcher) -> None:
        """Add a watcher, or index it again after its grants changed."""
        self.drop(watcher)
        tenants = self._tenants[watcher] = _find_tenants(watcher)
        for tenant in (None,) if tenants is None else tenants:
            self._of.setdefault(tenant, {})[watcher] = None

    def drop(self, watcher: Watcher) -> None:
        tenants = self._tenants.pop(watcher, frozenset())
        for tenant in (None,) if tenants is None else tenants:
            self._of[tenant].pop(watcher)
            if not self._of[tenant]:
                del self._of[tenant]

    def find_concerned(self, changes: Iterable[Change]) -> list[Watcher]:
        """List the watchers that can see at least one of the changes."""
        found: dict[Watcher, None] = {}
        for change in changes:
            # A change of a type may concern watchers of any tenant.
            names = self._of if change.key is None else (change.key.tenant, None)
            for group in [self._of.get(name, {}) for name in names]:
                found.update((one, None) for one in group if one not in found and one.can_see(change))
        return list(found)


def _find_tenants(watcher: Watcher) -> frozenset[str] | None:
    """Return the tenants that a watcher or its grants name exactly; None if all of these are patterns."""
    principal = watcher.checked.principal
    for scopes in (
        [watcher.scope],
        [grant.scope for grant in principal.grants],
        [grant.scope for grant in principal.narrowed or ()],
    ):
        if scopes and not any(scope.tenant.endswith("*") for scope in scopes):
            return frozenset(scope.tenant for scope in scopes)
    return None
