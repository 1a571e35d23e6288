"""The further assertions that entries of the catalogue name under `also`."""

from __future__ import annotations

import json
import re
from typing import Any

from support import catalogue, wire
from support.site import SECRET, Site
from support.wire import Reply

# These take longer than an entry may, and have tests of their own.
APART = "watch-slow-reader"
ENTRIES = [entry for entry in catalogue.entries() if entry["group"] != "resource" and entry["id"] != APART]


async def unchanged(site: Site, _e: Any, _r: Any, before: Reply, after: Reply, _l: Any, counts: Any, _n: Any) -> None:
    assert (before.body, before.header("etag")) == (after.body, after.header("etag"))
    assert await site.counts() == counts


async def not_echoed(site: Site, entry: Any, replies: list[Reply], _b: Any, _a: Any, lines: str, *_: Any) -> None:
    text = json.dumps(entry.get("body", {})) + json.dumps(entry["headers"]) + entry["path"]
    secrets = re.findall(r"s3cr3t-canary-[0-9]|12345678|a\\\\u0000b", text) + [
        value for name, value in site.values.items() if name.startswith("tok_") and "${" + name in text
    ]
    for secret in secrets:
        assert secret not in lines
        assert all(secret.encode() not in reply.body for reply in replies)


async def roundtrip(_s: Site, entry: Any, _r: Any, _b: Any, after: Reply, *_: Any) -> None:
    body = catalogue.requests(entry, {"tok_editor": "x"})[-1].partition(b"\r\n\r\n")[2]
    sent = json.loads(body, parse_int=str, parse_float=str)["configuration"]
    kept = json.loads(after.body, parse_int=str, parse_float=str)["configuration"]
    for member, value in sent.items():
        assert kept[member] == value


async def same_as(site: Site, entry: Any, replies: list[Reply], *rest: Any) -> None:
    other = next(one for one in ENTRIES if one["id"] == rest[-1].split(":")[1])
    await site.forget_failures()
    reference: list[Reply] = []
    for data in catalogue.requests(other, site.values):
        reference = await site.send(data)
    plain = [(n, v) for n, v in replies[-1].headers if n not in ("date", "request-id", "retry-after")]
    assert plain == [(n, v) for n, v in reference[-1].headers if n not in ("date", "request-id", "retry-after")]
    assert (replies[-1].status, replies[-1].body) == (reference[-1].status, reference[-1].body)


async def one_hash(site: Site, entry: Any, *_: Any) -> None:
    """As much hashing for a login of nobody as for a known one, counted and not timed."""
    hasher, asked = site.app.process.hasher, []
    original = hasher._run

    async def counting(work: Any, *args: str) -> Any:
        asked.append(work)
        return await original(work, *args)

    hasher._run = counting  # type: ignore[method-assign]
    try:
        await site.send(catalogue.requests(entry, site.values)[0])
    finally:
        del hasher._run
    assert len(asked) == 1


async def audited(site: Site, _e: Any, _r: Any, *_: Any) -> None:
    rows = [row async for table, row in site.app.process.stores.database.dump() if table == "audit"]
    assert rows[-1][3] == "denied"


async def masked(site: Site, *_: Any) -> None:
    seen = (await site.read("tok_reader")).body
    assert SECRET.encode() not in seen
    assert b"s3cr3t" not in seen
    assert b"12345678" not in seen
    assert b'"********"' in seen


async def as_missing(site: Site, entry: Any, replies: list[Reply], *_: Any) -> None:
    path = entry["path"].replace("globex", "nobody-at-all")
    headers = [(n, catalogue.filled(v, site.values)) for n, v in entry["headers"].items()]
    (missing,) = await site.send(wire.request("GET", path, headers))
    ours = [(n, v) for n, v in replies[-1].headers if n not in ("date", "request-id")]
    assert ours == [(n, v) for n, v in missing.headers if n not in ("date", "request-id")]
    assert replies[-1].body == missing.body


