"""Ports to listen on that nobody else takes between the choice and the listening."""

from __future__ import annotations

import itertools
import os
import random
import socket

# Below the range that Linux gives to connections going out (32768 to 60999): a port from that range, as `bind(0)` gives
# it, can be anybody's by the time that a service has started, or started again.
FIRST, SHARE = 12_000, 2_000
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
# From anywhere in this worker's share: two runs of the tests on one machine seldom meet, and then ask who is there.
_numbers = itertools.count(random.SystemRandom().randrange(SHARE))
_ports = (FIRST + _worker * SHARE + number % SHARE for number in _numbers)


def find_free_port() -> int:
    """A port of loopback on which nobody listens; another each time, and another than any other worker's."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("the numbers do not end")


# Earlier names, until all tests use the new ones.
free_port = find_free_port
