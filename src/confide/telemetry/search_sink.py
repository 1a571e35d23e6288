"""Events in an index of Elasticsearch or OpenSearch, which take the same `_bulk` requests."""

from __future__ import annotations

import json
from http import HTTPStatus
from urllib.parse import urlsplit, urlunsplit

from confide.telemetry.events import Batch, Event, documents
from confide.telemetry.http_posts import HttpSinkClient
from confide.telemetry.sink_workers import RetryLater

DEFAULT_INDEX = "confide-io"


class SearchSink:
    """Reads what became of each event: an answer of 200 can hold failures."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        parts = urlsplit(url)
        index = parts.path.strip("/") or DEFAULT_INDEX
        self._poster = HttpSinkClient(url)
        root = urlsplit(self._poster.url)
        self._bulk = urlunsplit(root._replace(path=f"/{index}/_bulk", query="", fragment=""))

    def write(self, batch: Batch) -> None:
        lines = []
        for document in documents(batch):
            # An id of ours: what was taken before an answer was lost is not taken twice.
            lines.append(json.dumps({"create": {"_id": f"{document['id']:x}"}}))
            document["@timestamp"] = document["began_at"] // 1_000
            lines.append(json.dumps(document))
        content = ("\n".join(lines) + "\n").encode()
        answer = self._poster.post(self._bulk, content, content_type="application/x-ndjson", batch=batch).json()
        if answer.get("errors"):
            _must_be_taken(batch.events, [item["create"]["status"] for item in answer["items"]])

    def close(self) -> None:
        self._poster.close()


def _must_be_taken(events: list[Event], statuses: list[int]) -> None:
    again: list[Event] = []
    rejected: dict[int, int] = {}
    for event, status in zip(events, statuses, strict=True):
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            again.append(event)
        elif status >= HTTPStatus.BAD_REQUEST and status != HTTPStatus.CONFLICT:
            rejected[status] = rejected.get(status, 0) + 1
    if again or rejected:
        refused = ", ".join(f"{count} with {status}" for status, count in rejected.items())
        raise RetryLater(again, rejected=sum(rejected.values()), why=refused or f"{len(again)} are to be sent again")
