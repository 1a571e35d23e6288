"""The sinks `elasticsearch` and `opensearch`. Both servers accept the same `_bulk` requests."""

from __future__ import annotations

import json
from http import HTTPStatus
from urllib.parse import urlsplit, urlunsplit

from confide.telemetry.events import Batch, Event, build_documents
from confide.telemetry.sinks.http_client import HttpSinkClient
from confide.telemetry.sinks.sink import IncompleteWrite, SinkOptions

DEFAULT_INDEX = "confide-io"


class ElasticsearchSink:
    """Documents in an index, one per event. Each has a status of its own: a response of 200 can contain failures."""

    def __init__(self, options: SinkOptions) -> None:
        self.name = urlsplit(options.address).scheme.partition("+")[0]
        self._client = HttpSinkClient(options.address)
        parts = urlsplit(self._client.url)
        index = parts.path.strip("/") or DEFAULT_INDEX
        self._bulk_url = urlunsplit(parts._replace(path=f"/{index}/_bulk", query="", fragment=""))

    def write(self, batch: Batch) -> None:
        lines = []
        for document in build_documents(batch):
            # With an ID of ours, a batch that is sent again after a lost response creates no duplicates.
            lines.append(json.dumps({"create": {"_id": f"{document['id']:x}"}}))
            document["@timestamp"] = document["began_at"] // 1_000
            lines.append(json.dumps(document))
        content = ("\n".join(lines) + "\n").encode()
        response = self._client.post(self._bulk_url, content, content_type="application/x-ndjson", batch=batch).json()
        if response.get("errors"):
            _require_created(batch.events, [item["create"]["status"] for item in response["items"]])

    def close(self) -> None:
        self._client.close()


def _require_created(events: list[Event], statuses: list[int]) -> None:
    """Raise `IncompleteWrite` unless each event was created, now or earlier (409)."""
    retryable: list[Event] = []
    rejected: dict[int, int] = {}
    for event, status in zip(events, statuses, strict=True):
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            retryable.append(event)
        elif status >= HTTPStatus.BAD_REQUEST and status != HTTPStatus.CONFLICT:
            rejected[status] = rejected.get(status, 0) + 1
    if retryable or rejected:
        reason = ", ".join(f"{count} with {status}" for status, count in rejected.items())
        raise IncompleteWrite(
            retryable, rejected=sum(rejected.values()), reason=reason or f"{len(retryable)} must be sent again"
        )
