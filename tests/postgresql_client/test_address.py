"""Addresses of PostgreSQL: hosts, ports and parameters, as libpq reads them."""

from __future__ import annotations

import pytest

from confide.postgresql_client.address import Host, TcpOptions, parse_address
from support.canaries import make_canary


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://a/db", ["a:5432"]),
        ("postgresql://user:pw@a:6000/db", ["a:6000"]),
        ("postgresql://a,b:6000,c/db", ["a:5432", "b:6000", "c:5432"]),
        ("postgresql://user@[::1]:6000,[fe80::2]/db", ["[::1]:6000", "[fe80::2]:5432"]),
        ("postgresql://a,[::1]/db", ["a:5432", "[::1]:5432"]),
        ("postgresql://%2Frun%2Fpostgresql:6000/db", ["/run/postgresql:6000"]),
        ("postgresql:///db?host=/run,a&port=6000,6001", ["/run:6000", "a:6001"]),
        ("postgresql:///db?host=a,b&port=6000", ["a:6000", "b:6000"]),
        ("postgresql:///db?host=::1", ["[::1]:5432"]),
        ("postgresql://a/db?host=b", ["a:5432"]),
        ("postgresql://a,a/db", ["a:5432"]),
        ("postgresql:///db", []),
    ],
)
def test_the_hosts_of_an_address_are_those_of_libpq(url: str, hosts: list[str]) -> None:
    assert [str(host) for host in parse_address(url, environment={}).hosts] == hosts


def test_the_environment_completes_an_address() -> None:
    environment = {"PGHOST": "a,b", "PGPORT": "6000,6001", "PGCONNECT_TIMEOUT": "7", "PGLOADBALANCEHOSTS": "random"}
    found = parse_address("postgresql:///db", environment=environment)
    assert found.hosts == (Host("a", 6000), Host("b", 6001))
    assert (found.connect_seconds, found.is_load_balanced) == (7, True)
    assert parse_address("postgresql://c,d:1/db", environment={"PGPORT": "6000"}).hosts == (
        Host("c", 6000),
        Host("d", 1),
    )


def test_a_service_file_is_left_to_the_driver() -> None:
    found = parse_address("postgresql:///db?service=main", environment={"PGHOST": "a"})
    assert (found.hosts, found.url) == ((), "postgresql:///db?service=main")


def test_the_driver_gets_only_the_parameters_that_it_knows() -> None:
    url = (
        "postgresql://user:p%23w@a,b/my%20db?sslmode=require&connect_timeout=3&load_balance_hosts=random&keepalives=0"
        "&keepalives_idle=20&keepalives_interval=3&keepalives_count=2&tcp_user_timeout=9000&application_name=x"
    )
    found = parse_address(url, environment={})
    assert found.url == "postgresql://user:p%23w@/my%20db?sslmode=require&application_name=x"
    assert (found.database, found.connect_seconds, found.is_load_balanced) == ("my db", 3, True)
    assert found.tcp == TcpOptions(
        has_keepalives=False, idle_seconds=20, interval_seconds=3, max_probes=2, user_timeout_milliseconds=9000
    )


@pytest.mark.parametrize("timeout", ["0", "-1"])
def test_a_connect_timeout_without_a_limit_is_the_default(timeout: str) -> None:
    url = f"postgresql://a/db?connect_timeout={timeout}"
    assert parse_address(url, environment={}).connect_seconds == parse_address("postgresql://a/db").connect_seconds


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a:abc/db", "port"),
        ("a:70000/db", "port"),
        ("[::1/db", "brackets"),
        ("a,b,c/db?port=1,2", "2 ports for 3 hosts"),
        ("a/db?connect_timeout=soon", "connect_timeout"),
        ("a/db?load_balance_hosts=maybe", "load_balance_hosts"),
        ("a/db?target_session_attrs=standby", "read-write"),
        ("a/db?target_session_attrs=read-only", "read-write"),
        ("a/db?sslmode", "name=value"),
    ],
)
def test_an_invalid_address_is_explained_without_quoting_it(place: str, message: str) -> None:
    password = make_canary("password")
    with pytest.raises(ValueError, match=message) as caught:
        parse_address(f"postgresql://user:{password}@{place}", environment={})
    assert password not in str(caught.value)
    assert password not in repr(parse_address(f"postgresql://user:{password}@a/db"))
