"""Connecting to an address with several hosts, of which some are silent, down, read-only or slow."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop

from confide.errors import DatabaseReadOnly, DatabaseUnavailable
from confide.postgresql_client.connector import ConnectFailed, Connection, Connector, OpenConnection
from support.bounds import assert_within
from support.certificates import create_certificate
from support.ports import count_connections_to, find_free_port
from support.postgres import LocalPostgresServer, PostgresServer, find_distribution_binaries
from support.proxy import Proxy
from support.silent_host import open_silent_port, open_unreachable_port
from support.waiting import wait_until_async

# A silent host may delay another one by a fraction of a second.
MAX_DELAY_SECONDS = 0.8


async def accept(_connection: Connection, _open_another: OpenConnection) -> None:
    """Accept every connection."""


async def require_primary(connection: Connection, _open_another: OpenConnection) -> None:
    if await connection.fetchval("SELECT current_setting('transaction_read_only')::boolean"):
        raise DatabaseReadOnly


@contextmanager
def open_down_port() -> Iterator[int]:
    yield find_free_port()


@asynccontextmanager
async def connecting(
    postgres: PostgresServer, hosts: str, *, parameters: str = "", set_up: Any = accept
) -> AsyncIterator[tuple[Connector, Connection]]:
    """Connect to `hosts` of the server's address."""
    account = urlsplit(postgres.url("postgres")).netloc.rpartition("@")[0]
    connector = Connector(f"postgresql://{account}@{hosts}/postgres{parameters}", set_up=set_up)
    connection = await connector.connect()
    try:
        yield connector, connection
    finally:
        await connection.close()


@pytest.mark.parametrize("open_port", [open_silent_port, open_unreachable_port, open_down_port])
async def test_a_first_host_that_does_not_answer_delays_the_next_one_by_a_fraction_of_a_second(
    postgres: PostgresServer, open_port: Callable[[], Any]
) -> None:
    with open_port() as port:
        start = time.monotonic()
        async with connecting(postgres, f"127.0.0.1:{port},{postgres.host}:{postgres.port}") as (connector, connection):
            assert_within(time.monotonic() - start, MAX_DELAY_SECONDS, "connecting past a silent host")
            assert await connection.fetchval("SELECT 1") == 1
            # The host that worked is now the first one.
            start = time.monotonic()
            again = await connector.connect()
            assert_within(time.monotonic() - start, 0.2, "connecting again")
            await again.close()


async def test_several_silent_hosts_do_not_add_up_to_the_limit_of_one(postgres: PostgresServer) -> None:
    with open_silent_port() as first, open_unreachable_port() as second:
        start = time.monotonic()
        hosts = f"127.0.0.1:{first},127.0.0.1:{second},{postgres.host}:{postgres.port}"
        async with connecting(postgres, hosts):
            assert_within(time.monotonic() - start, 2 * MAX_DELAY_SECONDS, "connecting past two silent hosts")


