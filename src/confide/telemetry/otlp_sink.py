"""Events as spans, by OTLP over HTTP (OpenTelemetry protocol 1.x, protobuf)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import unquote

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from confide.telemetry.events import (
    AMOUNT,
    BEGAN,
    ENDED,
    ID,
    OPERATION,
    OUTCOME,
    PARENT,
    PARENT_SPAN,
    REQUEST_ID,
    TRACE_ID,
    USER_ID,
    Batch,
    Event,
)
from confide.telemetry.histograms import is_error, is_whole
from confide.telemetry.http_posts import HttpSinkClient
from confide.telemetry.sink_workers import RetryLater

# The variable that every sender of OTLP reads: `name=value,name=value`, percent-encoded.
HEADERS_VARIABLE = "OTEL_EXPORTER_OTLP_HEADERS"
DEFAULT_PATH = "/v1/traces"


class OtlpSink:
    """One span an event, in the caller's trace where it sent one."""

    name = "otlp"

    def __init__(self, url: str) -> None:
        given = (part.partition("=") for part in os.environ.get(HEADERS_VARIABLE, "").split(",") if "=" in part)
        headers = {name.strip(): unquote(value.strip()) for name, _, value in given}
        self._poster = HttpSinkClient(url, headers=headers)
        has_path = self._poster.url.count("/") > 2  # noqa: PLR2004 - after the two of the scheme
        self._url = self._poster.url if has_path else self._poster.url + DEFAULT_PATH

    def write(self, batch: Batch) -> None:
        resource = Resource(attributes=_attributes({"service.name": "confide", "service.instance.id": batch.worker}))
        spans = ScopeSpans(
            scope=InstrumentationScope(name="confide.iolog"), spans=_spans(batch.events, wall_ns=batch.wall_ns)
        )
        request = ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[spans])])
        content = request.SerializeToString()
        answer = self._poster.post(self._url, content, content_type="application/x-protobuf", batch=batch)
        rejected = ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans
        if rejected:
            raise RetryLater([], rejected=rejected, why=f"{rejected} spans were rejected")

    def close(self) -> None:
        self._poster.close()


def _spans(events: Iterable[Event], *, wall_ns: int) -> list[Span]:
    return [
        Span(
            trace_id=trace_id_of(event),
            span_id=event[ID].to_bytes(8, "big"),
            parent_span_id=_parent(event),
            name=event[OPERATION],
            kind=Span.SPAN_KIND_SERVER if is_whole(event[OPERATION]) else Span.SPAN_KIND_CLIENT,
            start_time_unix_nano=event[BEGAN] + wall_ns,
            end_time_unix_nano=event[ENDED] + wall_ns,
            attributes=_attributes(
                {
                    "confide.outcome": event[OUTCOME],
                    "confide.amount": event[AMOUNT],
                    "confide.request_id": event[REQUEST_ID],
                    "confide.user_id": event[USER_ID],
                }
            ),
            status=Status(code=Status.STATUS_CODE_ERROR if is_error(event[OUTCOME]) else Status.STATUS_CODE_UNSET),
        )
        for event in events
    ]


def trace_id_of(event: Event) -> bytes:
    """The caller's trace; without one the request is a trace of its own, and so is what was done for none."""
    if event[TRACE_ID] is not None:
        return bytes.fromhex(event[TRACE_ID])
    own = event[REQUEST_ID] or f"{event[ID]:016x}"
    return bytes.fromhex(own.rjust(32, "0"))


def _parent(event: Event) -> bytes:
    if event[PARENT] is not None:
        return event[PARENT].to_bytes(8, "big")
    return bytes.fromhex(event[PARENT_SPAN]) if event[PARENT_SPAN] else b""


def _attributes(values: dict[str, str | int | None]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
        if value is not None
    ]
