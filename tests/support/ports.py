"""Ports for services, which no other process takes before the service listens."""

from __future__ import annotations

import itertools
import os
import random
import socket
from pathlib import Path

# As the kernel writes it.
TCP_ESTABLISHED = "01"

# Below the ephemeral range of Linux (32768 to 60999). Another process could take a port of that range, which `bind(0)`
# returns, before a service starts or restarts.
FIRST, PORTS_PER_WORKER = 12_000, 2_000
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
# A random start, so that two test runs on one machine rarely try the same port.
_numbers = itertools.count(random.SystemRandom().randrange(PORTS_PER_WORKER))
_ports = (FIRST + _worker * PORTS_PER_WORKER + number % PORTS_PER_WORKER for number in _numbers)


def find_free_port() -> int:
    """Find a free port of loopback. Each call returns another one, which no other worker uses."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("the range of ports never ends")


def count_connections_to(port: int) -> int:
    """Count the established TCP connections of this machine to a port, as their clients see them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(remote.endswith(f":{port:04X}") and state == TCP_ESTABLISHED for _, _, remote, state, *_ in rows)
