"""Log lines: JSON for machines, colored text at a terminal, and no control characters of a client in either."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from confide.context import NO_REQUEST, Trace, current_request
from confide.telemetry import logs
from confide.telemetry.request_log import log_request


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def restored_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def write_lines(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    """Log a request, a warning of a request and a warning outside of requests."""
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure()
    path = "/\x1b]0;injected\x07\x1b[2J"
    log_request("GET", path, 404, began_ns=0, request_id="aa", trace_id="f" * 32, principal=None)
    token = current_request.set(replace(NO_REQUEST, trace=Trace(1, "bb", trace_id="e" * 32)))
    logging.getLogger("confide").warning("the path %s", "\x1b[31m")
    current_request.reset(token)
    logging.getLogger("confide").warning("outside of requests")
    try:
        int("\x1b]0;injected\x07\u202e")
    except ValueError:
        logging.getLogger("confide").exception("with a trace")
    return stream.getvalue()


def test_lines_are_json_and_name_their_request(restored_root_logger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    request, warning, separate, failure = map(json.loads, write_lines(io.StringIO(), monkeypatch).splitlines())
    assert (request["request_id"], request["trace_id"], request["status"]) == ("aa", "f" * 32, 404)
    assert (warning["request_id"], warning["trace_id"], warning["event"]) == ("bb", "e" * 32, "the path \x1b[31m")
    assert "request_id" not in separate
    assert "ValueError" in failure["exception"]


def test_a_client_cannot_send_control_characters_to_a_terminal(
    restored_root_logger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_lines(Terminal(), monkeypatch)
    assert "injected" in text
    assert "\x07" not in text
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert "\\x1b[31m" in text
    assert "\u202e" not in text
    assert "\nTraceback" in text
