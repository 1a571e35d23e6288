"""Writes `confide.postman_collection.json` from the OpenAPI document, in an order that runs."""

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
    """One request: an operation of the document, what differs from its example, and what its answer must be."""

    name: str
    operation: str
    body: dict[str, Any] = field(default_factory=dict)
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    checks: tuple[str, ...] = ()
    needs_token: bool = False


def _message(text: str) -> str:
    sentence = f"Config 'acme : flight-information-system' is {text}"
    return f'pm.expect(pm.response.json().message).to.eql("{sentence}");'


CREDENTIALS = {"login": "{{login}}", "password": "{{password}}"}
ADDRESS = {"tenant": "acme", "integration_type": "flight-information-system"}
STEPS = (
    Step("Is it alive?", "GET /health/live", checks=('pm.expect(pm.response.json().status).to.eql("ok");',)),
    Step("Is it ready?", "GET /health/ready"),
    Step("The first user becomes admin", "POST /user", body=CREDENTIALS | {"grants": None}),
    Step("Log in", "POST /login", body=CREDENTIALS, checks=(KEEP_TOKEN,)),
    Step("Save a config", "POST /config", checks=(_message("created"),)),
    Step(
        "Merge a change into it",
        "POST /config",
        body={"configuration": {"wsdl_urls": {"session_url": "https://session.new.svc"}}},
        checks=(_message("updated"),),
    ),
    Step(
        "Read it back",
        "GET /config",
        query=ADDRESS,
        checks=(
            "const urls = pm.response.json().configuration.wsdl_urls;",
            'pm.expect(urls.session_url).to.eql("https://session.new.svc");',
            'pm.expect(urls.booking_url).to.eql("https://booking.manager.svc");',
            'pm.expect(pm.response.headers.get("Config-Version")).to.eql("2");',
        ),
    ),
    Step("Replace it", "PUT /config", body={"configuration": {"username": "acme_user"}}, checks=(_message("updated"),)),
    Step(
        "List its versions",
        "GET /config/versions",
        query=ADDRESS,
        checks=("pm.expect(pm.response.json().versions).to.have.lengthOf(3);",),
    ),
    Step("Read the first one", "GET /config/versions/{version}", path={"version": "1"}, query=ADDRESS),
    Step(
        "See what changed",
        "GET /config/diff",
        query=ADDRESS | {"from": "1", "to": "2"},
        checks=('pm.expect(pm.response.json().changed).to.have.property("/wsdl_urls/session_url");',),
    ),
    Step(
        "Bring the second one back",
        "POST /config/rollback",
        body={"version": 2, "note": "replaced by mistake"},
        checks=(_message("updated"),),
    ),
    Step(
        "Say what its type must be",
        "PUT /integration-types/{name}",
        path={"name": ADDRESS["integration_type"]},
        checks=("pm.expect(pm.response.json().version).to.eql(1);",),
    ),
    Step("List types", "GET /integration-types", checks=("pm.expect(pm.response.json().types).to.have.lengthOf(1);",)),
    Step("Read the type", "GET /integration-types/{name}", path={"name": ADDRESS["integration_type"]}),
    Step(
        "Which configs break it",
        "GET /integration-types/{name}/conformance",
        path={"name": ADDRESS["integration_type"]},
        checks=("pm.expect(pm.response.json().checked).to.eql(1);",),
    ),
    Step("Remove the type", "DELETE /integration-types/{name}", path={"name": ADDRESS["integration_type"]}),
    Step(
        "Hear of what changed",
        "GET /watch",
        query={"tenant": "acme", "after": "0", "wait": "5"},
        checks=('pm.expect(pm.response.json().events[0].event).to.eql("saved");',),
    ),
    Step("Who reads it", "GET /config/usage", query=ADDRESS),
    Step(
        "Export it, masked",
        "GET /configs/export",
        checks=("pm.expect(pm.response.json().configs[0].masked).to.eql(true);",),
    ),
    Step("List configs", "GET /configs", checks=("pm.expect(pm.response.json().configs).to.have.lengthOf(1);",)),
    Step("Retire it", "DELETE /config", query=ADDRESS, checks=(_message("retired"),)),
    Step(
        "Add a service account",
        "POST /user",
        body={"login": "worker", "password": None, "grants": None},
        needs_token=True,
    ),
    Step("List users", "GET /users", checks=("pm.expect(pm.response.json().users).to.have.lengthOf(2);",)),
    Step("Read a user", "GET /users/{login}", path={"login": "worker"}),
    Step("Disable a user", "PATCH /users/{login}", path={"login": "worker"}, body={"disabled": True}),
    Step("Make a service token", "POST /tokens", checks=(KEEP_TOKEN_ID,)),
    Step("List tokens", "GET /tokens"),
    Step("Revoke it", "DELETE /tokens/{token_id}", path={"token_id": "{{token_id}}"}),
    Step(
        "What is counted",
        "GET /metrics",
        checks=('pm.expect(pm.response.text()).to.include("confide_reads_total");',),
        needs_token=True,
    ),
    Step("Remove a user", "DELETE /users/{login}", path={"login": "worker"}),
    Step("Destroy a tenant's key", "DELETE /tenants/{tenant}", path={"tenant": "acme"}, query={"confirm": "acme"}),
    Step("Change the password", "PUT /users/me/password", body={"old": "{{password}}", "new": "{{password}}"}),
    Step(
        "Who did what",
        "GET /audit",
        query={"tenant": "acme", "limit": "5"},
        checks=("pm.expect(pm.response.json().entries).to.have.lengthOf(5);",),
    ),
    Step("The chain", "GET /audit/export"),
    Step("What was signed", "GET /audit/checkpoints"),
    Step(
        "Prove the chain",
        "GET /audit/verify",
        checks=("pm.expect(pm.response.json().ok).to.eql(true);",),
    ),
    Step("Log out", "POST /logout"),
)


def collection() -> dict[str, Any]:
    """Return the collection; raises `LookupError` if the document has an operation that no step runs."""
    document = build_document()
    known = {f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations}
    if known != {step.operation for step in STEPS}:
        raise LookupError(f"operations without a step: {known ^ {step.operation for step in STEPS}}")
    return {
        "info": {"name": "Confide", "description": document["info"]["description"], "schema": SCHEMA},
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]},
        "variable": [{"key": name, "value": value} for name, value in VARIABLES.items()],
        "item": [_item(step, document) for step in STEPS],
    }


def _item(step: Step, document: dict[str, Any]) -> dict[str, Any]:
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
        request["body"] = {"mode": "raw", "raw": json.dumps(_body(step, operation, document), indent=2)}
    lines = ["pm.response.to.have.status(200);", *step.checks]
    test = [f"pm.test({json.dumps(step.name)}, () => {{", *(f"  {line}" for line in lines), "});"]
    return {
        "name": step.name,
        "event": [{"listen": "test", "script": {"type": "text/javascript", "exec": test}}],
        "request": {name: value for name, value in request.items() if value is not None},
    }


def _body(step: Step, operation: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    examples = {n: p["examples"][0] for n, p in schema["properties"].items() if "examples" in p}
    return {name: value for name, value in (examples | step.body).items() if value is not None}


if __name__ == "__main__":
    FILE.write_text(json.dumps(collection(), indent=2) + "\n")
    sys.stdout.write(f"{len(STEPS)} requests in {FILE.name}\n")
