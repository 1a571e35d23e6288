"""A diff lists the changes between two configurations and masks secrets."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given

from confide.configs.diff import diff
from confide.integration_types.masking import MASK, PLACE_WITHOUT_SCHEMA
from confide.strict_json import is_equal
from support.json_values import OBJECTS


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1.0}, {"changed": {"/a": {"from": 1, "to": 1.0}}}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {}),
        ({}, {"a": {"b": 1}}, {"added": {"/a": {"b": 1}}}),
        ({"a": {"b": 1}}, {}, {"removed": {"/a": {"b": 1}}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 2, "d": 3}},
         {"added": {"/a/d": 3}, "changed": {"/a/b": {"from": 1, "to": 2}}, "removed": {"/a/c": 2}}),
        ({"a": [1, 2]}, {"a": [2, 1]}, {"changed": {"/a": {"from": [1, 2], "to": [2, 1]}}}),
        ({"a": {}}, {"a": None}, {"changed": {"/a": {"from": {}, "to": None}}}),
        ({"a/b": {"m~n": 1}}, {"a/b": {"m~n": 2}}, {"changed": {"/a~1b/m~0n": {"from": 1, "to": 2}}}),
        ({"": 1}, {}, {"removed": {"/": 1}}),
    ],
)  # fmt: skip
def test_a_diff_compares_objects_by_member_and_other_values_as_a_whole(before: Any, after: Any, found: Any) -> None:
    assert diff(before, after) == {"added": {}, "changed": {}, "removed": {}} | found


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"password": "one"}, {"password": "two"}, {"changed": {"/password": {"from": MASK, "to": MASK}}}),
        ({"password": "one"}, {"password": "one"}, {}),
        ({"password": {"a": 1}}, {"password": {"a": 2}}, {"changed": {"/password": {"from": MASK, "to": MASK}}}),
        ({"password": {"a": 1}}, {"password": 2}, {"changed": {"/password": {"from": MASK, "to": MASK}}}),
        ({}, {"deep": {"api_key": "k"}}, {"added": {"/deep": {"api_key": MASK}}}),
        ({"deep": [{"token": "t"}]}, {"deep": 1}, {"changed": {"/deep": {"from": [{"token": MASK}], "to": 1}}}),
        ({"secret": "s"}, {}, {"removed": {"/secret": MASK}}),
    ],
)  # fmt: skip
def test_a_masked_diff_compares_a_secret_as_a_whole_and_hides_it(before: Any, after: Any, found: Any) -> None:
    assert diff(before, after, secrets=PLACE_WITHOUT_SCHEMA) == {"added": {}, "changed": {}, "removed": {}} | found


def apply_diff(before: Any, found: Any) -> Any:
    """Apply a diff with JSON Pointer (RFC 6901) only."""
    document = copy.deepcopy(before)
    new = found["added"] | {place: change["to"] for place, change in found["changed"].items()}
    for place in found["removed"]:
        parent, member = find_parent(document, place)
        del parent[member]
    for place, value in new.items():
        parent, member = find_parent(document, place)
        parent[member] = value
    return document


def find_parent(document: Any, place: str) -> tuple[Any, str]:
    *ancestors, member = [part.replace("~1", "/").replace("~0", "~") for part in place.split("/")[1:]]
    for part in ancestors:
        document = document[part]
    return document, member


@given(OBJECTS, OBJECTS)
def test_a_diff_turns_either_configuration_into_the_other(before: Any, after: Any) -> None:
    there, back = diff(before, after), diff(after, before)
    assert is_equal(apply_diff(before, there), after)
    assert is_equal(apply_diff(after, back), before)
    assert there["added"] == back["removed"]
    assert there["removed"] == back["added"]
    assert {place: (one["from"], one["to"]) for place, one in there["changed"].items()} == {
        place: (one["to"], one["from"]) for place, one in back["changed"].items()
    }
    assert (there == {"added": {}, "changed": {}, "removed": {}}) is is_equal(before, after)
