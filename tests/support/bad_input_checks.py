"""Checks that bad-input cases name under `also`."""

from __future__ import annotations

import json
import re
from typing import Any

from support import bad_inputs, raw_http
from support.populated_server import SECRET, PopulatedServer
from support.raw_http import Reply

# It takes longer than a case may, and has its own test.
SEPARATE_CASE = "watch-slow-reader"
CASES = [entry for entry in bad_inputs.load_cases() if entry["group"] != "resource" and entry["id"] != SEPARATE_CASE]


async def check_nothing_changed(
    site: PopulatedServer, _e: Any, _r: Any, before: Reply, after: Reply, _l: Any, counts: Any, _n: Any
) -> None:
    assert (before.body, before.header("etag")) == (after.body, after.header("etag"))
    assert await site.count_rows() == counts


async def check_secrets_are_not_echoed(
    site: PopulatedServer, entry: Any, replies: list[Reply], _b: Any, _a: Any, lines: str, *_: Any
) -> None:
    text = json.dumps(entry.get("body", {})) + json.dumps(entry["headers"]) + entry["path"]
    secrets = re.findall(r"s3cr3t-canary-[0-9]|12345678|a\\\\u0000b", text) + [
        value for name, value in site.values.items() if name.startswith("tok_") and "${" + name in text
    ]
    for secret in secrets:
        assert secret not in lines
        assert all(secret.encode() not in reply.body for reply in replies)


async def check_numbers_survive(_s: PopulatedServer, entry: Any, _r: Any, _b: Any, after: Reply, *_: Any) -> None:
    body = bad_inputs.build_requests(entry, {"tok_editor": "x"})[-1].partition(b"\r\n\r\n")[2]
    sent = json.loads(body, parse_int=str, parse_float=str)["configuration"]
    kept = json.loads(after.body, parse_int=str, parse_float=str)["configuration"]
    for member, value in sent.items():
        assert kept[member] == value


async def check_same_response(site: PopulatedServer, entry: Any, replies: list[Reply], *rest: Any) -> None:
    other = next(one for one in CASES if one["id"] == rest[-1].split(":")[1])
    await site.clear_login_attempts()
    reference: list[Reply] = []
    for data in bad_inputs.build_requests(other, site.values):
        reference = await site.send(data)
    plain = [(n, v) for n, v in replies[-1].headers if n not in ("date", "request-id", "retry-after")]
    assert plain == [(n, v) for n, v in reference[-1].headers if n not in ("date", "request-id", "retry-after")]
    assert (replies[-1].status, replies[-1].body) == (reference[-1].status, reference[-1].body)


async def check_one_hash(site: PopulatedServer, entry: Any, *_: Any) -> None:
    """Check that an unknown login costs one password hash, like a known one."""
    hasher = site.app.process.hasher
    calls: list[Any] = []
    original = hasher._run

    async def counting(work: Any, *args: str) -> Any:
        calls.append(work)
        return await original(work, *args)

    hasher._run = counting  # type: ignore[method-assign]
    try:
        await site.send(bad_inputs.build_requests(entry, site.values)[0])
    finally:
        del hasher._run
    assert len(calls) == 1


async def check_denial_is_audited(site: PopulatedServer, _e: Any, _r: Any, *_: Any) -> None:
    rows = [row async for table, row in site.app.process.stores.database.dump() if table == "audit"]
    assert rows[-1][3] == "denied"


async def check_secrets_are_masked(site: PopulatedServer, *_: Any) -> None:
    seen = (await site.read("tok_reader")).body
    assert SECRET.encode() not in seen
    assert b"s3cr3t" not in seen
    assert b"12345678" not in seen
    assert b'"********"' in seen


async def check_response_equals_missing(site: PopulatedServer, entry: Any, replies: list[Reply], *_: Any) -> None:
    path = entry["path"].replace("globex", "nobody-at-all")
    headers = [(n, bad_inputs.fill_placeholders(v, site.values)) for n, v in entry["headers"].items()]
    (missing,) = await site.send(raw_http.build_request("GET", path, headers))
    ours = [(n, v) for n, v in replies[-1].headers if n not in ("date", "request-id")]
    assert ours == [(n, v) for n, v in missing.headers if n not in ("date", "request-id")]
    assert replies[-1].body == missing.body


