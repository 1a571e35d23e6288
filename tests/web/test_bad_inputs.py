"""Every bad input of the catalogue gets the expected error on both engines, stores nothing and exposes no secret."""

from __future__ import annotations

import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from support import bad_inputs, canaries, raw_http
from support.bad_input_checks import CASES, CHECKS
from support.json_texts import MALFORMED
from support.populated_server import PopulatedServer
from support.raw_http import Reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

INTERNALS = re.compile(
    rb'Traceback|File "|\.py\b|SELECT |INSERT |sqlite|apsw|asyncpg|postgres|uvicorn|starlette|pydantic', re.IGNORECASE
)


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("entry", CASES, ids=lambda entry: entry["id"])
async def test_a_bad_input_gets_the_expected_response(site: PopulatedServer, entry: dict[str, Any]) -> None:
    await site.clear_login_attempts()
    before = await site.read("tok_editor")
    site.values["etag"] = before.header("etag") or ""
    counts, memory, began, log_start = await site.count_rows(), memory_bytes(), time.monotonic(), len(site.log)
    if entry["id"] == "json-test-suite":
        for text in MALFORMED:
            request = bad_inputs.wrap_configuration(text)
            headers = [(n, bad_inputs.fill_placeholders(v, site.values)) for n, v in entry["headers"].items()]
            (reply,) = await site.send(raw_http.build_request("POST", "/config", headers, request))
            assert reply.status == 400, text
        return
    also = entry.get("also", [])
    replies: list[Reply] = []
    for data in bad_inputs.build_requests(entry, site.values):
        request_began = time.monotonic()
        seconds = 1.0 if entry["method"] == "RAW" else raw_http.READ_SECONDS
        replies = await site.send(data, half_close="half-close-after-send" in also, seconds=seconds)
        if entry["method"] != "RAW":
            assert time.monotonic() - request_began < 2.0
    check_status(entry, replies)
    memory_limit = max([int(a.split(":")[1]) for a in also if a.startswith("max-rss")], default=64)
    assert memory_bytes() - memory < memory_limit * 2**20
    for reply in replies:
        check_form(entry, reply)
    if replies and replies[-1].status >= 400 and len(bad_inputs.build_requests(entry, site.values)) == 1:
        assert await site.count_rows() == counts
    after = await site.read("tok_editor")
    assert after.status == 200
    lines = "\n".join(site.log[log_start:])
    assert canaries.find_canary(lines.encode()) is None
    for name in also:
        await CHECKS[name.split(":")[0]](site, entry, replies, before, after, lines, counts, name)
    assert time.monotonic() - began < 20


def check_status(entry: dict[str, Any], replies: list[Reply]) -> None:
    expected = entry["expect"]
    if not replies:
        assert "closed" in expected
        return
    status = replies[-1].status
    assert all(reply.status < 500 or reply.status == 501 for reply in replies), replies
    assert status in expected, (status, replies[-1].body)
    if "code" in entry and status >= 400:
        assert replies[-1].json()["code"] == entry["code"]


def check_form(entry: dict[str, Any], reply: Reply) -> None:
    assert not INTERNALS.search(reply.body), reply.body
    assert reply.header("x-content-type-options") == "nosniff"
    if reply.status < 400:
        return
    assert reply.header("content-type") == "application/problem+json"
    problem = reply.json()
    assert problem["status"] == reply.status
    assert {"title", "code", "detail", "error"} <= problem.keys()
    assert canaries.find_canary(reply.body) is None
    if problem["code"] != "malformed-request":
        assert reply.header("request-id") or entry["method"] == "RAW"
