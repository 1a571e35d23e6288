"""The limits on the connections of a worker."""

from __future__ import annotations

import pytest

from confide.server.limits import DEFAULT_CONNECTIONS, DEFAULT_STREAMS_OF_A_TOKEN, compute_limits
from confide.server.settings import Settings
from confide.web.connections import RESERVED_CONNECTIONS, ConnectionLimits, Connections, Slot


class FakeConnection:
    """A connection without a socket."""

    def __init__(self, *, is_idle: bool) -> None:
        self.has_request = not is_idle
        self.is_ended = False

    def is_idle(self, *, since: float) -> bool:  # noqa: ARG002 - it was never used
        return not self.has_request

    def end(self) -> None:
        self.is_ended = True


@pytest.fixture
def connections() -> Connections:
    return Connections(ConnectionLimits(8, 4), is_proxy="100.64.0.1".__eq__)


def connect(connections: Connections, peer: str, *, is_idle: bool = False) -> tuple[Slot, FakeConnection]:
    slot, connection = connections.add(peer), FakeConnection(is_idle=is_idle)
    slot.connection = connection
    return slot, connection


def test_the_oldest_idle_connection_of_an_address_makes_room_for_a_new_one(connections: Connections) -> None:
    other = connect(connections, "192.0.2.9", is_idle=True)
    busy = connect(connections, "192.0.2.1")
    idle = [connect(connections, "192.0.2.1", is_idle=True) for _ in range(3)]
    slot, _ = connect(connections, "192.0.2.1")
    assert [connection.is_ended for _, connection in (other, busy, *idle)] == [False, False, True, False, False]
    assert not slot.is_reserved
    assert len(connections) == 5


def test_a_busy_address_leaves_places_to_the_others(connections: Connections) -> None:
    slots = [connect(connections, "192.0.2.1")[0] for _ in range(6)]
    assert [slot.is_reserved for slot in slots] == [False] * 4 + [True] * 2
    assert connections.refused == 2
    assert not connect(connections, "192.0.2.2")[0].is_reserved
    slots[0].release()
    slots[0].release()  # has no effect
    assert not connect(connections, "192.0.2.1")[0].is_reserved


def test_the_connections_of_a_proxy_and_of_an_ipv6_network_are_counted_as_such(connections: Connections) -> None:
    assert not any(connect(connections, "100.64.0.1")[0].is_reserved for _ in range(8))
    others = Connections(ConnectionLimits(8, 4), is_proxy=lambda _: False)
    slots = [connect(others, f"2001:db8::{number}")[0] for number in range(1, 6)]
    assert [slot.is_reserved for slot in slots] == [False] * 4 + [True]


def test_an_idle_connection_makes_room_if_all_places_are_taken(connections: Connections) -> None:
    first = connect(connections, "192.0.2.1", is_idle=True)
    for number in range(2, 10):
        assert not connect(connections, f"192.0.2.{number}")[0].is_reserved
    assert first[1].is_ended
    assert connect(connections, "192.0.2.99")[0].is_reserved


def test_the_reserved_places_go_to_the_newest_connections(connections: Connections) -> None:
    for number in range(8):
        connect(connections, f"192.0.2.{number}")
    reserved = [connect(connections, "192.0.2.99") for _ in range(RESERVED_CONNECTIONS + 1)]
    assert [connection.is_ended for _, connection in reserved] == [True] + [False] * RESERVED_CONNECTIONS
    assert len(connections) == 8 + RESERVED_CONNECTIONS


def test_a_handshake_in_progress_makes_room(connections: Connections) -> None:
    ended = []
    for number in range(4):
        connections.add("192.0.2.1").end_handshake = lambda number=number: ended.append(number)  # type: ignore[misc]
    assert not connections.add("192.0.2.1").is_reserved
    assert ended == [0]


@pytest.mark.parametrize(
    ("files", "settings", "expected"),
    [
        # connections, from one address, watchers, of one token
        (1_024, {}, (864, 432, 648, 324)),
        (1_048_576, {}, (DEFAULT_CONNECTIONS, 10_000, 15_000, DEFAULT_STREAMS_OF_A_TOKEN)),
        (64, {}, (32, 16, 24, 12)),
        (1_024, {"max_connections": 100}, (100, 50, 75, 37)),
        (1_024, {"max_connections": 5_000, "max_connections_per_address": 9_000}, (864, 864, 648, 324)),
        (1_024, {"max_streams_per_token": 9_000, "max_connections_per_address": 7}, (864, 7, 648, 648)),
    ],
)
def test_the_limits_follow_from_the_open_files_and_the_settings(
    files: int, settings: dict[str, int], expected: tuple[int, ...]
) -> None:
    found = compute_limits(Settings(**settings), files=files)  # type: ignore[arg-type]
    assert (*found.connections, *found.streams) == expected
