"""Test the Python client without a service."""

from __future__ import annotations

import pytest

from confide.client import Client, ConfideError
from confide.client.events import Event, EventParser
from confide.client.protocol import build_save_request, parse_response


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ask", "send"),
        ("events", "stream"),
        ("fetch", "send_for_bytes"),
        ("retire", "delete"),
        ("usage", "list_readers"),
        ("version", "read_version"),
        ("versions", "list_versions"),
    ],
)
def test_old_method_names_still_work_with_a_warning(old: str, new: str) -> None:
    with Client("http://127.0.0.1:1") as client:
        with pytest.warns(DeprecationWarning, match=f"is now Client.{new}"):
            method = getattr(client, old)
        assert method == getattr(client, new)


def test_an_unknown_method_name_is_an_attribute_error() -> None:
    with Client("http://127.0.0.1:1") as client:
        assert not hasattr(client, "destroy")


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


def test_events_and_heartbeats_are_parsed_from_lines() -> None:
    parser = EventParser()
    lines = ["id: 1", "event: saved", 'data: {"version": 1}', "", ": comment", "", "id: 2", "", ""]
    events = [event for line in lines if (event := parser.feed(line)) is not None]
    assert events == [Event("saved", {"version": 1}, "1"), Event("heartbeat", {}, "2")]
