"""The limits of a worker that follow from its number of open files."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import NamedTuple

from confide.server.settings import Settings
from confide.web.connections import RESERVED_CONNECTIONS, ConnectionLimits

# The limit of a worker with many open files: idle connections also take memory.
DEFAULT_CONNECTIONS = 20_000
DEFAULT_STREAMS_OF_A_TOKEN = 2_000
# Stands for an infinite limit. More have no effect on the limits below.
MAX_FILES = 1_048_576
# Files of the database, of the change feed, of logs and sinks, and of the interpreter.
FILES_OF_SERVICE = 128
FILES_OF_POOL_CONNECTION = 2


class FileLimit(NamedTuple):
    """The number of open files that the operating system allows this process, and before it was raised."""

    before: int
    now: int


class StreamLimits(NamedTuple):
    """How many watchers a worker has at most, and how many of them one token."""

    streams: int
    streams_of_a_token: int


class Limits(NamedTuple):
    """All limits of a worker."""

    connections: ConnectionLimits
    streams: StreamLimits


def raise_file_limit() -> FileLimit:
    """Raise the soft limit of open files to the hard limit. The workers inherit it."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before != hard:
        with suppress(ValueError, OSError):  # the system does not allow it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return FileLimit(_bound(before), read_file_limit())


def compute_limits(settings: Settings, *, files: int) -> Limits:
    """Compute the limits of a worker with so many open files. A quarter of a small number stays for the service.

    The streams get three quarters of the connections, so that other requests have a quarter. Without settings, one
    address gets half of the connections, and one token at most half of the streams.
    """
    reserve = min(FILES_OF_SERVICE + FILES_OF_POOL_CONNECTION * settings.pool_size, files // 4) + RESERVED_CONNECTIONS
    connections = min(settings.max_connections or DEFAULT_CONNECTIONS, max(files - reserve, 1))
    of_an_address = min(settings.max_connections_per_address or max(connections // 2, 1), connections)
    streams = max(connections * 3 // 4, 1)
    of_a_token = min(settings.max_streams_per_token or min(DEFAULT_STREAMS_OF_A_TOKEN, max(streams // 2, 1)), streams)
    return Limits(ConnectionLimits(connections, of_an_address), StreamLimits(streams, of_a_token))


def read_file_limit() -> int:
    """Return the number of open files that the operating system allows this process."""
    return _bound(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _bound(files: int) -> int:
    return MAX_FILES if files == resource.RLIM_INFINITY else min(files, MAX_FILES)
