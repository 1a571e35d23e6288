"""A minimal ASGI application that answers a constant."""

from __future__ import annotations

import os
from typing import Any

BODY = os.environ.get("BENCH_BODY", "{}").encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})
