"""A client with many connections does not keep others from the service. Each service here has few open files."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

from support.certificates import create_certificate
from support.processes import Service, run_service
from support.raw_http import Reply, build_request, parse_replies
from support.waiting import wait_until

FILES = 256
CONNECTIONS, STREAMS, STREAMS_OF_A_TOKEN = 176, 132, 66
FLOOD = 300
UNTAKEN_SECONDS, HANDSHAKE_SECONDS = 1.0, 0.5
PROGRAM = (
    "-c",
    f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES - 56}, {FILES}))
import confide.web.listener as listener
listener.MAX_UNTAKEN_SECONDS, listener.MAX_HANDSHAKE_SECONDS = {UNTAKEN_SECONDS}, {HANDSHAKE_SECONDS}
runpy.run_module("confide", run_name="__main__")
""",
)


@contextmanager
def run_with_few_files(folder: Path, *args: str, **env: str) -> Iterator[Service]:
    with run_service(folder, *args, program=PROGRAM, env={"CONFIDE_METRICS": "open", **env}) as service:
        yield service


def connect(service: Service, stack: ExitStack, *, address: str = "127.0.0.1", data: bytes = b"") -> socket.socket:
    """Open a connection from an address of this machine, and send data."""
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=30, source_address=(address, 0))
    stack.enter_context(connection)
    connection.sendall(data)
    return connection


def exchange(service: Service, path: str, *, token: str | None = None, address: str = "127.0.0.1") -> Reply:
    headers = [] if token is None else [("Authorization", f"Bearer {token}")]
    with ExitStack() as stack:
        connection = connect(service, stack, address=address, data=build_request("GET", path, headers))
        data = b""
        while more := connection.recv(65_536):
            data += more
    (reply,) = parse_replies(data)
    return reply


def count_open(service: Service) -> int:
    page = httpx2.get(f"{service.url}/metrics", timeout=30).text
    return int(float(page.split("\nconfide_open_connections ")[1].split()[0]))


def start_stream(service: Service, stack: ExitStack, token: str) -> bytes:
    """Start a watch stream. Return the first line of the response."""
    request = build_request("GET", "/watch", [("Authorization", f"Bearer {token}")], closes=False)
    return connect(service, stack, data=request).recv(4_096).split(b"\r\n")[0]


def test_idle_connections_make_room_for_callers_of_the_same_and_of_other_addresses(tmp_path: Path) -> None:
    with run_with_few_files(tmp_path) as service, ExitStack() as stack:
        token = service.add_admin()
        assert f"{FILES} open files, raised from {FILES - 56}; per worker {CONNECTIONS} connections" in (
            service.log.read_text()
        )
        for _ in range(FLOOD):
            connect(service, stack)
        for address in ("127.0.0.1", "127.0.0.2"):
            statuses = [exchange(service, "/users", token=token, address=address).status for _ in range(10)]
            assert statuses == [200] * 10
        assert count_open(service) <= CONNECTIONS


def test_a_token_opens_no_more_streams_than_its_limit_and_others_still_can(tmp_path: Path) -> None:
    with run_with_few_files(tmp_path, CONFIDE_MAX_CONNECTIONS_PER_ADDRESS="176") as service, ExitStack() as stack:
        greedy, other = service.add_admin(), service.login()
        lines = [start_stream(service, stack, greedy) for _ in range(STREAMS_OF_A_TOKEN + 2)]
        assert lines == [b"HTTP/1.1 200 OK"] * STREAMS_OF_A_TOKEN + [b"HTTP/1.1 429 Too Many Requests"] * 2
        refused = exchange(service, "/watch?wait=1", token=greedy)
        assert (refused.json()["code"], refused.header("retry-after")) == ("too-many-streams", "5")
        others = [start_stream(service, stack, other) for _ in range(STREAMS - STREAMS_OF_A_TOKEN)]
        assert set(others) == {b"HTTP/1.1 200 OK"}
        assert exchange(service, "/users", token=other).status == 200


def test_health_is_answered_while_all_connections_are_busy(tmp_path: Path) -> None:
    with run_with_few_files(tmp_path) as service, ExitStack() as stack:
        token = service.add_admin()
        incomplete = build_request("POST", "/login", [("Content-Type", "application/json")], b"{}")[:-1]
        for number in range(CONNECTIONS):
            connect(service, stack, address=f"127.0.0.{number % 4 + 2}", data=incomplete)
        wait_until(lambda: exchange(service, "/users", token=token).status == 503, "all connections are busy")
        refused = exchange(service, "/users", token=token)
        assert (refused.json()["code"], refused.header("retry-after")) == ("too-many-connections", "5")
        cached = exchange(service, "/config?tenant=acme&integration_type=crm", token=token)
        assert cached.json()["code"] == "too-many-connections"
        for _ in range(FLOOD // 10):  # more than the reserved places, and none of them says anything
            connect(service, stack, address="127.0.0.9")
        for path in ("/health/live", "/health/ready", "/metrics"):
            reply = exchange(service, path)
            assert (reply.status, reply.header("connection")) == (200, "close")
        assert "connections-refused" in exchange(service, "/health/ready").json()["reasons"]
        assert "connections_refused address=" in service.log.read_text()


def test_a_client_that_takes_nothing_is_disconnected(tmp_path: Path) -> None:
    with run_with_few_files(tmp_path) as service, ExitStack() as stack:
        requests = build_request("GET", "/openapi.json", [], closes=False) * 50
        for _ in range(3):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.connect(("127.0.0.1", service.port))
            connection.sendall(requests)
        wait_until(lambda: count_open(service) == 1, "only the connection of the metrics is open")
        assert exchange(service, "/openapi.json").status == 200


def test_a_client_that_is_mute_in_its_tls_handshake_is_disconnected(tmp_path: Path) -> None:
    cert, key = create_certificate(tmp_path)
    service = Service(tmp_path, "--tls-cert", str(cert), "--tls-key", str(key), program=PROGRAM)
    service.launch()
    try:
        wait_until(lambda: can_connect(service), "the service listens")
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as mute:
            assert receive_until_closed(mute) == b""
        with httpx2.Client(verify=ssl.create_default_context(cafile=str(cert)), timeout=30) as client:
            assert client.get(f"https://localhost:{service.port}/health/live").status_code == 200
    finally:
        service.end()


def can_connect(service: Service) -> bool:
    try:
        socket.create_connection(("127.0.0.1", service.port)).close()
    except OSError:
        return False
    return True


def receive_until_closed(connection: socket.socket) -> bytes:
    data = b""
    try:
        while more := connection.recv(4_096):
            data += more
    except ConnectionResetError:
        pass
    return data