async def check_no_foreign_secret(_s: PopulatedServer, _e: Any, replies: list[Reply], *_: Any) -> None:
    assert all(SECRET.encode() not in reply.body for reply in replies)


async def check_rejected_patch_is_absent(site: PopulatedServer, entry: Any, *_: Any) -> None:
    """Check that the config holds all patches before the last one, and no member of the last."""
    body = entry["body"]
    path = f"/config?tenant=acme&integration_type={body['type']}"
    headers = [("Authorization", f"Bearer {site.values['tok_editor']}")]
    (reply,) = await site.send(raw_http.build_request("GET", path, headers))
    kept = {name.split("-")[0] for name in reply.json()["configuration"]}
    assert kept == {f"m{number}" for number in range(len(kept))}
    assert 0 < len(kept) < body["times"]


async def check_foreign_config_is_intact(site: PopulatedServer, *_: Any) -> None:
    assert (await site.read("tok_other", "globex")).json()["configuration"].keys() >= {"username", "password"}


async def check_header(name: str, replies: list[Reply], value: str | None = None) -> None:
    found = replies[-1].header(name)
    assert found is not None
    assert value is None or found == value


CHECKS: dict[str, Any] = {
    "no-state-change": check_nothing_changed,
    "no-new-version": check_nothing_changed,
    "no-echo": check_secrets_are_not_echoed,
    "roundtrip-exact": check_numbers_survive,
    "same-as": check_same_response,
    "hashes": check_one_hash,
    "audited": check_denial_is_audited,
    "secrets-redacted": check_secrets_are_masked,
    "same-as-missing": check_response_equals_missing,
    "no-cross-tenant-read": check_no_foreign_secret,
    "no-cross-tenant-write": check_foreign_config_is_intact,
    "www-authenticate": lambda _s, _e, r, *_: check_header("www-authenticate", r),
    "retry-after": lambda _s, _e, r, *_: check_header("retry-after", r),
    "etag-present": lambda _s, _e, r, *_: check_header("etag", r),
    "etag-of-current-in-answer": lambda _s, _e, r, b, *_: check_header("etag", r, b.header("etag")),
    "no-store": lambda _s, _e, r, *_: check_header("cache-control", r, "no-store"),
    "deprecated": lambda _s, _e, r, *_: check_header("deprecation", r),
}


def build_check(function: Any) -> Any:
    async def run(
        _s: Any, entry: Any, replies: list[Reply], before: Reply, after: Reply, _l: Any, _c: Any, name: str
    ) -> None:
        assert function(entry, replies, before, after, name)

    return run


CHECKS |= {
    "version-plus-1": build_check(
        lambda _e, _r, before, after, _n: (
            before.body == after.body
            or int(after.header("config-version") or 0) == int(before.header("config-version") or 0) + 1
        )
    ),
    # Both engines must answer with a status from the same list.
    "same-on-both-engines": build_check(lambda entry, replies, *_: replies[-1].status in entry["expect"]),
    "same-answer-as-without-token-if-reached": build_check(lambda _e, replies, *_: replies[-1].status == 404),
    "max-rss-growth-mb": build_check(lambda *_: True),  # test_bad_inputs measures it for every case
    "answered-before-body-read": build_check(lambda _e, replies, *_: replies[-1].header("connection") == "close"),
    "no-state-change-on-refusal": check_rejected_patch_is_absent,
    "no-tenant-names": build_check(lambda _e, replies, *_: b"acme" not in replies[-1].body),
    "no-foreign-replay": build_check(lambda _e, replies, *_: replies[-1].header("idempotency-replayed") is None),
    "no-acao": build_check(lambda _e, replies, *_: replies[-1].header("access-control-allow-origin") is None),
    "one-response-only": build_check(lambda _e, replies, *_: len(replies) == 1),
    "half-close-after-send": build_check(lambda *_: True),  # the sender does it
    "no-5xx": build_check(lambda _e, replies, *_: all(reply.status < 500 for reply in replies)),
    "responses": build_check(lambda _e, replies, _b, _a, name: len(replies) == int(name.split(":")[1])),
}
