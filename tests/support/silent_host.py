"""Hosts that never answer: one that accepts connections, as a frozen server does, and one that drops their packets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# The system queues at most a few connections for a listener with the smallest backlog, and drops the packets of others.
MAX_QUEUED = 16


@contextmanager
def open_silent_port(*, host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Listen without ever reading or answering. Return the port."""
    with socket.create_server((host, port), backlog=512) as listener:
        yield int(listener.getsockname()[1])


@contextmanager
def open_unreachable_port() -> Iterator[int]:
    """Listen with a full backlog, so that the packets of every new connection are lost. Return the port."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(MAX_QUEUED):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])
