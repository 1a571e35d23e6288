"""Compare the public contract with its snapshot. Additions are allowed, changes are not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from confide.server.api import ROUTES
from confide.server.settings import Settings
from support.contract import SNAPSHOT, describe_contract, find_differences, load_snapshot, record

Json = Any
Edit = Callable[[Json], None]


@pytest.fixture
def snapshot() -> Json:
    return load_snapshot()


def test_the_public_contract_has_no_change() -> None:
    found = find_differences(load_snapshot(), describe_contract())
    # `make contract` records additions. From then on their removal is a change.
    print("\n".join(["additions that are not recorded:", *sorted(found.additions)]))
    assert found.changes == []


def test_the_description_covers_all_routes_and_settings() -> None:
    contract = describe_contract()
    assert all(contract.values())
    described = {(method.upper(), path) for path, operations in contract["paths"].items() for method in operations}
    assert described == {(route.method, route.path) for route in ROUTES if route.is_documented}
    assert contract["settings"].keys() == Settings.model_fields.keys()


def get_login_schema(contract: Json) -> Json:
    return contract["paths"]["/login"]["post"]["requestBody"]["content"]["application/json"]["schema"]


def get_session_schema(contract: Json) -> Json:
    return contract["paths"]["/login"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]


def remove_path(contract: Json) -> None:
    del contract["paths"]["/config/rollback"]


def rename_operation(contract: Json) -> None:
    contract["paths"]["/config"]["get"]["operationId"] = "get_config"


def rename_component(contract: Json) -> None:
    contract["components"]["UserCreate"] = contract["components"].pop("NewUser")


def remove_response_header(contract: Json) -> None:
    del contract["paths"]["/config"]["get"]["responses"]["200"]["headers"]["ETag"]


def rename_member(contract: Json) -> None:
    properties = get_login_schema(contract)["properties"]
    properties["user"] = properties.pop("login")


def require_new_member(contract: Json) -> None:
    get_login_schema(contract)["properties"]["code"] = {"type": "string"}
    get_login_schema(contract)["required"].append("code")


def stop_promising_a_member(contract: Json) -> None:
    get_session_schema(contract)["required"].remove("token")


def restrict_member(contract: Json) -> None:
    get_login_schema(contract)["properties"]["login"]["maxLength"] = 8


def require_new_parameter(contract: Json) -> None:
    parameters = contract["paths"]["/configs"]["get"]["parameters"]
    parameters["query region"] = {"in": "query", "name": "region", "required": True, "schema": {"type": "string"}}


def require_new_option(contract: Json) -> None:
    option = {**contract["commands"]["confide serve"]["--port"], "is_required": True}
    contract["commands"]["confide serve"]["--region"] = option


def change_default(contract: Json) -> None:
    contract["settings"]["port"]["default"] = "8081"


def change_status(contract: Json) -> None:
    contract["codes"]["busy"] = 500


def remove_option(contract: Json) -> None:
    del contract["commands"]["confide serve"]["--port"]


def rename_metric_label(contract: Json) -> None:
    labels = next(labels for labels in contract["metrics"].values() if labels)
    labels[0] = "other"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (remove_path, "paths > /config/rollback was removed"),
        (rename_operation, "paths > /config > get > operationId was 'read_a_config' and is 'get_config'"),
        (rename_component, "components > NewUser was removed"),
        (remove_response_header, "paths > /config > get > responses > 200 > headers > ETag was removed"),
        (rename_member, "properties > login was removed"),
        (require_new_member, "required was"),
        (stop_promising_a_member, "required was"),
        (restrict_member, "login > maxLength was added"),
        (require_new_parameter, "parameters > query region was added"),
        (require_new_option, "confide serve > --region was added"),
        (change_default, "settings > port > default was '8080' and is '8081'"),
        (change_status, "codes > busy was 503 and is 500"),
        (remove_option, "commands > confide serve > --port was removed"),
        (rename_metric_label, " and is 'other'"),
    ],
)
def test_a_deliberate_change_of_the_contract_is_reported(
    snapshot: Json, tmp_path: Path, change: Edit, expected: str
) -> None:
    changed = copy.deepcopy(snapshot)
    change(changed)
    assert any(expected in line for line in find_differences(snapshot, changed).changes)
    file = tmp_path / "contract.json"
    file.write_text(SNAPSHOT.read_text())
    record(changed, file, has_accepted_changes=False)
    assert load_snapshot(file) == snapshot
    record(changed, file, has_accepted_changes=True)
    assert load_snapshot(file) == changed


def add_path(contract: Json) -> None:
    contract["paths"]["/configs/count"] = contract["paths"]["/configs"]


def add_method(contract: Json) -> None:
    contract["paths"]["/configs"]["head"] = contract["paths"]["/configs"]["get"]


def add_request_header(contract: Json) -> None:
    parameters = contract["paths"]["/configs"]["get"]["parameters"]
    parameters["header Prefer"] = {"in": "header", "name": "Prefer", "required": False, "schema": {"type": "string"}}


def add_response_header(contract: Json) -> None:
    contract["paths"]["/configs"]["get"]["responses"]["200"]["headers"]["Link"] = {"schema": {"type": "string"}}


def add_optional_member(contract: Json) -> None:
    get_login_schema(contract)["properties"]["code"] = {"type": "string"}


def add_promised_member(contract: Json) -> None:
    get_session_schema(contract)["properties"]["login"] = {"type": "string"}
    get_session_schema(contract)["required"].append("login")


def add_code(contract: Json) -> None:
    contract["codes"]["region-unknown"] = 404


def add_setting(contract: Json) -> None:
    contract["settings"]["region"] = {"default": None, "aliases": ["CONFIDE_REGION"], "limits": {}}


def add_command(contract: Json) -> None:
    contract["commands"]["confide region"] = {}


def add_option(contract: Json) -> None:
    contract["commands"]["confide serve"]["--region"] = contract["commands"]["confide serve"]["--port"]


def add_metric(contract: Json) -> None:
    contract["metrics"]["confide_regions"] = ["region"]


def add_exit_code(contract: Json) -> None:
    contract["exit_codes"].append(99)


@pytest.mark.parametrize(
    "add",
    [
        add_path,
        add_method,
        add_request_header,
        add_response_header,
        add_optional_member,
        add_promised_member,
        add_code,
        add_setting,
        add_command,
        add_option,
        add_metric,
        add_exit_code,
    ],
)
def test_an_addition_to_the_contract_is_listed_and_recorded(snapshot: Json, tmp_path: Path, add: Edit) -> None:
    extended = copy.deepcopy(snapshot)
    add(extended)
    file = tmp_path / "contract.json"
    file.write_text(SNAPSHOT.read_text())
    found = record(extended, file, has_accepted_changes=False)
    assert found.changes == []
    assert found.additions
    assert load_snapshot(file) == extended
    # A recorded addition is part of the contract: its removal is a change.
    assert find_differences(load_snapshot(file), snapshot).changes
