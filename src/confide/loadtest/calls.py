"""The calls of a mix as bytes on a connection, drawn at random, the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from confide.loadtest.plans import Plan

# Drawn once and gone round: drawing costs more than sending.
DRAWN = 65_536
# A name of a call, and all bytes of one.
Drawn: TypeAlias = tuple[str, bytes]


class Calls:
    """Draws which call comes next; a few of the tenants get most of them where the plan is skewed (Zipf)."""

    def __init__(self, plan: Plan, tokens: Sequence[str], *, share: int) -> None:
        self._plan = plan
        self._tokens = tokens
        parts = urlsplit(plan.url)
        self._host, self._prefix = parts.netloc, parts.path.rstrip("/")
        # The same draw for each run of a plan is none of an attacker's business.
        self._random = random.Random(plan.seed * 1_000 + share)  # noqa: S311 - as said
        self._number = 0
        self._makers: dict[str, Callable[[str, str, str], bytes]] = {
            "get": self._get,
            "merge": self._merge,
            "put": self._put,
            "list": self._list,
            "versions": self._versions,
        }
        names, weights = zip(*plan.mix, strict=True)
        keys = [
            (plan.tenant(tenant), plan.integration_type(type_))
            for tenant in range(plan.tenants)
            for type_ in range(plan.types)
        ]
        self._random.shuffle(keys)
        by_rank = list(accumulate(1 / (rank**plan.skew) for rank in range(1, len(keys) + 1)))
        self._names = self._random.choices(names, weights, k=DRAWN)
        self._keys = self._random.choices(keys, cum_weights=by_rank, k=DRAWN)
        self._heads: dict[tuple[str, str, str], bytes] = {}

    def next(self) -> Drawn:
        number = self._number
        self._number += 1
        name = self._names[number % DRAWN]
        # Another round meets other keys with other calls.
        tenant, type_ = self._keys[(number + number // DRAWN * 7) % DRAWN]
        return name, self._makers[name](tenant, type_, self._tokens[number % len(self._tokens)])

    def _get(self, tenant: str, type_: str, token: str) -> bytes:
        head = self._heads.get((tenant, type_, token))
        if head is None:
            head = self._request("GET", f"/config?tenant={tenant}&integration_type={type_}", token)
            self._heads[tenant, type_, token] = head
        return head

    def _merge(self, tenant: str, type_: str, token: str) -> bytes:
        return self._save("POST", tenant, type_, token, {"load": {"counter": self._number}})

    def _put(self, tenant: str, type_: str, token: str) -> bytes:
        return self._save("PUT", tenant, type_, token, first_configuration(tenant) | {"counter": self._number})

    def _list(self, tenant: str, _type: str, token: str) -> bytes:
        return self._request("GET", f"/configs?tenant={tenant}&integration_type=*&limit=100", token)

    def _versions(self, tenant: str, type_: str, token: str) -> bytes:
        path = f"/config/versions?tenant={tenant}&integration_type={type_}&limit=20"
        return self._request("GET", path, token)

    def _save(self, method: str, tenant: str, type_: str, token: str, configuration: dict[str, Any]) -> bytes:
        document = {"tenant": tenant, "integration_type": type_, "configuration": configuration}
        return self._request(method, "/config", token, json.dumps(document).encode())

    def _request(self, method: str, path: str, token: str, body: bytes | None = None) -> bytes:
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {token}\r\n"
        if body is None:
            return head.encode() + b"\r\n"
        described = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + described.encode() + body


def first_configuration(tenant: str) -> dict[str, Any]:
    """What a config of the load tester holds at first: as large as what an airline system needs."""
    return {
        "username": f"{tenant}_user",
        "password": "not-a-secret",
        "wsdl_urls": {
            "session_url": "https://session.manager.example/v1/session?wsdl",
            "booking_url": "https://booking.manager.example/v1/booking?wsdl",
        },
    }
