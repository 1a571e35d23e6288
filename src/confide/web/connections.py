"""The open connections of a worker, and the limits on their number."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

from confide.clock import read_boot_clock
from confide.networks import find_network

# Beyond the limits, for health checks and for an error to every other caller.
RESERVED_CONNECTIONS = 16
# A connection that completed a request within this time is not closed for another one.
MIN_IDLE_SECONDS = 1.0
# Of the oldest connections, so that each new one costs the same.
MAX_CHECKED = 16
REPORT_SECONDS = 60.0

_log = logging.getLogger("confide")


class ConnectionLimits(NamedTuple):
    """The limits of one worker."""

    connections: int
    connections_of_an_address: int


class OpenConnection(Protocol):
    """What the limits need of a connection."""

    def is_idle(self, *, since: float) -> bool:
        """Return whether the connection has no request, and completed none since a time of the boot-time clock."""

    def end(self) -> None:
        """Close the connection for another one."""


class Slot:
    """The place of one connection. Without a connection, its TLS handshake is in progress."""

    __slots__ = ("_connections", "address", "connection", "end_handshake", "is_reserved")

    def __init__(self, connections: Connections, address: str | None, *, is_reserved: bool) -> None:
        self._connections = connections
        # None if the limit of one address does not apply.
        self.address = address
        self.is_reserved = is_reserved
        self.connection: OpenConnection | None = None
        self.end_handshake: Callable[[], object] = lambda: None

    def release(self) -> None:
        self._connections.remove(self)

    def is_idle(self, *, since: float) -> bool:
        return self.connection is None or self.connection.is_idle(since=since)

    def end(self) -> None:
        self.release()
        if self.connection is None:
            self.end_handshake()
        else:
            self.connection.end()


class Connections:
    """Counts connections, and makes room for a new one by closing one that is idle.

    A connection above the limits gets one of the reserved places. It can only check health, and gets an error for any
    other request.
    """

    def __init__(self, limits: ConnectionLimits, *, is_proxy: Callable[[str], bool]) -> None:
        self.limits = limits
        self.refused = 0
        self._is_proxy = is_proxy
        # The connection that was open the longest, or was checked last, is the first or the last one.
        self._slots: OrderedDict[Slot, None] = OrderedDict()
        self._by_address: dict[str, OrderedDict[Slot, None]] = {}
        self._reserved: OrderedDict[Slot, None] = OrderedDict()
        self._reported_at = self._refused_at = float("-inf")

    def __len__(self) -> int:
        return len(self._slots) + len(self._reserved)

    def is_refusing(self) -> bool:
        """Return whether a connection above a limit was refused within `REPORT_SECONDS`."""
        return read_boot_clock() < self._refused_at + REPORT_SECONDS

    def add(self, peer: str | None) -> Slot:
        """Return a place for a connection of this peer. End an idle one if there is no other place."""
        network = None if peer is None or self._is_proxy(peer) else find_network(peer)
        if not self._has_place(network):
            return self._add_reserved(peer)
        slot = Slot(self, network, is_reserved=False)
        self._slots[slot] = None
        if network is not None:
            self._by_address.setdefault(network, OrderedDict())[slot] = None
        return slot

    def remove(self, slot: Slot) -> None:
        """Remove a place. A place that was removed before is ignored."""
        self._reserved.pop(slot, None)
        self._slots.pop(slot, None)
        if slot.address is not None and (same := self._by_address.get(slot.address)) is not None:
            same.pop(slot, None)
            if not same:
                del self._by_address[slot.address]

    def _has_place(self, network: str | None) -> bool:
        same = None if network is None else self._by_address.get(network)
        if same is not None and len(same) >= self.limits.connections_of_an_address and not _end_idle(same):
            return False
        return len(self._slots) < self.limits.connections or _end_idle(self._slots)

    def _add_reserved(self, peer: str | None) -> Slot:
        self.refused += 1
        self._refused_at = now = read_boot_clock()
        if now >= self._reported_at + REPORT_SECONDS:
            self._reported_at = now
            _log.warning("connections_refused address=%s open=%d refused=%d", peer, len(self), self.refused)
        if len(self._reserved) >= RESERVED_CONNECTIONS:
            next(iter(self._reserved)).end()
        slot = Slot(self, None, is_reserved=True)
        self._reserved[slot] = None
        return slot


def _end_idle(slots: OrderedDict[Slot, None]) -> bool:
    """End one of the oldest connections that is idle. Return False if none of them is."""
    since = read_boot_clock() - MIN_IDLE_SECONDS
    for _ in range(min(MAX_CHECKED, len(slots))):
        slot = next(iter(slots))
        if slot.is_idle(since=since):
            slot.end()
            return True
        slots.move_to_end(slot)
    return False
