"""The sink `otlp`: spans by OTLP over HTTP (OpenTelemetry protocol 1.x, protobuf)."""

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
    BEGAN_NS,
    ENDED_NS,
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
from confide.telemetry.histograms import is_error, is_request
from confide.telemetry.sinks.http_client import HttpSinkClient
from confide.telemetry.sinks.sink import IncompleteWrite, SinkOptions

# The standard variable of OTLP exporters: `name=value,name=value`, percent-encoded.
HEADERS_VARIABLE = "OTEL_EXPORTER_OTLP_HEADERS"
DEFAULT_PATH = "/v1/traces"


class OtlpSink:
    """Spans, one per event. They join the trace of the client if the request names one."""

    name = "otlp"

    def __init__(self, options: SinkOptions) -> None:
        pairs = (part.partition("=") for part in os.environ.get(HEADERS_VARIABLE, "").split(",") if "=" in part)
        headers = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
        self._client = HttpSinkClient(options.address, headers=headers)
        has_path = self._client.url.count("/") > 2  # noqa: PLR2004 - the scheme has two
        self._url = self._client.url if has_path else self._client.url + DEFAULT_PATH

    def write(self, batch: Batch) -> None:
        resource = Resource(
            attributes=_build_attributes({"service.name": "confide", "service.instance.id": batch.worker})
        )
        spans = ScopeSpans(
            scope=InstrumentationScope(name="confide.iolog"),
            spans=_build_spans(batch.events, clock_offset_ns=batch.clock_offset_ns),
        )
        request = ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[spans])])
        content = request.SerializeToString()
        response = self._client.post(self._url, content, content_type="application/x-protobuf", batch=batch)
        rejected = ExportTraceServiceResponse.FromString(response.content).partial_success.rejected_spans
        if rejected:
            raise IncompleteWrite([], rejected=rejected, reason=f"{rejected} spans were rejected")

    def close(self) -> None:
        self._client.close()


def _build_spans(events: Iterable[Event], *, clock_offset_ns: int) -> list[Span]:
    return [
        Span(
            trace_id=_build_trace_id(event),
            span_id=event[ID].to_bytes(8, "big"),
            parent_span_id=_build_parent_span_id(event),
            name=event[OPERATION],
            kind=Span.SPAN_KIND_SERVER if is_request(event[OPERATION]) else Span.SPAN_KIND_CLIENT,
            start_time_unix_nano=event[BEGAN_NS] + clock_offset_ns,
            end_time_unix_nano=event[ENDED_NS] + clock_offset_ns,
            attributes=_build_attributes(
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


def _build_trace_id(event: Event) -> bytes:
    """Return the trace ID of the client. Without one, pad the request ID, or the event ID outside of requests."""
    if event[TRACE_ID] is not None:
        return bytes.fromhex(event[TRACE_ID])
    own_id = event[REQUEST_ID] or f"{event[ID]:016x}"
    return bytes.fromhex(own_id.rjust(32, "0"))


def _build_parent_span_id(event: Event) -> bytes:
    if event[PARENT] is not None:
        return event[PARENT].to_bytes(8, "big")
    return bytes.fromhex(event[PARENT_SPAN]) if event[PARENT_SPAN] else b""


def _build_attributes(values: dict[str, str | int | None]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
        if value is not None
    ]
