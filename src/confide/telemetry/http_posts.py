"""How a sink speaks HTTP: what shall be tried again and what will never be taken."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx2

from confide.telemetry.events import Batch
from confide.telemetry.sink_workers import RetryLater

SECONDS = 10.0


class HttpSinkClient:
    """Posts to one address; what stands before its host as user and password is sent as such."""

    def __init__(self, url: str, *, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._http = httpx2.Client(timeout=SECONDS, auth=auth, headers=headers)

    def post(self, url: str, content: bytes, *, content_type: str, batch: Batch) -> httpx2.Response:
        """Raises `RetryLater` with no events if the server rejects the batch for good, and another error otherwise."""
        answer = self._http.post(url, content=content, headers={"Content-Type": content_type})
        if answer.is_success:
            return answer
        if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS or answer.is_server_error:
            raise ConnectionError(answer.status_code)
        raise RetryLater([], rejected=len(batch.events), why=f"HTTP {answer.status_code}")

    def close(self) -> None:
        self._http.close()
