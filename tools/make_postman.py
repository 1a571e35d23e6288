"""Write `confide.postman_collection.json` from the OpenAPI document, in an order that runs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confide.server.api import build_document

FILE = Path(__file__).parents[1] / "confide.postman_collection.json"
SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
KEEP_TOKEN = 'pm.collectionVariables.set("token", pm.response.json().token);'  # noqa: S105 - a script, not a secret
KEEP_TOKEN_ID = 'pm.collectionVariables.set("token_id", String(pm.response.json().id));'  # noqa: S105 - as above
VARIABLES = {
    "base_url": "http://127.0.0.1:8080",
    "login": "grace",
    "password": "violet kettle on the moon",
    "token": "",
    "token_id": "",
}


@dataclass(frozen=True)
class Step:
    """One request: an operation of the document, changes to its example, and checks of its response."""

    name: str
    operation: str
    body: dict[str, Any] = field(default_factory=dict)
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    checks: tuple[str, ...] = ()
    needs_token: bool = False


def _check_message(text: str) -> str:
    sentence = f"Config 'acme : flight-information-system' is {text}"
    return f'pm.expect(pm.response.json().message).to.eql("{sentence}");'


CREDENTIALS = {"login": "{{login}}", "password": "{{password}}"}
ADDRESS = {"tenant": "acme", "integration_type": "flight-information-system"}
STEPS = (
    Step(
        "Check that the process is alive",
        "GET /health/live",
        checks=('pm.expect(pm.response.json().status).to.eql("ok");',),
    ),
    Step("Check that the service is ready", "GET /health/ready"),
    Step("Add the first user, an admin", "POST /user", body=CREDENTIALS | {"grants": None}),
    Step("Log in", "POST /login", body=CREDENTIALS, checks=(KEEP_TOKEN,)),
    Step("Read the own user", "GET /users/me", checks=("pm.expect(pm.response.json().admin).to.eql(true);",)),
    Step("Save a config", "POST /config", checks=(_check_message("created"),)),
    Step(
        "List the tenants",
        "GET /tenants",
        checks=("pm.expect(pm.response.json().tenants).to.have.lengthOf(1);",),
    ),
    Step(
        "Merge a change",
        "POST /config",
        body={"configuration": {"wsdl_urls": {"session_url": "https://session.new.svc"}}},
        checks=(_check_message("updated"),),
    ),
    Step(
        "Read the config",
        "GET /config",
        query=ADDRESS,
        checks=(
            "const urls = pm.response.json().configuration.wsdl_urls;",
            'pm.expect(urls.session_url).to.eql("https://session.new.svc");',
            'pm.expect(urls.booking_url).to.eql("https://booking.manager.svc");',
            'pm.expect(pm.response.headers.get("Config-Version")).to.eql("2");',
        ),
    ),
    Step(
        "Replace the config",
        "PUT /config",
        body={"configuration": {"username": "acme_user"}},
        checks=(_check_message("updated"),),
    ),
    Step(
        "List the versions",
        "GET /config/versions",
        query=ADDRESS,
        checks=("pm.expect(pm.response.json().versions).to.have.lengthOf(3);",),
    ),
    Step("Read the first version", "GET /config/versions/{version}", path={"version": "1"}, query=ADDRESS),
    Step(
        "Compare two versions",
        "GET /config/diff",
        query=ADDRESS | {"from": "1", "to": "2"},
        checks=('pm.expect(pm.response.json().changed).to.have.property("/wsdl_urls/session_url");',),
    ),
    Step(
        "Roll back to the second version",
        "POST /config/rollback",
        body={"version": 2, "note": "replaced by mistake"},
        checks=(_check_message("updated"),),
    ),
    Step(
        "Add an integration type",
        "PUT /integration-types/{name}",
        path={"name": ADDRESS["integration_type"]},
        checks=("pm.expect(pm.response.json().version).to.eql(1);",),
    ),
    Step(
        "List integration types",
        "GET /integration-types",
        checks=("pm.expect(pm.response.json().types).to.have.lengthOf(1);",),
    ),
    Step("Read the integration type", "GET /integration-types/{name}", path={"name": ADDRESS["integration_type"]}),
    Step(
        "Check all configs of the type",
        "GET /integration-types/{name}/conformance",
        path={"name": ADDRESS["integration_type"]},
        checks=("pm.expect(pm.response.json().checked).to.eql(1);",),
    ),
    Step("Remove the integration type", "DELETE /integration-types/{name}", path={"name": ADDRESS["integration_type"]}),
    Step(
        "Watch for changes",
        "GET /watch",
        query={"tenant": "acme", "after": "0", "wait": "5"},
        checks=('pm.expect(pm.response.json().events[0].event).to.eql("saved");',),
    ),
    Step("Show the access statistics", "GET /config/usage", query=ADDRESS),
    Step(
        "Export configs with masked secrets",
        "GET /configs/export",
        checks=("pm.expect(pm.response.json().configs[0].masked).to.eql(true);",),
    ),
    Step("List configs", "GET /configs", checks=("pm.expect(pm.response.json().configs).to.have.lengthOf(1);",)),
    Step("Delete the config", "DELETE /config", query=ADDRESS, checks=(_check_message("retired"),)),
    Step(
        "Add a service account",
        "POST /user",
        body={"login": "worker", "password": None, "grants": None},
        needs_token=True,
    ),
    Step("List users", "GET /users", checks=("pm.expect(pm.response.json().users).to.have.lengthOf(2);",)),
    Step("Read a user", "GET /users/{login}", path={"login": "worker"}),
    Step("Disable a user", "PATCH /users/{login}", path={"login": "worker"}, body={"disabled": True}),
    Step("Create a service token", "POST /tokens", checks=(KEEP_TOKEN_ID,)),
    Step("List tokens", "GET /tokens"),
    Step("Revoke the token", "DELETE /tokens/{token_id}", path={"token_id": "{{token_id}}"}),
    Step(
        "Read the metrics",
        "GET /metrics",
        checks=('pm.expect(pm.response.text()).to.include("confide_reads_total");',),
        needs_token=True,
    ),
    Step("Remove a user", "DELETE /users/{login}", path={"login": "worker"}),
    Step(
        "Destroy the data key of a tenant",
        "DELETE /tenants/{tenant}",
        path={"tenant": "acme"},
        query={"confirm": "acme"},
    ),
    Step("Change the password", "PUT /users/me/password", body={"old": "{{password}}", "new": "{{password}}"}),
    Step(
        "List audit entries",
        "GET /audit",
        query={"tenant": "acme", "limit": "5"},
        checks=("pm.expect(pm.response.json().entries).to.have.lengthOf(5);",),
    ),
    Step("Export the audit chain", "GET /audit/export"),
    Step("List checkpoints", "GET /audit/checkpoints"),
    Step(
        "Verify the audit chain",
        "GET /audit/verify",
        checks=("pm.expect(pm.response.json().ok).to.eql(true);",),
    ),
    Step("Log out", "POST /logout"),
)


def build_collection() -> dict[str, Any]:
    """Build the collection. Raises `LookupError` for an operation without a step."""
    document = build_document()
    known = {f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations}
    if known != {step.operation for step in STEPS}:
        raise LookupError(f"operations without a step: {known ^ {step.operation for step in STEPS}}")
    return {
        "info": {"name": "Confide", "description": document["info"]["description"], "schema": SCHEMA},
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]},
        "variable": [{"key": name, "value": value} for name, value in VARIABLES.items()],
        "item": [_build_item(step, document) for step in STEPS],
    }


def _build_item(step: Step, document: dict[str, Any]) -> dict[str, Any]:
    method, path = step.operation.split(" ")
    operation = document["paths"][path][method.lower()]
    for name, value in step.path.items():
        path = path.replace(f"{{{name}}}", value)
    query = "&".join(f"{name}={value}" for name, value in step.query.items())
    url = {
        "raw": "{{base_url}}" + path + (f"?{query}" if query else ""),
        "host": ["{{base_url}}"],
        "path": path.strip("/").split("/"),
        "query": [{"key": name, "value": value} for name, value in step.query.items()],
    }
    request: dict[str, Any] = {"method": method, "header": [], "url": url}
    if operation.get("security", [{"token": []}])[:1] in ([], [{}]):
        request["auth"] = None if step.needs_token else {"type": "noauth"}
    if "requestBody" in operation:
        request["header"] = [{"key": "Content-Type", "value": "application/json"}]
        request["body"] = {"mode": "raw", "raw": json.dumps(_build_body(step, operation, document), indent=2)}
    lines = ["pm.response.to.have.status(200);", *step.checks]
    test = [f"pm.test({json.dumps(step.name)}, () => {{", *(f"  {line}" for line in lines), "});"]
    return {
        "name": step.name,
        "event": [{"listen": "test", "script": {"type": "text/javascript", "exec": test}}],
        "request": {name: value for name, value in request.items() if value is not None},
    }


def _build_body(step: Step, operation: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    examples = {n: p["examples"][0] for n, p in schema["properties"].items() if "examples" in p}
    return {name: value for name, value in (examples | step.body).items() if value is not None}


if __name__ == "__main__":
    FILE.write_text(json.dumps(build_collection(), indent=2) + "\n")
    sys.stdout.write(f"{len(STEPS)} requests in {FILE.name}\n")
