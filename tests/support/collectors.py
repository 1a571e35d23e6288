"""Servers that take I/O events as Elasticsearch and OpenTelemetry do, or hang, or refuse, as they are told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A path and a body come, a status and a body go.
Answer = Callable[[str, bytes, dict[str, str]], tuple[int, bytes]]


@contextmanager
def run_collector(answer: Answer) -> Iterator[int]:
    """Serve on a free port of loopback; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, said = answer(self.path, body, dict(self.headers))
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def run_silent_server() -> Iterator[int]:
    """A port on which connections come about and nothing is ever answered; yields the port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield int(listener.getsockname()[1])


def build_bulk_response(body: bytes, status_of: Callable[[int], int]) -> bytes:
    """What `_bulk` answers: for each event the status that its number is given."""
    count = len(body.splitlines()) // 2
    items = [{"create": {"status": status_of(number)}} for number in range(count)]
    errors = any(item["create"]["status"] >= 300 for item in items)
    return json.dumps({"errors": errors, "items": items}).encode()


# Earlier names, until all tests use the new ones.
collector = run_collector
silent_server = run_silent_server
bulk_answer = build_bulk_response
