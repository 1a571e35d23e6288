"""The hub checks only the watchers that a change can concern."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from confide.caching.stamps import TakenStamps
from confide.changes.model import Change, LogBounds, Position
from confide.changes.watch import WatchHub
from confide.changes.watchers import Watcher, WatcherIndex
from confide.epoch import UNKNOWN_EPOCH, CurrentEpoch
from confide.identity.authenticator import AuthenticatedToken
from confide.identity.model import Credential, Grant, Principal, Role, Scope

EVERYTHING = Scope("*", "*")


def build_watcher(scope: Scope, *scopes: Scope, token_scopes: tuple[Scope, ...] | None = None) -> Watcher:
    token_grants = None if token_scopes is None else tuple(Grant(Role.VIEWER, one) for one in token_scopes)
    grants = tuple(Grant(Role.VIEWER, one) for one in scopes or (EVERYTHING,))
    token = AuthenticatedToken(
        Credential(b""),
        Principal(1, "vi", grants, 1, token_grants=token_grants),
        TakenStamps((0, 0), (0, 0)),
        expires_at=1e9,
        fresh_until=1e9,
    )
    return Watcher(Credential(b""), scope, token, Position(0, 0), epoch=UNKNOWN_EPOCH)


def build_change(tenant: str | None) -> Change:
    kind, version = ("type-changed", None) if tenant is None else ("saved", 1)
    return Change(Position(0, 1), kind, tenant, "crm", version, None)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Counter[Watcher]:
    counts: Counter[Watcher] = Counter()
    can_see = Watcher.can_see

    def count_check(one: Watcher, change: Change) -> bool:
        counts[one] += 1
        return can_see(one, change)

    monkeypatch.setattr(Watcher, "can_see", count_check)
    return counts


def test_a_change_is_checked_only_for_watchers_of_its_tenant_and_of_patterns(checks: Counter[Watcher]) -> None:
    index = WatcherIndex()
    other_tenants = [build_watcher(Scope(f"tenant-{number}", "*")) for number in range(100)]
    by_grant = [build_watcher(EVERYTHING, Scope(f"tenant-{number}", "*")) for number in range(100)]
    by_token = [build_watcher(EVERYTHING, token_scopes=(Scope(f"tenant-{number}", "*"),)) for number in range(100)]
    same_tenant = [
        build_watcher(Scope("acme", "*")),
        build_watcher(EVERYTHING, Scope("acme", "*"), Scope("globex", "*")),
    ]
    by_pattern = [build_watcher(EVERYTHING), build_watcher(Scope("ac*", "*")), build_watcher(Scope("b*", "*"))]
    for one in (*other_tenants, *by_grant, *by_token, *same_tenant, *by_pattern):
        index.add(one)
    assert set(index.find_watchers_of([build_change("acme")])) == {*same_tenant, *by_pattern[:2]}
    assert checks == Counter([*same_tenant, *by_pattern])
    assert len(index.find_watchers_of([build_change(None)])) == 305


def test_the_index_follows_changed_grants_and_removed_watchers() -> None:
    index = WatcherIndex()
    one = build_watcher(EVERYTHING, Scope("acme", "*"))
    index.add(one)
    one.token = build_watcher(EVERYTHING, Scope("globex", "*")).token
    index.add(one)
    assert index.find_watchers_of([build_change("acme")]) == []
    assert index.find_watchers_of([build_change("globex"), build_change("globex")]) == [one]
    assert one in index
    index.remove(one)
    index.remove(one)
    assert (len(index), one in index, index.find_watchers_of([build_change("globex")])) == (0, False, [])


async def test_a_disconnected_watcher_is_not_moved_past_later_changes() -> None:
    """It is not woken again. After it reconnects to another process, that process sends the changes."""
    bounds = LogBounds(start=Position(0, 0), final=Position(0, 3), end=Position(0, 3))

    class Configs:
        async def read_bounds(self) -> LogBounds:
            return bounds

    class Tokens:
        def parse(self, _: str) -> Credential:
            return Credential(b"")

        async def authenticate(self, _: bytes) -> AuthenticatedToken:
            return build_watcher(EVERYTHING).token

    configs: Any = Configs()
    authenticator: Any = Tokens()
    hub = WatchHub(
        configs, authenticator, epoch=CurrentEpoch(), encode=lambda _: b"", max_streams=100, max_streams_of_a_token=100
    )
    watcher = await hub.join("", EVERYTHING, after=None, epoch=UNKNOWN_EPOCH)
    watcher.is_caught_up = True
    hub.drain()
    hub._end = Position(0, 4)
    hub.skip_to_end(watcher)
    assert watcher.position == Position(0, 3)
