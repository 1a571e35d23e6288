"""The time of validation is bounded before the validator is called, and violations are collected up to a limit."""

from __future__ import annotations

import time
from typing import Any

import pytest

from confide.errors import MAX_LISTED_VIOLATIONS
from confide.integration_types import schema as schema_module
from confide.integration_types import validation_cost
from confide.integration_types.compiled import IntegrationType
from confide.integration_types.model import Mode
from confide.integration_types.schema import Schema
from confide.integration_types.validation_cost import MAX_POSSIBLE_VIOLATIONS, MAX_WORK_UNITS
from confide.slices import SlicedCall
from support.bounds import assert_within
from support.slicing import MAX_STEP_SECONDS, run_in_steps

Json = dict[str, Any]
# A unit is at most 10 ns on the machine on which it was measured. Other machines are slower, and busy.
SECONDS_OF_A_UNIT = 10e-9
SLOWER = 6
NAMES = [f"n{number}" for number in range(10)]
EMPTY: list[Json] = [{} for _ in range(9_900)]


def build_list_schema(items: Json) -> Json:
    return {"properties": {"a": {"items": items}}}


# For each attack, a schema and a configuration that takes the validator long.
ATTACKS: dict[str, tuple[Json, Json]] = {
    "ten required names": (build_list_schema({"required": NAMES}), {"a": EMPTY}),
    "a hundred required names": (
        build_list_schema({"required": [f"n{number}" for number in range(100)]}),
        {"a": [{f"n{number}": 0 for number in range(100)} for _ in range(370)]},
    ),
    "dependentRequired": (
        build_list_schema({"dependentRequired": {f"n{number}": ["x"] for number in range(5_000)}}),
        {"a": EMPTY},
    ),
    "dependentSchemas": (
        build_list_schema({"dependentSchemas": {f"n{number}": {"type": "object"} for number in range(90)}}),
        {"a": EMPTY * 8},
    ),
    "90 patterns of names": (
        {"patternProperties": {f"^.*x{number}$": {"type": "integer"} for number in range(90)}},
        {f"m{number}": 1 for number in range(2_000)},
    ),
    "many alternatives": (build_list_schema({"anyOf": [{"type": "integer"}] * 90 + [{}]}), {"a": EMPTY * 8}),
    "an enum of objects": (build_list_schema({"enum": [{"x": number} for number in range(2_000)]}), {"a": EMPTY}),
    "an enum of long lists": (
        build_list_schema({"enum": [[1] * 10_000 + [number] for number in range(12)]}),
        {"a": [[1] * 10_000 + [11]] * 10},
    ),
    "a pattern without a small automaton": (
        build_list_schema({"anyOf": [{"pattern": "[ab]*a[ab]{60}[^ab]"}, {}]}),
        {"a": ["abbaabab" * 7_000] * 4},
    ),
    "a pattern with many repetitions": (
        build_list_schema({"anyOf": [{"pattern": "([ab]{1,40}){1,20}z"}, {}]}),
        {"a": ["ab" * 30_000] * 4},
    ),
    "internationalized host names": (
        build_list_schema({"format": "idn-hostname"}),
        {"a": ["ü.üx." * 12 + "de"] * 3_000},
    ),
    "multipleOf": (build_list_schema({"multipleOf": 1e-7}), {"a": [1.1e17] * 30_000}),
    "large integers": (
        build_list_schema({"allOf": [{"minimum": number} for number in range(90)]}),
        {"a": [10**390] * 600},
    ),
    "uniqueItems": ({"properties": {"a": {"uniqueItems": True}}}, {"a": [[number] for number in range(40_000)]}),
    "unevaluatedProperties": (
        build_list_schema(
            {
                "anyOf": [{"properties": {f"p{number}": True}} for number in range(40)],
                "unevaluatedProperties": {"type": "integer"},
            }
        ),
        {"a": [{f"m{number}": 1 for number in range(1_000)} for _ in range(20)]},
    ),
    "patterns of property names": (
        build_list_schema({"propertyNames": {"pattern": "^[a-z0-9]+$"}}),
        {"a": [{f"p{number}": 1} for number in range(30_000)]},
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_measured_cost_is_an_upper_bound_of_the_time_of_the_validator(
    attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation_cost, "MAX_WORK_UNITS", 10**12)
    schema, (_, configuration) = Schema(ATTACKS[attack][0]), ATTACKS[attack]
    cost = schema._cost.measure(configuration)
    began = time.thread_time()
    schema._validator.is_valid(configuration)
    seconds = time.thread_time() - began
    assert_within(seconds, 0.001 + cost.units * SECONDS_OF_A_UNIT * SLOWER, attack)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_holds_the_event_loop(attack: str) -> None:
    type_ = IntegrationType(1, Schema(ATTACKS[attack][0]), mode=Mode.ENFORCE)
    steps = run_in_steps(lambda: type_.check_save(None, ATTACKS[attack][1]))
    assert_within(steps.longest_seconds, MAX_STEP_SECONDS * SLOWER, f"the longest step of {attack}")


@pytest.mark.parametrize("attack", ["dependentRequired", "90 patterns of names", "an enum of objects", "multipleOf"])
def test_a_configuration_that_would_take_too_long_to_check_is_rejected(attack: str) -> None:
    type_ = IntegrationType(1, Schema(ATTACKS[attack][0]), mode=Mode.ENFORCE)
    (rejected,) = type_.check_save(None, ATTACKS[attack][1]).rejected
    assert (rejected.place, rejected.rule) == ((), "schema")
    assert "take too long" in rejected.sentence
    type_.mode = Mode.WARN
    check = type_.check_save(None, ATTACKS[attack][1])
    assert (check.rejected, check.warned) == ([], [rejected])


def test_violations_are_collected_up_to_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[int] = []
    describe = schema_module._describe_error

    def count(*args: Any) -> Any:
        described.append(1)
        return describe(*args)

    monkeypatch.setattr(schema_module, "_describe_error", count)
    found = Schema(build_list_schema({"required": NAMES})).check({"a": EMPTY})
    assert len(found.violations) == MAX_LISTED_VIOLATIONS
    assert not found.is_complete
    assert len(described) <= MAX_LISTED_VIOLATIONS + MAX_POSSIBLE_VIOLATIONS
    assert found.violations[11].place == ("a", 1, "n1")
    assert found.violations[11].rule_at == "/properties/a/items/required"


DOCUMENTED: dict[str, tuple[Json, Json]] = {
    "a reference": (
        {"properties": {"a": {"$ref": "#/$defs/list"}}, "$defs": {"list": {"items": {"required": ["x"]}}}},
        {"a": [{}, {"x": 1}, {}]},
    ),
    "allOf": (
        {"properties": {"a": {"allOf": [{"items": {"type": "string"}}, {"maxItems": 9}]}}},
        {"a": [1, "a", 2]},
    ),
    "names": (
        {"additionalProperties": {"additionalProperties": False, "properties": {"x": {"minimum": 5}}}},
        {"m1": {"x": 1, "y": 2}, "m2": {"x": 9}, "m/3": {"z": 1}},
    ),
    "patterns": ({"patternProperties": {"^m": {"properties": {"x": {"const": 1}}}}}, {"m": {"x": 2}, "n": {"x": 2}}),
    "an id": ({"$id": "https://example.com/a", "properties": {"a": {"items": {"minimum": 3}}}}, {"a": [1, 5, 2]}),
    "draft-07": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "properties": {"a": {"items": [{"type": "string"}], "additionalItems": {"type": "integer"}}},
        },
        {"a": [1, "x", 3]},
    ),
}


