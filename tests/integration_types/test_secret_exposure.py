"""S-side-doors: a secret in every secret member of every example type, and no route gives any of it to a viewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import canaries
from support.app import ADMIN, RunningApp
from support.canaries import canary

EXAMPLES = {
    path.stem: json.loads(path.read_text())
    for path in (Path(__file__).parents[2] / "docs" / "reference" / "types").glob("*.json")
}
# Two of each: a shape that the schema takes, and one that it does not.
NUMBERS = {"timeout_seconds": 5, "requests_per_second": 5, "early_seconds": 5}


def secrets_in(schema: Any, root: Any, name: str, found: list[str]) -> Any:
    """A configuration with every member that the schema knows; what is secret is a canary of its own."""
    if "$ref" in schema:
        return secrets_in(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, name, found)
    if schema.get("writeOnly"):
        found.append(canary("side-door"))
        return found[-1]
    members = dict(schema.get("properties", {}))
    for choice in schema.get("oneOf", []):
        members |= root["$defs"][choice["$ref"].rsplit("/", 1)[1]]["properties"]
    if members:
        return {member: secrets_in(inner, root, member, found) for member, inner in members.items()}
    if schema.get("type") == "array":
        return ["one"]
    return NUMBERS.get(name, schema.get("default", "https://system.example"))


@pytest.fixture
async def tokens(app: RunningApp) -> dict[str, str]:
    admin = await app.token("root", *ADMIN)
    return {"admin": admin, "viewer": await app.token("vi", ("viewer", "*", "*"))}


async def furnished(app: RunningApp, admin: str) -> list[str]:
    """Save each example twice, with other secrets, and return all of them."""
    found: list[str] = []
    for name, schema in EXAMPLES.items():
        reply = await app.ask("PUT", f"/integration-types/{name}", token=admin, json={"schema": schema})
        assert reply.status_code == 200, reply.text
        for tenant in ("acme", "acme", "globex"):
            saved = await app.save(admin, secrets_in(schema, schema, "", found), tenant=tenant, type_=name)
            assert saved.status_code == 200, saved.text
    assert len(found) >= 3 * 2 * len(EXAMPLES)
    return found


def routes(name: str) -> list[tuple[str, str, dict[str, str], Any]]:
    """Every way of asking for something that a configuration of a type is behind."""
    address = {"tenant": "acme", "integration_type": name}
    body = {**address, "configuration": {"n": 1}}
    dry = {"dry_run": "true"}
    return [
        ("GET", "/config", address, None),
        ("GET", "/config", {**address, "defaults": "off"}, None),
        ("GET", "/config/versions", address, None),
        ("GET", "/config/versions/1", address, None),
        ("GET", "/config/versions/2", address, None),
        ("GET", "/config/diff", {**address, "from": "0", "to": "1"}, None),
        ("GET", "/config/diff", {**address, "from": "1", "to": "2"}, None),
        ("GET", "/config/usage", address, None),
        ("GET", "/configs", {}, None),
        ("GET", "/configs", {"conforms": "false"}, None),
        ("GET", "/configs/export", {}, None),
        ("GET", "/configs/export", {"secrets": "opened"}, None),
        ("GET", "/integration-types", {}, None),
        ("GET", f"/integration-types/{name}", {}, None),
        ("GET", f"/integration-types/{name}/conformance", {}, None),
        ("GET", "/watch", {"wait": "0", "after": "0"}, None),
        ("GET", "/audit", {}, None),
        ("GET", "/audit/export", {}, None),
        ("POST", "/config", dry, body),
        ("PUT", "/config", dry, body),
        ("POST", "/config", {}, body),
        ("POST", "/config/rollback", dry, {**address, "version": 1}),
        ("DELETE", "/config", address, None),
    ]


async def test_no_route_gives_a_viewer_any_secret_of_any_example_type(app: RunningApp, tokens: dict[str, str]) -> None:
    secrets = await furnished(app, tokens["admin"])
    asked = shown = 0
    for name in EXAMPLES:
        for method, path, params, body in routes(name):
            reply = await app.ask(method, path, token=tokens["viewer"], params=params, json=body)
            assert reply.status_code < 500
            told = reply.text + str(reply.headers)
            assert not [secret for secret in secrets if secret in told], (method, path, params)
            asked, shown = asked + 1, shown + told.count("********")
    assert asked == len(EXAMPLES) * 23
    assert shown > 100, "what is not shown is masked, not left out"


async def test_a_refused_save_and_a_warning_tell_no_secret_to_anybody(app: RunningApp, tokens: dict[str, str]) -> None:
    await furnished(app, tokens["admin"])
    for name, schema in EXAMPLES.items():
        for mode in ("warn", "enforce"):
            broken = secrets_in(schema, schema, "", []) | {"base_url": canary("wrong"), "username": [canary("wrong")]}
            put = {"schema": schema, "mode": mode}
            await app.ask("PUT", f"/integration-types/{name}", token=tokens["admin"], json=put)
            reply = await app.save(tokens["admin"], broken, tenant="acme", type_=name)
            assert reply.status_code == (200 if mode == "warn" else 422)
            assert reply.json()["warnings" if mode == "warn" else "errors"]
            assert canaries.found_in(reply.content) is None, reply.text
        reply = await app.ask("GET", f"/integration-types/{name}/conformance", token=tokens["admin"])
        assert reply.json()["broken"] >= 1
        assert canaries.found_in(reply.content) is None


async def test_the_doors_are_those_that_there_are(app: RunningApp, tokens: dict[str, str]) -> None:
    """A new route that may show a configuration must be asked here too."""
    document = (await app.ask("GET", "/openapi.json")).json()
    ours = {path.replace("crm", "{name}").replace("/1", "/{version}").replace("/2", "/{version}")
            for _, path, _, _ in routes("crm")}  # fmt: skip
    others = {"/user", "/users", "/users/{login}", "/users/me/password", "/login", "/logout", "/tokens",
              "/tokens/{token_id}", "/tenants/{tenant}", "/audit/checkpoints", "/audit/verify", "/health/live",
              "/health/ready", "/metrics"}  # fmt: skip
    assert set(document["paths"]) == ours | others
