"""Test the Python client without a service."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from confide.client import Client, ConfideError
from confide.client.events import Event, EventParser, LineSplitter
from confide.client.protocol import build_request, build_save_request, build_type_request, parse_response


class Echo(BaseHTTPRequestHandler):
    """Responds with the request line, as JSON or as an event."""

    def do_GET(self) -> None:
        line = json.dumps({"line": self.requestline}).encode()
        is_stream = self.headers["Accept"] == "text/event-stream"
        body = b"event: saved\ndata: " + line + b"\n\n" if is_stream else line
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_GET  # noqa: N815 - the name that the server looks for

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def client() -> Iterator[Client]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            yield client
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("old", "new", "arguments"),
    [
        ("ask", "send", (build_request("GET", "/users"),)),
        ("fetch", "send_for_bytes", (build_request("GET", "/users"),)),
        ("events", "stream", (build_request("GET", "/watch"),)),
        ("retire", "delete", ("acme", "crm")),
        ("usage", "list_readers", ("acme", "crm")),
        ("version", "read_version", ("acme", "crm", 2)),
        ("versions", "list_versions", ("acme", "crm")),
    ],
)
def test_old_method_names_still_work_with_a_warning(
    client: Client, old: str, new: str, arguments: tuple[object, ...]
) -> None:
    with pytest.warns(DeprecationWarning, match=f"is now Client.{new}") as caught:
        result = getattr(client, old)(*arguments)
    assert caught[0].filename == __file__
    expected = getattr(client, new)(*arguments)
    if new == "stream":
        result, expected = list(result), list(expected)
    assert result == expected


def test_requests_of_the_old_module_still_work_with_a_warning(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "confide.client.calls", raising=False)
    with pytest.warns(DeprecationWarning, match=r"is now confide\.client\.protocol"):
        calls = importlib.import_module("confide.client.calls")
    with pytest.warns(DeprecationWarning, match="is now Client.send"):
        assert client.ask(calls.request("GET", "/users")) == {"line": "GET /users HTTP/1.1"}
    with pytest.warns(DeprecationWarning, match="is now Client.send_for_bytes"):
        assert client.fetch(calls.Request("GET", "/users")) == b'{"line": "GET /users HTTP/1.1"}'
    address = {"tenant": "acme"}
    assert calls.saving("POST", address, {"a": 1}) == build_save_request("POST", address, {"a": 1})
    assert calls.answer(200, b"{}") == {}
    assert calls.ConfideError is ConfideError


def test_an_unknown_method_name_is_an_attribute_error() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(AttributeError, match="has no attribute 'destroy'"):
        client.destroy  # type: ignore[attr-defined]  # noqa: B018 - reading it raises


def test_a_configuration_cannot_add_members_to_the_request() -> None:
    with pytest.raises(ConfideError, match="not valid JSON"):
        build_save_request("POST", {"tenant": "acme"}, b'{}, "note": "x"')
    request = build_save_request("POST", {"tenant": "acme"}, b'{"a": 1.50}')
    assert request.body == b'{"tenant": "acme", "configuration": {"a": 1.50}}'


def test_an_error_message_lists_each_violation() -> None:
    body = b'{"code": "invalid", "detail": "Wrong.", "errors": [{"pointer": "/a", "detail": "Missing."}]}'
    with pytest.raises(ConfideError) as caught:
        parse_response(422, body)
    assert (caught.value.status, caught.value.code) == (422, "invalid")
    assert str(caught.value) == "Wrong. At /a: Missing."


@pytest.mark.parametrize("body", [b"<html>", b"[1]"])
def test_a_response_that_is_not_a_json_object_is_an_error(body: bytes) -> None:
    with pytest.raises(ConfideError, match="Check the URL"):
        parse_response(200, body)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_lines_of_a_stream_end_only_with_cr_or_lf(size: int) -> None:
    text = "a\u2028b\x0bc\x85d\re\r\n\r\nf\n\ng\r\rh\u00e9\r\n"
    data, splitter = text.encode(), LineSplitter()
    lines = [line for at in range(0, len(data), size) for line in splitter.feed(data[at : at + size])]
    assert lines == ["a\u2028b\x0bc\x85d", "e", "", "f", "", "g", "", "h\u00e9"]


def test_a_line_is_complete_as_soon_as_its_cr_arrives() -> None:
    splitter = LineSplitter()
    assert [splitter.feed(data) for data in (b"a", b"\r", b"", b"\nb\n")] == [[], ["a"], [], ["b"]]


def test_a_schema_is_sent_as_the_text_of_its_file() -> None:
    text = b'{ "properties": {"n": {"const": 0.10000000000000000055, "const": 1e2}} }'
    request = build_type_request("crm", {"mode": "warn"}, text, dry_run=True)
    assert request.body == b'{"mode": "warn", "schema": ' + text + b"}"
    with pytest.raises(ConfideError, match="The schema is not valid JSON at line 2, column 1: Expecting value"):
        build_type_request("crm", {}, b"\n")


def test_an_unescaped_line_break_in_a_string_is_explained() -> None:
    with pytest.raises(ConfideError) as caught:
        build_save_request("POST", {}, b'{"key": "-----BEGIN KEY-----\nabc"}')
    assert str(caught.value) == (
        "The configuration is not valid JSON at line 1, column 29: unescaped control character. Write a line break in"
        " a string as \\n."
    )


def test_events_and_heartbeats_are_parsed_from_lines() -> None:
    parser = EventParser()
    lines = ["id: 1", "event: saved", 'data: {"version": 1}', "", ": comment", "", "id: 2", "", ""]
    events = [event for line in lines if (event := parser.feed(line)) is not None]
    assert events == [Event("saved", {"version": 1}, "1"), Event("heartbeat", {}, "2")]
