"""Who is looked at for a change: those it may concern, and not everybody."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from confide.changes.model import Change, LogBounds, Position
from confide.changes.watch import WatchHub
from confide.changes.watchers import Watcher, WatcherIndex
from confide.identity.authenticator import AuthenticatedToken
from confide.identity.model import Credential, Grant, Principal, Role, Scope

EVERYTHING = Scope("*", "*")


def watcher(scope: Scope, *granted: Scope, narrowed: tuple[Scope, ...] | None = None) -> Watcher:
    own = None if narrowed is None else tuple(Grant(Role.VIEWER, one) for one in narrowed)
    grants = tuple(Grant(Role.VIEWER, one) for one in granted or (EVERYTHING,))
    checked = AuthenticatedToken(
        Credential(b""), Principal(1, "vi", grants, 1, token_grants=own), expires_at=1e9, fresh_until=1e9
    )
    return Watcher(Credential(b""), scope, checked, Position(0, 0))


def change(tenant: str | None) -> Change:
    kind, version = ("type-changed", None) if tenant is None else ("saved", 1)
    return Change(Position(0, 1), kind, tenant, "crm", version, None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[Watcher]:
    counted: Counter[Watcher] = Counter()
    can_see = Watcher.can_see

    def counting(one: Watcher, about: Change) -> bool:
        counted[one] += 1
        return can_see(one, about)

    monkeypatch.setattr(Watcher, "can_see", counting)
    return counted


def test_a_change_is_looked_at_for_those_whom_it_may_concern(asked: Counter[Watcher]) -> None:
    watchers = WatcherIndex()
    elsewhere = [watcher(Scope(f"tenant-{number}", "*")) for number in range(100)]
    by_grant = [watcher(EVERYTHING, Scope(f"tenant-{number}", "*")) for number in range(100)]
    by_token = [watcher(EVERYTHING, narrowed=(Scope(f"tenant-{number}", "*"),)) for number in range(100)]
    near = [watcher(Scope("acme", "*")), watcher(EVERYTHING, Scope("acme", "*"), Scope("globex", "*"))]
    by_pattern = [watcher(EVERYTHING), watcher(Scope("ac*", "*")), watcher(Scope("b*", "*"))]
    for one in (*elsewhere, *by_grant, *by_token, *near, *by_pattern):
        watchers.add(one)
    assert set(watchers.find_watchers_of([change("acme")])) == {*near, *by_pattern[:2]}
    assert asked == Counter([*near, *by_pattern])
    assert len(watchers.find_watchers_of([change(None)])) == 305


def test_other_grants_and_leaving_are_noted() -> None:
    watchers = WatcherIndex()
    one = watcher(EVERYTHING, Scope("acme", "*"))
    watchers.add(one)
    one.token = watcher(EVERYTHING, Scope("globex", "*")).token
    watchers.add(one)
    assert watchers.find_watchers_of([change("acme")]) == []
    assert watchers.find_watchers_of([change("globex"), change("globex")]) == [one]
    assert one in watchers
    watchers.remove(one)
    watchers.remove(one)
    assert (len(watchers), one in watchers, watchers.find_watchers_of([change("globex")])) == (0, False, [])


async def test_who_was_let_go_is_moved_past_nothing_that_comes_after() -> None:
    """Nobody wakes it any more: what is committed from then on it hears elsewhere."""
    bounds = LogBounds(start=Position(0, 0), final=Position(0, 3), end=Position(0, 3))

    class Configs:
        async def read_bounds(self) -> LogBounds:
            return bounds

    class Tokens:
        def parse(self, _: str) -> Credential:
            return Credential(b"")

        async def authenticate(self, _: bytes) -> AuthenticatedToken:
            return watcher(EVERYTHING).token

    store: Any = Configs()
    tokens: Any = Tokens()
    watching = WatchHub(store, tokens, encode=lambda _: b"")
    waiting = await watching.join("", EVERYTHING, after=None)
    waiting.is_caught_up = True
    watching.drain()
    watching._end = Position(0, 4)
    watching.skip_to_end(waiting)
    assert waiting.position == Position(0, 3)
