"""Logs: JSON lines, or coloured where a person looks on; never a query, a header or a body."""

from __future__ import annotations

import logging
import sys

import structlog

from confide.context import current_request
from confide.telemetry.request_log import RequestLogLine


def configure(*, level: int = logging.INFO) -> None:
    """Send what we and the server say to standard error, in one form."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _name_request,
    ]
    is_seen = sys.stderr.isatty()
    last = structlog.dev.ConsoleRenderer() if is_seen else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # No locals in traces: they hold what callers sent.
    formatter = _Formatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            *([_make_printable] if is_seen else []),
            last,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    # No line of ours says them, and asking for them is a good part of what a line costs.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "asyncio", "httpx2", "httpcore2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _name_request(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say for which request, and in which trace, something was said."""
    of = current_request.get().trace
    if of is not None and of.request_id is not None:
        line["request_id"] = of.request_id
        if of.trace_id is not None:
            line["trace_id"] = of.trace_id
    return line


def _make_printable(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What a caller sent must not move a cursor or change a colour; JSON escapes it anyway."""
    for name, value in line.items():
        if isinstance(value, str) and name != "exception":
            line[name] = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in value)
    return line


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Writes a request's line as it stands, or for people as all others are written."""

    def format(self, record: logging.LogRecord) -> str:
        if not isinstance(record.msg, RequestLogLine):
            return super().format(record)
        if isinstance(self.processors[-1], structlog.processors.JSONRenderer):
            return str(record.msg)
        return str(self.processors[-1](None, "info", _make_printable(None, "info", dict(record.msg))))
