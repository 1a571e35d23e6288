"""The work that a request without valid credentials can cause is bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from confide import strict_json
from confide.server import old_contract
from confide.strict_json import MAX_UNKNOWN_CONTAINERS
from confide.web.request import MAX_UNKNOWN_BODY_BYTES
from confide.web.route import MAX_VIOLATIONS
from support.app import ADMIN, RunningApp
from support.canaries import make_canary

JSON = {"Content-Type": "application/json"}
# 258,000 bytes of empty objects.
EMPTY_OBJECTS = b'{"a":[' + b"{}," * 85_990 + b"{}]}"


class ReadCounter:
    """Counts the strict parses of bodies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.strict = 0
        self._read_object = strict_json.read_object
        monkeypatch.setattr(strict_json, "read_object", self._count)

    def _count(self, data: bytes) -> Any:
        self.strict += 1
        return self._read_object(data)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> ReadCounter:
    return ReadCounter(monkeypatch)


async def post(app: RunningApp, path: str, body: bytes, **headers: str) -> Any:
    return await app.http.request("POST", path, content=body, headers={**JSON, **headers})


async def test_a_large_body_of_a_login_is_rejected_without_reading_it(app: RunningApp, counter: ReadCounter) -> None:
    for body in (EMPTY_OBJECTS, b'{"login":"a","password":"%b"}' % (b"x" * MAX_UNKNOWN_BODY_BYTES)):
        reply = await post(app, "/login", body)
        assert (reply.status_code, reply.json()["code"]) == (413, "body-too-large")
        assert "4 KiB" in reply.json()["detail"]
    assert counter.strict == 0


async def test_a_login_of_four_kibibytes_is_accepted(app: RunningApp) -> None:
    await app.create_token("root", *ADMIN)
    body = b'{"login":"root","password":""}'
    padded = body.replace(b'""', b'"%b"' % (b"x" * (MAX_UNKNOWN_BODY_BYTES - len(body))))
    assert len(padded) == MAX_UNKNOWN_BODY_BYTES
    reply = await post(app, "/login", padded)
    assert reply.status_code in (401, 422)


@pytest.mark.parametrize("path", ["/config", "/user"])
@pytest.mark.parametrize("token", [b"", b'"token":"cfd_unknown",', b'"token":["cfd_unknown"],'])
async def test_a_large_body_without_valid_credentials_is_never_parsed_strictly(
    app: RunningApp, counter: ReadCounter, path: str, token: bytes
) -> None:
    await app.create_token("root", *ADMIN)
    reply = await post(app, path, EMPTY_OBJECTS.replace(b"{", b"{" + token, 1))
    assert (reply.status_code, counter.strict) == (401, 0)


async def test_many_wrong_grants_of_an_unknown_caller_get_no_list_of_violations(app: RunningApp) -> None:
    await app.create_token("root", *ADMIN)
    grants = json.dumps({"login": "eve", "grants": [{f"m{number}": 1 for number in range(9)}] * 1_000}).encode()
    reply = await post(app, "/user", grants)
    assert reply.status_code == 401
    assert len(reply.content) < 1_000


@pytest.mark.parametrize(
    "grants",
    [
        [{f"m{number}": 1 for number in range(9)}] * 1_000,
        [{f"m{number}": 1 for number in range(2_000)}],
        [{}] * 80_000,
        [1] * 1_000,
    ],
)
async def test_a_response_lists_at_most_a_hundred_violations_of_a_body(app: RunningApp, grants: list[Any]) -> None:
    token = await app.create_token("root", *ADMIN)
    reply = await app.request("POST", "/user", token=token, json={"login": "eve", "grants": grants})
    assert reply.status_code in (400, 422)
    assert len(reply.json().get("errors", [])) <= MAX_VIOLATIONS
    assert len(reply.content) < 50_000


async def test_a_body_with_many_unknown_members_is_rejected_briefly(app: RunningApp) -> None:
    token = await app.create_token("root", *ADMIN)
    reply = await app.request("POST", "/user", token=token, json={f"m{number}": 1 for number in range(2_000)})
    assert (reply.status_code, reply.json()["code"]) == (400, "unknown-member")
    assert len(reply.content) < 50_000


async def test_a_login_has_few_objects_and_arrays(app: RunningApp) -> None:
    for count, code in ((MAX_UNKNOWN_CONTAINERS, "too-many-containers"), (50, "invalid-body")):
        reply = await post(app, "/login", b'{"login":[' + b"{}," * (count - 1) + b'{}],"password":"a"}')
        assert (reply.status_code, reply.json()["code"]) == (422, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"login":"a","login":"b","password":"c"}', 400, "json-duplicate-key"),
        (b'{"login":"a","password":{"b":1,"b":2}}', 400, "json-duplicate-key"),
        (b'{"login":"a","password":"\\ud800"}', 400, "json-surrogate"),
        (b'{"login":"a","password":"\\u0000"}', 422, "json-nul"),
        (b'{"login":"a","password":NaN}', 400, "json-invalid"),
        (b'{"login":"a"', 400, "json-invalid"),
        (b'[["login","a"]]', 400, "not-an-object"),
        (b'{"login":"a","password":"\xff"}', 400, "json-encoding"),
        (b'{"login":' + b"[" * 40 + b"]" * 40 + b"}", 422, "too-deep"),
        (b"[" * 4_000, 422, "too-deep"),
        (b'{"login":"a","password":' + b"9" * 4_000 + b"}", 422, "invalid-body"),
    ],
)
async def test_the_body_of_an_unknown_caller_is_parsed_as_strictly_as_any_other(
    app: RunningApp, body: bytes, status: int, code: str
) -> None:
    reply = await post(app, "/login", body)
    assert (reply.status_code, reply.json()["code"]) == (status, code)


async def test_a_token_in_a_large_body_is_still_accepted(app: RunningApp, counter: ReadCounter) -> None:
    token = await app.create_token("root", *ADMIN)
    configuration = {"list": [{}] * 20_000, "password": make_canary("value")}
    document = {"token": token, "tenant": "acme", "integration_type": "a", "configuration": configuration}
    key = {"Idempotency-Key": "once"}
    first = await app.request("POST", "/config", json=document, headers=key)
    assert (first.status_code, first.headers["deprecation"]) == (200, old_contract.DEPRECATION[1].decode())
    assert (await app.read(token, type_="a")).json()["configuration"] == configuration
    # The token is not part of the content, so that a retry can have another one.
    again = {"tenant": "acme", "integration_type": "a", "configuration": configuration}
    other = await app.create_token("root", *ADMIN)
    retry = await app.request("POST", "/config", json={**again, "token": other}, headers=key)
    assert (retry.json()["version"], retry.headers["idempotency-replayed"]) == (1, "true")
    assert counter.strict == 2


async def test_a_second_token_in_a_body_is_rejected(app: RunningApp) -> None:
    token = await app.create_token("root", *ADMIN)
    body = b'{"token":"x","token":"%b","tenant":"acme","integration_type":"a","configuration":{}}' % token.encode()
    reply = await post(app, "/config", body)
    assert (reply.status_code, reply.json()["code"]) == (400, "json-duplicate-key")


async def test_a_token_whose_name_is_written_with_escapes_is_found(app: RunningApp) -> None:
    token = await app.create_token("root", *ADMIN)
    body = b'{"\\u0074oken":"%b","tenant":"acme","integration_type":"a","configuration":{}}' % token.encode()
    assert (await post(app, "/config", body)).status_code == 200
