"""The HTTP client of the sinks that post to a server."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx2

from confide.telemetry.events import Batch
from confide.telemetry.sinks.sink import IncompleteWrite

TIMEOUT_SECONDS = 10.0


class HttpSinkClient:
    """A client of the server of one sink. Credentials in the address become basic authentication."""

    def __init__(self, address: str, *, headers: dict[str, str] | None = None) -> None:
        # An address is the name of the sink, a plus and a URL.
        parts = urlsplit(address.partition("+")[2])
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._http = httpx2.Client(timeout=TIMEOUT_SECONDS, auth=auth, headers=headers)

    def post(self, url: str, content: bytes, *, content_type: str, batch: Batch) -> httpx2.Response:
        """Post an encoded batch.

        Raises `ConnectionError` on 429 and 5xx. Raises `IncompleteWrite` without retryable events on other errors.
        """
        response = self._http.post(url, content=content, headers={"Content-Type": content_type})
        if response.is_success:
            return response
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS or response.is_server_error:
            raise ConnectionError(response.status_code)
        raise IncompleteWrite([], rejected=len(batch.events), reason=f"HTTP {response.status_code}")

    def close(self) -> None:
        self._http.close()
