"""Those who watch, and which of them a change may concern: most changes concern few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from confide.changes.model import Change, Position
from confide.clock import boottime
from confide.identity.authenticator import AuthenticatedToken
from confide.identity.model import Scope

# A watcher that hears of nothing is shown so often that the stream lives, and how far it has come.
HEARTBEAT_SECONDS = 15.0


class Poke(Protocol):
    """Tells whoever writes to a watcher that there is something to do."""

    def __call__(self, *, is_beat: bool = False) -> None: ...


def _nobody(*, is_beat: bool = False) -> None:
    """Nobody writes yet."""


class WatchEvent(NamedTuple):
    """A change as it is told to everybody who may hear of it."""

    position: Position
    change: Change
    written: bytes


class Watcher:
    """Somebody who watches; `position` is the place up to which everything was told or is not for them."""

    __slots__ = ("beat_at", "checked", "is_live", "is_over", "poke", "position", "scope", "token_hash")

    def __init__(self, token_hash: bytes, scope: Scope, checked: AuthenticatedToken, position: Position) -> None:
        self.token_hash = token_hash
        self.scope = scope
        self.checked = checked
        self.position = position
        # Whether everything up to the end of what is shared was told: then it need not look before it is woken.
        self.is_live = False
        # Set once nothing may be told any more: the token or every grant has ended, or the process drains.
        self.is_over: Exception | None = None
        # Called when there is something to do, if only to show that the stream lives; must not wait.
        self.poke: Poke = _nobody
        self.note_beat(boottime())

    def note_beat(self, now: float) -> None:
        self.beat_at = now + HEARTBEAT_SECONDS

    def can_see(self, change: Change) -> bool:
        """Whether it is wanted and may be known."""
        principal = self.checked.principal
        if change.key is not None:
            return self.scope.covers(change.key) and principal.role_on(change.key) is not None
        name = change.integration_type or ""
        return self.scope.covers_type(name) and principal.can_see_type(name)


class WatcherIndex:
    """Watchers by the tenants that they may hear of; where a pattern says which, by none."""

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
        """Add one, or note that its grants are others than they were."""
        self.drop(watcher)
        tenants = self._tenants[watcher] = _tenants_of(watcher)
        for tenant in (None,) if tenants is None else tenants:
            self._of.setdefault(tenant, {})[watcher] = None

    def drop(self, watcher: Watcher) -> None:
        tenants = self._tenants.pop(watcher, frozenset())
        for tenant in (None,) if tenants is None else tenants:
            self._of[tenant].pop(watcher)
            if not self._of[tenant]:
                del self._of[tenant]

    def concerned_by(self, changes: Iterable[Change]) -> list[Watcher]:
        """Those who hear of any of these."""
        found: dict[Watcher, None] = {}
        for change in changes:
            # A type is nobody's: each may hear of it.
            names = self._of if change.key is None else (change.key.tenant, None)
            for group in [self._of.get(name, {}) for name in names]:
                found.update((one, None) for one in group if one not in found and one.can_see(change))
        return list(found)


def _tenants_of(watcher: Watcher) -> frozenset[str] | None:
    """The tenants that are named, by what it asks for or may see; None where there is always a pattern."""
    principal = watcher.checked.principal
    for scopes in (
        [watcher.scope],
        [grant.scope for grant in principal.grants],
        [grant.scope for grant in principal.narrowed or ()],
    ):
        if scopes and not any(scope.tenant.endswith("*") for scope in scopes):
            return frozenset(scope.tenant for scope in scopes)
    return None
