"""Workload of one worker: random requests as HTTP/1.1 bytes, reproducible by seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from confide.loadtest.plan import Plan

# Drawn once and repeated, because drawing costs more than sending.
MAX_DRAWS = 65_536


class WorkloadRequest(NamedTuple):
    """One request: its operation and all its bytes."""

    operation: str
    data: bytes


class Workload:
    """Random requests of a plan. Keys follow a Zipf distribution with the plan's skew."""

    def __init__(self, plan: Plan, tokens: Sequence[str], *, worker: int) -> None:
        self._plan = plan
        self._tokens = tokens
        parts = urlsplit(plan.url)
        self._host, self._prefix = parts.netloc, parts.path.rstrip("/")
        self._random = random.Random(plan.seed * 1_000 + worker)  # noqa: S311 - a predictable load is intended
        self._number = 0
        self._builders: dict[str, Callable[[str, str, str], bytes]] = {
            "get": self._build_get,
            "merge": self._build_merge,
            "put": self._build_put,
            "list": self._build_list,
            "versions": self._build_versions,
        }
        names, weights = zip(*plan.mix, strict=True)
        keys = [
            (plan.format_tenant(tenant), plan.format_integration_type(type_))
            for tenant in range(plan.tenants)
            for type_ in range(plan.types)
        ]
        self._random.shuffle(keys)
        cumulative_weights = list(accumulate(1 / (rank**plan.skew) for rank in range(1, len(keys) + 1)))
        self._names = self._random.choices(names, weights, k=MAX_DRAWS)
        self._keys = self._random.choices(keys, cum_weights=cumulative_weights, k=MAX_DRAWS)
        self._get_cache: dict[tuple[str, str, str], bytes] = {}

    def draw(self) -> WorkloadRequest:
        number = self._number
        self._number += 1
        name = self._names[number % MAX_DRAWS]
        # Shift the keys in each repetition, so that operations meet other keys.
        tenant, type_ = self._keys[(number + number // MAX_DRAWS * 7) % MAX_DRAWS]
        return WorkloadRequest(name, self._builders[name](tenant, type_, self._tokens[number % len(self._tokens)]))

    def _build_get(self, tenant: str, type_: str, token: str) -> bytes:
        data = self._get_cache.get((tenant, type_, token))
        if data is None:
            data = self._build_request("GET", f"/config?tenant={tenant}&integration_type={type_}", token)
            self._get_cache[tenant, type_, token] = data
        return data

    def _build_merge(self, tenant: str, type_: str, token: str) -> bytes:
        return self._build_save("POST", tenant, type_, token, {"load": {"counter": self._number}})

    def _build_put(self, tenant: str, type_: str, token: str) -> bytes:
        configuration = build_initial_configuration(tenant) | {"counter": self._number}
        return self._build_save("PUT", tenant, type_, token, configuration)

    def _build_list(self, tenant: str, _type: str, token: str) -> bytes:
        return self._build_request("GET", f"/configs?tenant={tenant}&integration_type=*&limit=100", token)

    def _build_versions(self, tenant: str, type_: str, token: str) -> bytes:
        path = f"/config/versions?tenant={tenant}&integration_type={type_}&limit=20"
        return self._build_request("GET", path, token)

    def _build_save(self, method: str, tenant: str, type_: str, token: str, configuration: dict[str, Any]) -> bytes:
        document = {"tenant": tenant, "integration_type": type_, "configuration": configuration}
        return self._build_request(method, "/config", token, json.dumps(document).encode())

    def _build_request(self, method: str, path: str, token: str, body: bytes | None = None) -> bytes:
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {token}\r\n"
        if body is None:
            return head.encode() + b"\r\n"
        body_headers = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body_headers.encode() + body


def build_initial_configuration(tenant: str) -> dict[str, Any]:
    """Build the first version of a config of the load generator, of a typical size."""
    return {
        "username": f"{tenant}_user",
        "password": "not-a-secret",
        "wsdl_urls": {
            "session_url": "https://session.manager.example/v1/session?wsdl",
            "booking_url": "https://booking.manager.example/v1/booking?wsdl",
        },
    }
