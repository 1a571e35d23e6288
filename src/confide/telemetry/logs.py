"""Logs: JSON lines, or colored lines at a terminal. They never hold a query, a header or a body."""

from __future__ import annotations

import logging
import sys

import structlog

from confide.context import current_request
from confide.telemetry.request_log import RequestLogLine


def configure(*, level: int = logging.INFO) -> None:
    """Send the log lines of Confide and of its libraries to standard error, in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request,
    ]
    is_terminal = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # Stack traces show no local variables, because those hold data of clients.
    formatter = _Formatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            *([_escape_control_characters] if is_terminal else []),
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    # No line shows these values, and their collection is a good part of the cost of a line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "asyncio", "httpx2", "httpcore2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _add_request(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the IDs of the current request and of its trace."""
    trace = current_request.get().trace
    if trace is not None and trace.request_id is not None:
        line["request_id"] = trace.request_id
        if trace.trace_id is not None:
            line["trace_id"] = trace.trace_id
    return line


def _escape_control_characters(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape what a client could send to move the cursor or change colors. JSON lines are escaped anyway."""
    for name, value in line.items():
        if isinstance(value, str):
            # A stack trace keeps its lines.
            kept = "\n" if name == "exception" else ""
            line[name] = "".join(one if one.isprintable() or one in kept else f"\\x{ord(one):02x}" for one in value)
    return line


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """A formatter that skips the processors of other lines for the lines of the request log."""

    def format(self, record: logging.LogRecord) -> str:
        if not isinstance(record.msg, RequestLogLine):
            return super().format(record)
        if isinstance(self.processors[-1], structlog.processors.JSONRenderer):
            return str(record.msg)
        return str(self.processors[-1](None, "info", _escape_control_characters(None, "info", dict(record.msg))))