@pytest.mark.parametrize("case", DOCUMENTED)
def test_the_violations_of_the_parts_are_those_of_the_whole(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document, configuration = DOCUMENTED[case]
    whole = Schema(document).check(configuration)
    assert whole.violations
    assert whole.is_complete
    # Each part can list a few violations, and the whole too many.
    monkeypatch.setattr(schema_module, "MAX_POSSIBLE_VIOLATIONS", 4)
    schema = Schema(document)
    parts = list(schema._find_in_parts(configuration, schema._filling, ()))
    expected = {(one.place, one.rule_at) for one in whole.violations}
    assert {(one.place, one.rule_at) for one in parts if one.rule_at} <= expected
    assert any(one.rule_at for one in parts)


def test_a_large_configuration_with_a_violation_of_a_conditional_subschema_is_still_rejected() -> None:
    document = {"if": {"required": ["a"]}, "then": build_list_schema({"required": NAMES})}
    type_ = IntegrationType(1, Schema(document), mode=Mode.ENFORCE)
    (rejected,) = type_.check_save(None, {"a": EMPTY[:500]}).rejected
    assert rejected.sentence == "The configuration violates the schema and is too large to list where."


def test_a_save_cannot_hide_a_new_violation_behind_a_thousand_old_ones() -> None:
    type_ = IntegrationType(1, Schema(build_list_schema({"required": NAMES})), mode=Mode.ENFORCE)
    before = {"a": EMPTY[:500]}
    check = type_.check_save(before, {"a": [*EMPTY[:500], {}]})
    assert [one.place for one in check.rejected] == [()]
    assert "too many violations" in check.rejected[0].sentence
    # With fewer violations, each one is compared.
    few = {"a": EMPTY[:20]}
    check = type_.check_save(few, {**few, "b": 1})
    assert (check.rejected, len(check.warned)) == ([], 200)


def test_an_ordinary_configuration_is_far_below_the_limits() -> None:
    url = {"type": "string", "format": "uri", "pattern": "^https?://[^\\s/$.?#].[^\\s]*$"}
    schema = Schema(
        {
            "required": ["username", "password"],
            "properties": {
                "username": {"type": "string", "minLength": 1},
                "urls": {"additionalProperties": url},
                "zones": {"items": {"enum": [f"Zone/{number}" for number in range(600)]}},
            },
        }
    )
    urls = {f"url{number}": "https://session.manager.svc/path" for number in range(30)}
    cost = schema._cost.measure({"username": "a", "password": "b", "urls": urls, "zones": ["Zone/1"] * 100})
    assert cost.units < MAX_WORK_UNITS / 5
    assert cost.violations < MAX_POSSIBLE_VIOLATIONS


def test_a_deliberately_unbounded_computation_is_found() -> None:
    def hold() -> None:
        until = time.thread_time() + MAX_STEP_SECONDS * 2
        while time.thread_time() < until:
            pass

    assert run_in_steps(hold).longest_seconds > MAX_STEP_SECONDS
    assert SlicedCall(lambda: 1).run_slice(0)
