"""The PostgreSQL that the environment chooses for the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from support.distribution import DistributionServer
from support.postgres import BINARIES, DISTRIBUTION, LocalPostgresServer, OwnPostgresServer, PostgresServer

# The URL of a running server, with a role that may create databases and roles. A choice of binaries comes first.
RUNNING = "CONFIDE_TEST_DATABASE"


def is_distribution_chosen() -> bool:
    return os.environ.get(BINARIES) == DISTRIBUTION


def find_running_server() -> str | None:
    return None if BINARIES in os.environ else os.environ.get(RUNNING)


def open_shared_server() -> PostgresServer:
    """Return the running server that the environment names, or start one."""
    if url := find_running_server():
        return PostgresServer(url)
    server = DistributionServer(is_in_memory=True) if is_distribution_chosen() else LocalPostgresServer()
    server.start()
    return server


@contextmanager
def run_own_server() -> Iterator[OwnPostgresServer]:
    """Run a durable server that only this test uses, and may stop."""
    server = DistributionServer() if is_distribution_chosen() else LocalPostgresServer(options=())
    try:
        server.start()
        yield server
    finally:
        server.remove()
