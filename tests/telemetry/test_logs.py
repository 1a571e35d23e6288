"""Lines of the log: one form for machines, one for people, and nothing in either that moves a cursor."""

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
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def said(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure()
    log_request("GET", "/\x1b]0;pwned\x07\x1b[2J", 404, began_ns=0, request_id="aa", trace_id="f" * 32, principal=None)
    kept = current_request.set(replace(NO_REQUEST, trace=Trace(1, "bb", trace_id="e" * 32)))
    logging.getLogger("confide").warning("the path %s", "\x1b[31m")
    current_request.reset(kept)
    logging.getLogger("confide").warning("on nobody's behalf")
    return stream.getvalue()


def test_lines_are_json_and_name_their_request(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    request, ours, nobodys = map(json.loads, said(io.StringIO(), monkeypatch).splitlines())
    assert (request["request_id"], request["trace_id"], request["status"]) == ("aa", "f" * 32, 404)
    assert (ours["request_id"], ours["trace_id"], ours["event"]) == ("bb", "e" * 32, "the path \x1b[31m")
    assert "request_id" not in nobodys


def test_at_a_terminal_nothing_that_a_caller_sent_moves_the_cursor(
    restored: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = said(Terminal(), monkeypatch)
    assert "pwned" in text
    assert "\x07" not in text
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert "\\x1b[31m" in text