async def test_a_silent_address_of_a_name_does_not_delay_the_others(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def resolve_to_several(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if host != "database.test":
            return resolve(host, port, *args, **more)
        # Nothing listens on the second address, and the first one is silent.
        return [info for ip in ("127.0.0.2", "127.0.0.3", postgres.host) for info in resolve(ip, port, *args, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_to_several)
    with open_silent_port(host="127.0.0.2", port=postgres.port):
        start = time.monotonic()
        async with connecting(postgres, f"database.test:{postgres.port}") as (_, connection):
            assert_within(time.monotonic() - start, MAX_DELAY_SECONDS, "connecting past a silent address")
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_silent_host_gets_another_attempt_before_the_first_one_ends(postgres: PostgresServer) -> None:
    proxy = Proxy(postgres.port, host=postgres.host)
    await proxy.start()
    proxy.stall()
    account = urlsplit(postgres.url("postgres")).netloc.rpartition("@")[0]
    url = f"postgresql://{account}@127.0.0.1:{proxy.port}/postgres?connect_timeout=100"
    connecting = asyncio.create_task(Connector(url, set_up=accept).connect())
    await wait_until_async(lambda: proxy.accepted, "the first attempt")
    # The first attempt stays silent. Only later connections pass.
    proxy.release_new()
    start = time.monotonic()
    connection = await connecting
    assert_within(time.monotonic() - start, 1.0, "an attempt over a path that is back")
    await connection.close()
    await proxy.stop()


async def test_attempts_that_lose_are_closed(postgres: PostgresServer) -> None:
    proxies = [Proxy(postgres.port, host=postgres.host) for _ in range(3)]
    for proxy in proxies:
        await proxy.start()
    for proxy in proxies[:2]:
        proxy.stall()
    hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
    async with connecting(postgres, hosts):
        await wait_until_async(
            lambda: [count_connections_to(proxy.port) for proxy in proxies] == [0, 0, 1], "one open connection"
        )
    for proxy in proxies:
        await proxy.stop()


async def test_a_read_only_host_is_skipped_while_another_one_can_store(postgres: PostgresServer) -> None:
    database = postgres.new_database().rsplit("/", 1)[1]
    account = urlsplit(postgres.url("postgres")).netloc.rpartition("@")[0]
    hosts = f"{postgres.host}:{postgres.port},localhost:{postgres.port}"
    seen: list[Connection] = []

    async def reject_first(connection: Connection, _open_another: OpenConnection) -> None:
        seen.append(connection)
        if len(seen) == 1:
            raise DatabaseReadOnly

    connector = Connector(f"postgresql://{account}@{hosts}/{database}", set_up=reject_first)
    connection = await connector.connect()
    assert len(seen) == 2
    assert seen[0].is_closed()
    await connection.close()


async def test_connections_go_to_the_first_host_or_to_any_host_if_load_is_balanced(postgres: PostgresServer) -> None:
    proxies = [Proxy(postgres.port, host=postgres.host) for _ in range(2)]
    for proxy in proxies:
        await proxy.start()
    hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
    for _ in range(10):
        async with connecting(postgres, hosts):
            pass
    assert [proxy.accepted for proxy in proxies] == [10, 0]
    for _ in range(40):
        async with connecting(postgres, hosts, parameters="?load_balance_hosts=random"):
            pass
    assert min(proxy.accepted - before for proxy, before in zip(proxies, (10, 0), strict=True)) > 0
    for proxy in proxies:
        await proxy.stop()


async def test_the_error_names_every_host_and_its_reason(postgres: PostgresServer) -> None:
    down = find_free_port()
    account = urlsplit(postgres.url("postgres")).netloc.rpartition("@")[0]
    with open_silent_port() as silent:
        url = f"postgresql://{account}@127.0.0.1:{silent},127.0.0.1:{down},{postgres.host}:{postgres.port}/no_database"
        start = time.monotonic()
        with pytest.raises(ConnectFailed) as caught:
            await Connector(url, set_up=accept).connect()
        assert_within(time.monotonic() - start, 2.5, "the failure of all hosts")
    text = str(caught.value)
    assert f"127.0.0.1:{silent}: no answer within 1.5 s" in text
    assert f"127.0.0.1:{down}: " in text
    assert 'database "no_database" does not exist' in text


async def test_a_target_session_attribute_without_a_match_is_an_error(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    postgres.execute(f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET default_transaction_read_only = on")
    with pytest.raises(ConnectFailed, match="read-write"):
        await Connector(f"{url}?target_session_attrs=read-write", set_up=accept).connect()


async def test_a_unix_socket_and_the_options_of_sockets_work() -> None:
    server = LocalPostgresServer()
    server.start()
    try:
        folder = server.data.parent
        url = f"postgresql://confide@/postgres?host={folder}&port={server.port}"
        over_socket = await Connector(url, set_up=accept).connect()
        assert await over_socket.fetchval("SELECT inet_client_addr()") is None
        await over_socket.close()
        connector = Connector(f"{server.url('postgres')}?keepalives_idle=7&tcp_user_timeout=6000", set_up=accept)
        connection: Any = await connector.connect()
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 6000
        await connection.close()
    finally:
        server.remove()


def test_the_event_loop_of_the_service_connects_with_and_without_tls() -> None:
    options = ("ssl=on", "ssl_cert_file=cert.pem", "ssl_key_file=key.pem")
    server = LocalPostgresServer(options=options, binaries=find_distribution_binaries())
    certificate, key = create_certificate(server.data)
    for file in (certificate, key):
        server.own(file)
    server.start()
    try:
        with open_silent_port() as silent:
            url = f"postgresql://confide@127.0.0.1:{silent},localhost:{server.port}/postgres"
            for mode, is_encrypted in (("disable", False), ("prefer", True), ("verify-full", True)):
                connecting = is_connection_encrypted(f"{url}?sslmode={mode}&sslrootcert={certificate}")
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    assert runner.run(connecting) is is_encrypted
        # The certificate is for another name.
        url = f"postgresql://confide@127.0.0.1:{server.port}/postgres"
        with pytest.raises(ConnectFailed, match="certificate"), asyncio.Runner() as runner:
            runner.run(is_connection_encrypted(f"{url}?sslmode=verify-full&sslrootcert={certificate}"))
    finally:
        server.remove()


async def is_connection_encrypted(url: str) -> bool:
    connection = await Connector(url, set_up=accept).connect()
    try:
        return bool(await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    finally:
        await connection.close()


async def test_a_cancelled_attempt_leaves_nothing_open(postgres: PostgresServer) -> None:
    proxy = Proxy(postgres.port, host=postgres.host)
    await proxy.start()
    proxy.stall()
    account = urlsplit(postgres.url("postgres")).netloc.rpartition("@")[0]
    connector = Connector(f"postgresql://{account}@127.0.0.1:{proxy.port}/postgres", set_up=accept)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.7):
            await connector.connect()
    assert proxy.accepted == 2
    await wait_until_async(lambda: count_connections_to(proxy.port) == 0, "no open connection")
    await proxy.stop()


async def test_an_unknown_host_is_named() -> None:
    with pytest.raises(ConnectFailed, match="nowhere\\.invalid"):
        await Connector("postgresql://confide@nowhere.invalid/db", set_up=accept).connect()


def test_an_unusable_address_is_rejected_at_once() -> None:
    with pytest.raises(ValueError, match="port"):
        Connector("postgresql://a:b/c", set_up=accept)
    assert issubclass(DatabaseReadOnly, DatabaseUnavailable)