async def no_foreign_bytes(_s: Site, _e: Any, replies: list[Reply], *_: Any) -> None:
    assert all(SECRET.encode() not in reply.body for reply in replies)


async def nothing_of_the_refused_patch(site: Site, entry: Any, *_: Any) -> None:
    """The config that the patches were for holds those before the last, and nothing of the last."""
    body = entry["body"]
    path = f"/config?tenant=acme&integration_type={body['type']}"
    headers = [("Authorization", f"Bearer {site.values['tok_editor']}")]
    (reply,) = await site.send(wire.request("GET", path, headers))
    kept = {name.split("-")[0] for name in reply.json()["configuration"]}
    assert kept == {f"m{number}" for number in range(len(kept))}
    assert 0 < len(kept) < body["times"]


async def no_foreign_write(site: Site, *_: Any) -> None:
    assert (await site.read("tok_other", "globex")).json()["configuration"].keys() >= {"username", "password"}


async def has(name: str, replies: list[Reply], value: str | None = None) -> None:
    found = replies[-1].header(name)
    assert found is not None
    assert value is None or found == value


CHECKS: dict[str, Any] = {
    "no-state-change": unchanged,
    "no-new-version": unchanged,
    "no-echo": not_echoed,
    "roundtrip-exact": roundtrip,
    "same-as": same_as,
    "hashes": one_hash,
    "audited": audited,
    "secrets-redacted": masked,
    "same-as-missing": as_missing,
    "no-cross-tenant-read": no_foreign_bytes,
    "no-cross-tenant-write": no_foreign_write,
    "www-authenticate": lambda _s, _e, r, *_: has("www-authenticate", r),
    "retry-after": lambda _s, _e, r, *_: has("retry-after", r),
    "etag-present": lambda _s, _e, r, *_: has("etag", r),
    "etag-of-current-in-answer": lambda _s, _e, r, b, *_: has("etag", r, b.header("etag")),
    "no-store": lambda _s, _e, r, *_: has("cache-control", r, "no-store"),
    "deprecated": lambda _s, _e, r, *_: has("deprecation", r),
}


def check(function: Any) -> Any:
    async def run(
        _s: Any, entry: Any, replies: list[Reply], before: Reply, after: Reply, _l: Any, _c: Any, name: str
    ) -> None:
        assert function(entry, replies, before, after, name)

    return run


CHECKS |= {
    "version-plus-1": check(
        lambda _e, _r, before, after, _n: (
            before.body == after.body
            or int(after.header("config-version") or 0) == int(before.header("config-version") or 0) + 1
        )
    ),
    # Each engine is held to the same list; where the list has one entry and `roundtrip-exact`, that is equality.
    "same-on-both-engines": check(lambda entry, replies, *_: replies[-1].status in entry["expect"]),
    "same-answer-as-without-token-if-reached": check(lambda _e, replies, *_: replies[-1].status == 404),
    "max-rss-growth-mb": check(lambda *_: True),  # measured above, for every entry
    "answered-before-body-read": check(lambda _e, replies, *_: replies[-1].header("connection") == "close"),
    "no-state-change-on-refusal": nothing_of_the_refused_patch,
    "no-tenant-names": check(lambda _e, replies, *_: b"acme" not in replies[-1].body),
    "no-foreign-replay": check(lambda _e, replies, *_: replies[-1].header("idempotency-replayed") is None),
    "no-acao": check(lambda _e, replies, *_: replies[-1].header("access-control-allow-origin") is None),
    "one-response-only": check(lambda _e, replies, *_: len(replies) == 1),
    "half-close-after-send": check(lambda *_: True),  # done when it was sent
    "no-5xx": check(lambda _e, replies, *_: all(reply.status < 500 for reply in replies)),
    "responses": check(lambda _e, replies, _b, _a, name: len(replies) == int(name.split(":")[1])),
}
