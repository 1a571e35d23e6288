"""Servers that receive I/O events like Elasticsearch and OpenTelemetry, or never answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Maps the path, body and headers of a request to the status and body of its response.
Answer = Callable[[str, bytes, dict[str, str]], tuple[int, bytes]]


@contextmanager
def run_collector(answer: Answer) -> Iterator[int]:
    """Serve on a free port of loopback. Yield the port."""

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
            """Log nothing."""

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
    """Accept connections and never answer. Yield the port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield int(listener.getsockname()[1])


def build_bulk_response(body: bytes, status_of: Callable[[int], int]) -> bytes:
    """Build a response of `_bulk` with a status for each event number."""
    count = len(body.splitlines()) // 2
    items = [{"create": {"status": status_of(number)}} for number in range(count)]
    errors = any(item["create"]["status"] >= 300 for item in items)
    return json.dumps({"errors": errors, "items": items}).encode()
