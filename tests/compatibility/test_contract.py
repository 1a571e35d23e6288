"""Compare today's public contract with the snapshot that was taken before the packages were moved."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.contract import describe_contract, drop_option_names, find_differences

SNAPSHOT = Path(__file__).with_name("contract.json")

Json = Any


@pytest.fixture(scope="module")
def snapshot() -> Json:
    return drop_option_names(json.loads(SNAPSHOT.read_text()))


def test_the_public_contract_is_unchanged(snapshot: Json) -> None:
    assert find_differences(snapshot, json.loads(json.dumps(describe_contract()))) == []


def test_the_snapshot_covers_the_whole_contract(snapshot: Json) -> None:
    sizes = {part: len(described) for part, described in snapshot.items()}
    assert sizes == {"codes": 62, "commands": 42, "exit_codes": 7, "metrics": 25, "paths": 28, "settings": 26}


def remove_path(contract: Json) -> None:
    del contract["paths"]["/config/rollback"]


def rename_member(contract: Json) -> None:
    login = contract["paths"]["/login"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    login["properties"]["user"] = login["properties"].pop("login")


def change_default(contract: Json) -> None:
    contract["settings"]["port"]["default"] = "8081"


def change_status(contract: Json) -> None:
    contract["codes"]["busy"] = 500


def remove_option(contract: Json) -> None:
    contract["commands"]["confide serve"].pop()


def rename_metric_label(contract: Json) -> None:
    labels = next(labels for labels in contract["metrics"].values() if labels)
    labels[0] = "other"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (remove_path, "/paths//config/rollback was removed"),
        (rename_member, "/properties/login was removed"),
        (change_default, "/settings/port/default was '8080' and is '8081'"),
        (change_status, "/codes/busy was 503 and is 500"),
        (remove_option, "/commands/confide serve was"),
        (rename_metric_label, " and is 'other'"),
    ],
)
def test_a_deliberate_change_of_the_contract_is_reported(
    snapshot: Json, change: Callable[[Json], None], expected: str
) -> None:
    changed = copy.deepcopy(snapshot)
    change(changed)
    assert any(expected in line for line in find_differences(snapshot, changed))
