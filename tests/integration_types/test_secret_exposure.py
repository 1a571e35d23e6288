"""No route returns a secret of an example type to a viewer, and no error contains one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import canaries
from support.app import ADMIN, RunningApp
from support.canaries import make_canary

EXAMPLES = {
    path.stem: json.loads(path.read_text())
    for path in (Path(__file__).parents[2] / "docs" / "reference" / "types").glob("*.json")
}
# A type with each other form of a secret than `writeOnly` and a plain name. `build_configuration` fills in canaries.
DRAFT_07 = "http://json-schema.org/draft-07/schema#"
FORMS: dict[str, Any] = {
    "$schema": DRAFT_07,
    "type": "object",
    "properties": {
        "passphrase_of_vpn": {"type": "string", "format": "password", "maxLength": 2_000},
        "marked": {"type": "string", "airbyte_secret": True},
        "token1": {"type": "string"},
        "apiKeyProd": {"type": "string"},
        "credentials": {
            "oneOf": [
                {
                    "properties": {
                        "auth_type": {"const": "https://system.example"},
                        "client_secret_2": {"type": "string"},
                    }
                }
            ]
        },
        "base_url": {"type": "string", "minLength": 1},
        "headers": {"items": [{"properties": {"name": {"type": "string"}, "value": {"type": "string"}}}]},
        "username": {"type": "string"},
    },
}
EXAMPLES["forms"] = FORMS
SECRET_FORMS = {"passphrase_of_vpn", "marked", "token1", "apiKeyProd", "client_secret_2"}
# Valid numbers for the members that are numbers.
NUMBERS = {"timeout_seconds": 5, "requests_per_second": 5, "early_seconds": 5}


def build_configuration(schema: Any, root: Any, name: str, secrets: list[str]) -> Any:
    """Build a configuration with every member of the schema. Each secret is a unique canary."""
    if "$ref" in schema:
        return build_configuration(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, name, secrets)
    if schema.get("writeOnly") or name in SECRET_FORMS:
        secrets.append(make_canary("exposure"))
        return secrets[-1]
    if schema in (FORMS["properties"]["base_url"], FORMS["properties"]["headers"]):
        secrets.append(make_canary("exposure"))
        url = f"postgres://user:{secrets[-1]}@system.example/?password={secrets[-1]}"
        return url if name == "base_url" else [{"name": "X-API-Key", "value": secrets[-1]}, {"name": "n", "value": url}]
    members = dict(schema.get("properties", {}))
    for choice in schema.get("oneOf", []):
        members |= (root["$defs"][choice["$ref"].rsplit("/", 1)[1]] if "$ref" in choice else choice)["properties"]
    if members:
        return {member: build_configuration(inner, root, member, secrets) for member, inner in members.items()}
    if schema.get("type") == "array":
        return ["one"]
    return NUMBERS.get(name, schema.get("default", "https://system.example"))


@pytest.fixture
async def tokens(app: RunningApp) -> dict[str, str]:
    admin = await app.create_token("root", *ADMIN)
    return {"admin": admin, "viewer": await app.create_token("vi", ("viewer", "*", "*"))}


async def save_examples(app: RunningApp, admin: str) -> list[str]:
    """Save configs of each example type with different secrets, and return all secrets."""
    secrets: list[str] = []
    for name, schema in EXAMPLES.items():
        reply = await app.request("PUT", f"/integration-types/{name}", token=admin, json={"schema": schema})
        assert reply.status_code == 200, reply.text
        for tenant in ("acme", "acme", "globex"):
            saved = await app.save(admin, build_configuration(schema, schema, "", secrets), tenant=tenant, type_=name)
            assert saved.status_code == 200, saved.text
    assert len(secrets) >= 3 * 2 * len(EXAMPLES)
    return secrets


def list_requests(name: str) -> list[tuple[str, str, dict[str, str], Any]]:
    """List all requests whose responses could contain a configuration of a type."""
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


async def test_no_route_returns_a_secret_to_a_viewer(app: RunningApp, tokens: dict[str, str]) -> None:
    secrets = await save_examples(app, tokens["admin"])
    masks = 0
    for name in EXAMPLES:
        for method, path, params, body in list_requests(name):
            reply = await app.request(method, path, token=tokens["viewer"], params=params, json=body)
            assert reply.status_code < 500
            received = reply.text + str(reply.headers)
            assert not [secret for secret in secrets if secret in received], (method, path, params)
            masks += received.count("********")
    assert masks > 100, "secrets are masked, not left out"


async def test_errors_and_warnings_of_a_save_contain_no_secret(app: RunningApp, tokens: dict[str, str]) -> None:
    await save_examples(app, tokens["admin"])
    for name, schema in EXAMPLES.items():
        for mode in ("warn", "enforce"):
            nonconforming = build_configuration(schema, schema, "", []) | {
                "base_url": make_canary("wrong"),
                "username": [make_canary("wrong")],
            }
            put = {"schema": schema, "mode": mode}
            await app.request("PUT", f"/integration-types/{name}", token=tokens["admin"], json=put)
            reply = await app.save(tokens["admin"], nonconforming, tenant="acme", type_=name)
            assert reply.status_code == (200 if mode == "warn" else 422)
            assert reply.json()["warnings" if mode == "warn" else "errors"]
            assert canaries.find_canary(reply.content) is None, reply.text
        reply = await app.request("GET", f"/integration-types/{name}/conformance", token=tokens["admin"])
        assert reply.json()["broken"] >= 1
        assert canaries.find_canary(reply.content) is None


async def test_every_route_is_covered_or_listed_as_without_configurations(
    app: RunningApp, tokens: dict[str, str]
) -> None:
    """A new route that can return a configuration must be added to `list_requests`, any other one to `others`."""
    document = (await app.request("GET", "/openapi.json")).json()
    ours = {path.replace("crm", "{name}").replace("/1", "/{version}").replace("/2", "/{version}")
            for _, path, _, _ in list_requests("crm")}  # fmt: skip
    others = {"/user", "/users", "/users/{login}", "/users/me", "/users/me/password", "/login", "/logout", "/tokens",
              "/tokens/{token_id}", "/tenants", "/tenants/{tenant}", "/audit/checkpoints", "/audit/verify",
              "/health/live", "/health/ready", "/metrics"}  # fmt: skip
    assert set(document["paths"]) == ours | others
