"""The specifications of published connectors register, validate and mask as their authors meant."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from confide.integration_types.masking import MASK
from support.app import ADMIN, RunningApp
from support.canaries import make_canary
from support.programs import require_program

# Packages on PyPI. Nothing of them is part of this repository; only their specifications are read, and none is run.
PACKAGES = {
    "airbyte-source-amazon-ads": "7.2.3",
    "airbyte-source-file": "0.6.0",
    "airbyte-source-hubspot": "5.7.0",
    "airbyte-source-jira": "4.0.0",
    "airbyte-source-linnworks": "0.1.66",
    "airbyte-source-mixpanel": "4.0.2",
    "airbyte-source-salesforce": "2.10.3",
    "airbyte-source-shopify": "4.3.0",
    "airbyte-source-zendesk-support": "4.9.1",
}
# The members whose names make them secret, although their authors do not mark them: they hold a constant.
ONLY_SECRET_BY_NAME = {
    "airbyte-source-hubspot": {"/credentials/credentials_title"},
    "airbyte-source-zendesk-support": {"/credentials/credentials"},
}
# Values for formats. Some examples of the authors are a date in place of a date and a time.
VALUES = {"date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01"}


def download(package: str, version: str, folder: Path) -> Path:
    """Download a package. Without pip, skip the test; in CI, fail."""
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
        pip = [require_program("pip3", package="python3-pip")]
    command = [*pip, "download", "-q", "--disable-pip-version-check", "--no-deps", f"{package}=={version}"]
    subprocess.run([*command, "-d", str(folder)], check=True, timeout=300)
    (found,) = folder.glob("*.whl")
    return found


def read_specification(wheel: Path) -> Any:
    """Return the JSON Schema in `spec.json`, `spec.yaml` or `manifest.yaml`."""
    with zipfile.ZipFile(wheel) as archive:
        names = {PurePosixPath(name).name: name for name in archive.namelist()}
        for name in ("spec.json", "spec.yaml", "manifest.yaml"):
            if name in names:
                document = yaml.safe_load(archive.read(names[name]))
                specification = document["spec"] if name == "manifest.yaml" else document
                return specification.get("connectionSpecification") or specification["connection_specification"]
    raise AssertionError(f"{wheel.name} has no specification")


class Builder:
    """Builds a configuration that a specification accepts. Each secret is a canary."""

    def __init__(self, choice: int) -> None:
        self.choice = choice
        # By pointer: the values that the authors mark as secret, and all other values.
        self.secrets: dict[str, Any] = {}
        self.visible: dict[str, Any] = {}

    def build(self, schema: Any, at: str = "") -> Any:
        if schema.get("airbyte_secret"):
            self.secrets[at] = make_canary("connector")
            return self.secrets[at]
        choices = schema.get("oneOf") or schema.get("anyOf") or []
        chosen = choices[self.choice % len(choices)] if choices else {}
        members = {**schema.get("properties", {}), **chosen.get("properties", {})}
        if members:
            return {name: self.build(member, f"{at}/{name}") for name, member in members.items()}
        if "items" in schema and "object" not in str(schema["items"].get("type")):
            return (
                [self.build(schema["items"], f"{at}/0")]
                if "default" not in schema
                else self.keep(schema["default"], at)
            )
        return self.keep(_choose_value({**schema, **chosen}), at)

    def keep(self, value: Any, at: str) -> Any:
        self.visible[at] = value
        return value


def _choose_value(schema: Any) -> Any:
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    if schema.get("format") in VALUES:
        return VALUES[schema["format"]]
    for keyword in ("enum", "examples"):
        if isinstance(schema.get(keyword), list):
            return schema[keyword][0]
    kind = schema["type"] if isinstance(schema.get("type"), str) else next(iter(schema.get("type", ["string"])))
    value: Any = {"integer": schema.get("minimum", 1), "number": 1, "boolean": True, "array": [], "object": {}}.get(
        kind
    )
    return "text" if value is None else value


def count_choices(schema: Any) -> int:
    if isinstance(schema, dict):
        own = max((len(schema[one]) for one in ("oneOf", "anyOf") if isinstance(schema.get(one), list)), default=1)
        return max([own, *map(count_choices, schema.values())])
    return max(map(count_choices, schema), default=1) if isinstance(schema, list) else 1


def list_leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from list_leaves(inner, f"{at}/{name}")
    else:
        yield at, value


@pytest.mark.long
@pytest.mark.parametrize("package", PACKAGES)
async def test_a_published_specification_registers_validates_and_masks(
    sqlite_app: RunningApp, tmp_path: Path, package: str
) -> None:
    app = sqlite_app
    admin = await app.create_token("root", *ADMIN)
    viewer = await app.create_token("vi", ("viewer", "*", "*"))
    schema = read_specification(download(package, PACKAGES[package], tmp_path))
    name = package.removeprefix("airbyte-")
    body = {"schema": schema, "mode": "enforce"}
    put = await app.request("PUT", f"/integration-types/{name}", token=admin, json=body)
    assert put.status_code == 200, put.text
    seen = 0
    for choice in range(count_choices(schema)):
        builder = Builder(choice)
        configuration = builder.build(schema)
        tenant = f"t{choice}"
        saved = await app.save(admin, configuration, tenant=tenant, type_=name)
        assert saved.status_code == 200, saved.text
        read = await app.read(viewer, tenant=tenant, type_=name, headers={})
        masked = dict(list_leaves(read.json()["configuration"]))
        seen += len(builder.secrets)
        assert {at: masked[at] for at in builder.secrets} == dict.fromkeys(builder.secrets, MASK)
        hidden = {at for at, value in builder.visible.items() if masked.get(at, value) != value}
        assert hidden <= ONLY_SECRET_BY_NAME.get(package, set())
        required = schema["required"][0]
        refused = await app.save(admin, {required: None}, tenant=tenant, type_=name)
        assert (refused.status_code, refused.json()["code"]) == (422, "schema-broken")
        assert not [secret for secret in builder.secrets.values() if secret in refused.text + read.text]
    assert seen, "the specification has secrets"
    conformance = await app.request("GET", f"/integration-types/{name}/conformance", token=admin)
    assert json.loads(conformance.text)["broken"] == 0
