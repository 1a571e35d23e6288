"""Schemas: hostile ones are rejected or harmless, and they decide violations, defaults and secrets."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft201909Validator, Draft202012Validator

from confide.integration_types.compiled import IntegrationType
from confide.integration_types.errors import SchemaInvalid
from confide.integration_types.masking import MASK, mask
from confide.integration_types.model import Mode
from confide.integration_types.registration import compile_for_registration
from confide.integration_types.schema import Schema
from confide.strict_json import format_pointer, write
from support.canaries import make_canary
from support.json_values import OBJECTS

SECRET = make_canary("schema")
DRAFT_07 = "http://json-schema.org/draft-07/schema#"
DRAFT_2019_09 = "https://json-schema.org/draft/2019-09/schema"
CHAIN = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)} | {"d30": {}}
REJECTED: dict[str, Any] = {
    "a reference over the network": {"$ref": "http://127.0.0.1:9/schema"},
    "a reference over TLS": {"properties": {"a": {"$ref": "https://example.com/s.json"}}},
    "a reference to a file": {"$ref": "file:///etc/passwd"},
    "a relative reference": {"$ref": "other.json"},
    "an anchor": {"$ref": "#here", "$anchor": "here"},
    "a missing target": {"$ref": "#/$defs/none"},
    "a reference that is a number": {"$ref": 5},
    "an empty reference": {"$ref": ""},
    "a cycle": {"$ref": "#"},
    "a cycle through another schema": {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}},
    "a cycle through not": {"not": {"$ref": "#"}},
    "two references at each of thirty levels": {"$ref": "#/$defs/d0", "$defs": CHAIN},
    "two references to itself in each element": {"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}},
    "a dynamic reference": {"$dynamicRef": "#meta"},
    "the keyword dependencies of earlier drafts": {"dependencies": {"a": {"properties": {"b": {"writeOnly": True}}}}},
    "an id on the path of a reference": {
        "$ref": "#/$defs/x/items",
        "$defs": {"x": {"$id": "https://example.com/x", "items": {}}},
    },
    "an id inside": {"properties": {"a": {"$id": "https://example.com/a"}}},
    "an earlier dialect": {"$schema": "http://json-schema.org/draft-04/schema#"},
    "a dialect of another site": {"$schema": "https://example.com/draft-07/schema#"},
    "a dialect that is a number": {"$schema": 7},
    "a part of another dialect": {"properties": {"a": {"$schema": DRAFT_07}}},
    "a boolean limit of draft-04": {"$schema": DRAFT_07, "minimum": 1, "exclusiveMinimum": True},
    "a list of items of earlier drafts": {"items": [{}]},
    "a cycle through dependencies": {"$schema": DRAFT_07, "dependencies": {"a": {"$ref": "#"}}},
    "a remote reference of draft-07": {"$schema": DRAFT_07, "items": [{"$ref": "other.json"}]},
    "a remote reference that no other schema uses": {
        "$schema": DRAFT_07,
        "definitions": {"a": {"$ref": "http://127.0.0.1:9/schema"}},
    },
    "two references at each of thirty levels of draft-07": {
        "$schema": DRAFT_07,
        "allOf": [{"$ref": "#/$defs/d0"}],
        "$defs": CHAIN,
    },
    "a vocabulary": {"$vocabulary": {"https://example.com/v": True}},
    "a quantifier of a million": {"pattern": "(a{1000}){1000}"},
    "a quantifier in a name": {"patternProperties": {"(a{1000}){1000}": {}}},
    "a lookahead": {"pattern": "(?=(a+)+$)b"},
    "a back reference": {"patternProperties": {"(a)\\1": {}}},
    "an unknown type": {"type": "nothing"},
    "an object for a list": {"allOf": {}},
    "a number for an object": {"properties": 5},
    "a number for a schema": {"properties": {"a": 5}},
    "a number for a pattern": {"pattern": 5},
    "too many subschemas": {"properties": {f"p{i}": {} for i in range(1_500)}},
    "too many subschemas at one place": {"anyOf": [{"minProperties": i} for i in range(150)]},
    "a default of a secret by its name": {"properties": {"password": {"default": "x"}}},
    "a default of a secret by the schema": {"properties": {"a": {"writeOnly": True, "default": "x"}}},
    "a default of a secret by another branch": {
        "properties": {"a": {"default": "x"}},
        "anyOf": [{"properties": {"a": {"writeOnly": True}}}],
    },
    "a default with a secret in it": {"properties": {"a": {"default": {"password": "x"}}}},
    "a default in a secret": {"properties": {"a": {"writeOnly": True, "properties": {"b": {"default": 1}}}}},
    "a default in a secret by its name": {"properties": {"secrets": {"additionalProperties": {"default": "x"}}}},
    "a default of a secret for other tools": {"properties": {"a": {"airbyte_secret": True, "default": "x"}}},
    "a default of a password": {"properties": {"a": {"format": "password", "default": "x"}}},
    "a default of a secret pair": {"properties": {"a": {"default": [{"name": "token", "value": "x"}]}}},
    "a default with a password in a URL": {"properties": {"a": {"default": "postgres://u:x@h"}}},
    "a default of a secret that violates its schema": {"properties": {"token": {"type": "null", "default": "x"}}},
    "a whole secret for other tools": {"airbyte_secret": True},
    "a whole password": {"format": "password"},
    "a default of a secret by a pattern": {"patternProperties": {"^x": {"properties": {"password": {"default": "x"}}}}},
    "a default that is the mask": {"properties": {"o": {"default": {"password": MASK}}}},
    "a secret as a whole": {"writeOnly": True},
    "a secret as a whole by reference": {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"writeOnly": True}]}}},
    "too many places": {
        "$defs": {
            "A": {"properties": {f"p{i}": {"$ref": "#/$defs/A"} for i in range(240)}},
            **{f"B{j}": {"additionalProperties": {"$ref": f"#/$defs/B{(j + 1) % 19}"}} for j in range(19)},
        },
        "allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B0"}],
    },
    "many large patterns": {"properties": {f"p{i}": {"pattern": f"^\\p{{L}}{{20}}x{i}"} for i in range(900)}},
    "many large patterns of names": {
        "properties": {
            f"p{j}": {"patternProperties": {f"^\\p{{L}}{{20}}{i}y{j}": {} for i in range(90)}} for j in range(9)
        }
    },
}
HARMLESS: dict[str, tuple[Any, Any]] = {
    "catastrophic": ({"properties": {"a": {"pattern": "(a+)+$"}}}, {"a": "a" * 60_000 + "b"}),
    "catastrophic names": ({"patternProperties": {"(x+x+)+y": {"type": "null"}}}, {"x" * 250: 1}),
    "unique elements": ({"properties": {"a": {"uniqueItems": True}}}, {"a": list(range(40_000))}),
    "choices": ({"additionalProperties": {"items": {"anyOf": [{"const": i} for i in range(90)]}}}, {"a": [-1] * 999}),
    "contained": ({"properties": {"a": {"contains": {"const": 1}}}}, {"a": [2] * 60_000}),
    "recursion over data": ({"properties": {"n": {"$ref": "#"}}}, {"n": {"n": {"n": {"n": {"n": {}}}}}}),
    "formats": (
        {"properties": {"a": {"format": "email"}, "b": {"format": "uri"}, "c": {"format": "idn-hostname"}}},
        {"a": "a" * 60_000, "b": "b" * 60_000, "c": "\u00e9" * 30_000},
    ),
    "a huge bound": ({"properties": {"a": {"maximum": 10**399}}}, {"a": 10**398}),
    "a tiny step": ({"properties": {"a": {"multipleOf": 1e-300}}}, {"a": 1e300}),
    "a long list of values": ({"enum": [str(i) * 30 for i in range(2_000)]}, {}),
    "many small patterns": ({"properties": {f"p{i}": {"pattern": f"^[a-z]{{3}}x{i}$"} for i in range(900)}}, {}),
    "a tree of many branches": (
        {"$defs": {"A": {"properties": {f"p{i}": {"$ref": "#/$defs/A"} for i in range(120)}}}, "$ref": "#/$defs/A"},
        {"p1": {"p2": {"p3": {}}}},
    ),
    "many choices in a long list": (
        {"properties": {"d": {"default": 1}, "l": {"items": {"allOf": [
            {"properties": {f"p{i}": {}}} for i in range(45)]}}}},
        {"l": [{"p1": 1}] * 28_000},
    ),
    "many defaults": ({"properties": {f"p{i}": {"type": "object", "default": i} for i in range(900)}}, {}),
    "a large default under many choices": (
        {"properties": {"a": {"default": [-1] * 20_000, "items": {"anyOf": [{"const": i} for i in range(90)]}}}}, {}),
    "a large default that violates its schema": (
        {"properties": {"a": {"default": [{}] * 9_000, "items": {"properties": {"b": {"default": 1}}}, "maxItems": 9}}},
        {}),
    "many choices of draft-07": (
        {"$schema": DRAFT_07, "dependencies": {"a": {"items": [{"anyOf": [{"const": i} for i in range(90)]}]}}},
        {"a": [-1] * 999}),
    "many patterns": ({"properties": {f"p{i}": {"pattern": f"^[a-z]{{1,{i + 1}}}$"} for i in range(90)}}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", REJECTED)
def test_a_hostile_schema_is_rejected_quickly_with_its_place(name: str) -> None:
    began = time.process_time()
    with pytest.raises(SchemaInvalid) as raised:
        compile_for_registration(REJECTED[name])
    assert time.process_time() - began < 0.5
    assert all(violation.pointer.startswith("/schema") for violation in raised.value.violations)


@pytest.mark.parametrize("name", HARMLESS)
def test_an_accepted_schema_is_applied_quickly(name: str) -> None:
    document, configuration = HARMLESS[name]
    began = time.process_time()
    schema, _ = compile_for_registration(document)
    schema.find_violations(configuration)
    mask(schema.fill_defaults(configuration), schema.place)
    assert time.process_time() - began < 0.5


def test_all_violations_are_listed_with_pointer_and_rule() -> None:
    schema = Schema(
        {
            "required": ["host", "port"],
            "properties": {
                "host": {"type": "string"},
                "port": {"maximum": 9},
                "deep": {"properties": {"a": {}}, "additionalProperties": False},
            },
        }
    )
    found = schema.find_violations({"port": 10, "host": 5, "deep": {"one": 1, "two": 2}})
    listed = sorted((format_pointer(violation.place), violation.rule) for violation in found)
    assert listed == [
        ("/deep/one", "additionalProperties"),
        ("/deep/two", "additionalProperties"),
        ("/host", "type"),
        ("/port", "maximum"),
    ]
    assert [format_pointer(violation.place) for violation in schema.find_violations({})] == ["/host", "/port"]


VIOLATED_RULES: list[Any] = [
    {"type": "integer"}, {"enum": [1]}, {"const": 1}, {"pattern": "^x$"}, {"maxLength": 1}, {"format": "email"},
    {"not": {}}, {"anyOf": [{"type": "null"}]}, {"oneOf": [{}, {}]}, {"if": {}, "then": False}, False,
    {"contentEncoding": "base64", "type": "number"}, {"allOf": [{"maxLength": 2}, {"pattern": "y"}]},
]  # fmt: skip


@pytest.mark.parametrize("dialect", [DRAFT_07, DRAFT_2019_09, None])
@pytest.mark.parametrize(
    "rule", [*VIOLATED_RULES, {"contentMediaType": "application/json", "contentEncoding": "base64"}]
)
@pytest.mark.parametrize("value", [SECRET, [SECRET], {"inner": SECRET}], ids=["text", "list", "object"])
def test_a_violation_never_contains_the_value(rule: Any, value: Any, dialect: str | None) -> None:
    inside = rule if isinstance(value, str) else {"items": rule, "additionalProperties": rule, "uniqueItems": True}
    for schema in (
        {"properties": {"a": inside}},
        {"additionalProperties": inside},
        {"patternProperties": {"a": inside}},
    ):
        document = schema if dialect is None else {"$schema": dialect, **schema}
        for violation in Schema(document).find_violations({"a": value}):
            assert SECRET not in violation.sentence + violation.rule + str(violation.place)


@pytest.mark.parametrize(
    ("schema", "configuration", "expected"),
    [
        ({"properties": {"a": {"writeOnly": True}}}, {"a": [1], "b": 2}, {"a": MASK, "b": 2}),
        ({"properties": {"password": {"writeOnly": False}}}, {"password": "p"}, {"password": "p"}),
        ({"properties": {"password": {}}}, {"password": "p"}, {"password": MASK}),
        ({"properties": {"a": {"$ref": "#/$defs/s"}}, "$defs": {"s": {"writeOnly": True}}}, {"a": 1}, {"a": MASK}),
        ({"allOf": [{"properties": {"a": {"writeOnly": True}}}]}, {"a": 1}, {"a": MASK}),
        ({"anyOf": [{"properties": {"a": {"writeOnly": True}}}, {}]}, {"a": 1}, {"a": MASK}),
        ({"oneOf": [{}, {"properties": {"a": {"writeOnly": True}}}]}, {"a": 1}, {"a": MASK}),
        ({"if": {"properties": {"a": {"writeOnly": True}}}}, {"a": 1}, {"a": MASK}),
        ({"if": {}, "else": {"properties": {"a": {"writeOnly": True}}}}, {"a": 1}, {"a": MASK}),
        ({"dependentSchemas": {"b": {"properties": {"a": {"writeOnly": True}}}}}, {"a": 1}, {"a": MASK}),
        ({"patternProperties": {"^x_": {"writeOnly": True}}}, {"x_a": 1, "a": 2}, {"x_a": MASK, "a": 2}),
        ({"additionalProperties": {"writeOnly": True}, "properties": {"a": {}}}, {"a": 1, "b": 2}, {"a": 1, "b": MASK}),
        ({"properties": {"l": {"items": {"writeOnly": True}}}}, {"l": [1, 2]}, {"l": [MASK, MASK]}),
        ({"properties": {"l": {"prefixItems": [{}, {"writeOnly": True}]}}}, {"l": [1, 2, 3]}, {"l": [1, MASK, 3]}),
        (
            {"additionalProperties": {"items": {"properties": {"a": {"writeOnly": True}}}}},
            {"l": [{"a": 1}]},
            {"l": [{"a": MASK}]},
        ),
        (
            {"anyOf": [{"properties": {"a": {"writeOnly": False}}}, {"properties": {"a": {"writeOnly": True}}}]},
            {"a": 1},
            {"a": MASK},
        ),
        ({"$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}, "k": {"writeOnly": True}}}}, "$ref": "#/$defs/n"},
         {"n": {"n": {"k": 1}}}, {"n": {"n": {"k": MASK}}}),
    ],
)  # fmt: skip
def test_a_value_is_secret_if_any_applicable_subschema_says_so(schema: Any, configuration: Any, expected: Any) -> None:
    assert mask(configuration, Schema(schema).place) == expected


@pytest.mark.parametrize(
    ("schema", "configuration", "expected"),
    [
        ({"properties": {"a": {"default": 1}, "b": {"default": 2}}}, {"b": 3}, {"b": 3, "a": 1}),
        ({"properties": {"o": {"properties": {"a": {"default": 1}}}}}, {}, {}),
        ({"properties": {"o": {"properties": {"a": {"default": 1}}}}}, {"o": {}}, {"o": {"a": 1}}),
        ({"properties": {"o": {"default": {}, "properties": {"a": {"default": 1}}}}}, {}, {"o": {"a": 1}}),
        ({"allOf": [{"properties": {"a": {"default": 1}}}]}, {}, {"a": 1}),
        ({"anyOf": [{"properties": {"a": {"default": 1}}}]}, {}, {}),
        ({"properties": {"a": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"default": 1}}}, {}, {"a": 1}),
        ({"properties": {"l": {"items": {"properties": {"a": {"default": 1}}}}}}, {"l": [{}, 5]}, {"l": [{"a": 1}, 5]}),
        ({"properties": {"a": {"default": None}}}, {}, {"a": None}),
    ],
)  # fmt: skip
def test_defaults_fill_in_missing_members(schema: Any, configuration: Any, expected: Any) -> None:
    before = repr(configuration)
    assert Schema(schema).fill_defaults(configuration) == expected
    assert repr(configuration) == before


def test_violations_are_found_after_filling_in_defaults() -> None:
    schema = {"required": ["a"], "properties": {"a": {"default": 1}}}
    assert Schema(schema).find_violations({}) == []


def test_defaults_apply_to_members_that_match_a_pattern() -> None:
    schema = Schema({"patternProperties": {"^x": {"properties": {"timeout": {"default": 5}}}}})
    assert schema.fill_defaults({"x1": {}, "y": {}}) == {"x1": {"timeout": 5}, "y": {}}


@pytest.mark.parametrize("value", [{}, [], "", 5, "secret", {"a": 1}])
@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"additionalProperties": False}},
        {"patternProperties": {"additionalProperties": False}},
        {"properties": {"additionalProperties": {"$ref": "#/$defs/propertyNames"}}, "$defs": {"propertyNames": False}},
        {"dependentSchemas": {"additionalProperties": False}},
    ],
)
def test_a_member_can_have_the_name_of_a_keyword(schema: Any, value: Any) -> None:
    (violation,) = Schema(schema).find_violations({"additionalProperties": value})
    # Below `dependentSchemas`, the object violates the rule, because it has that member.
    assert format_pointer(violation.place) == ("" if "dependentSchemas" in schema else "/additionalProperties")


def test_the_first_of_two_defaults_applies() -> None:
    defs = {name: {"properties": {"x": {"properties": {"d": {"default": name}}}}} for name in "AB"}
    both = [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]
    properties = {"one": {"allOf": both}, "two": {"allOf": both[::-1]}}
    for order in (["one", "two"], ["two", "one"]):
        filled = Schema({"$defs": defs, "properties": properties}).fill_defaults({name: {"x": {}} for name in order})
        assert (filled["one"]["x"], filled["two"]["x"]) == ({"d": "A"}, {"d": "B"})


def test_a_member_can_be_named_id() -> None:
    schema = Schema({"properties": {"$id": {"type": "string"}, "a": {"$ref": "#/properties/$id"}}})
    assert [format_pointer(violation.place) for violation in schema.find_violations({"$id": "x", "a": 5})] == ["/a"]


def test_a_reference_is_percent_decoded_before_it_is_split() -> None:
    schema = {"$defs": {"a": {"b": {"properties": {"x": {"writeOnly": True}}}}, "a/b": {}}, "$ref": "#/$defs/a%2Fb"}
    assert mask({"x": 1}, Schema(schema).place) == {"x": MASK}
    schema["$ref"] = "#/$defs/a~1b"
    assert mask({"x": 1}, Schema(schema).place) == {"x": 1}


def test_defaults_that_would_make_a_configuration_too_large_are_a_violation() -> None:
    schema = Schema({"properties": {"l": {"items": {"properties": {"q": {"default": "x" * 200_000}}}}}})
    small: dict[str, Any] = {"l": [{}]}
    large: dict[str, Any] = {"l": [{}] * 3_000}
    assert len(schema.fill_defaults(small)["l"][0]["q"]) == 200_000
    began = time.process_time()
    assert schema.fill_defaults(large) == large
    assert [violation.rule for violation in schema.find_violations(large)] == ["default"]
    assert time.process_time() - began < 0.5


def test_defaults_inside_themselves_without_an_end_are_a_violation() -> None:
    nodes = {"node": {"default": {}, "properties": {"next": {"$ref": "#/$defs/node"}}}}
    schema = Schema({"$defs": nodes, "properties": {"first": {"$ref": "#/$defs/node"}}})
    assert schema.fill_defaults({"a": 1}) == {"a": 1}
    assert [violation.rule for violation in schema.find_violations({})] == ["default"]


def test_masking_a_long_list_under_many_subschemas_is_quick() -> None:
    schema = Schema({"properties": {"l": {"items": {"anyOf": [{"minLength": n} for n in range(90)]}}}})
    began = time.process_time()
    mask({"l": ["x"] * 60_000}, schema.place)
    assert time.process_time() - began < 0.5


def test_a_violation_beyond_the_reported_number_is_not_accepted() -> None:
    type_ = IntegrationType(
        1, Schema({"properties": {"l": {"items": {"type": "integer"}}, "z": {"type": "integer"}}}), mode=Mode.ENFORCE
    )
    before: Any = {"l": ["x"] * 1_500, "z": 1}
    rejected, warned = type_.check_save(before, {**before, "z": "bad"})
    assert [format_pointer(violation.place) for violation in rejected] == [""]
    assert len(warned) == 1_000
    rejected, _ = type_.check_save(before, {**before, "l": [*before["l"], "y"]})
    assert [format_pointer(violation.place) for violation in rejected] == [""]


def test_violations_inside_a_secret_are_reported_as_one_without_details() -> None:
    vault = {"writeOnly": True, "propertyNames": {"maxLength": 3}, "additionalProperties": {"type": "integer"}}
    schema = Schema({"properties": {"vault": vault, "open": {"type": "integer"}}})
    configuration = {"vault": {SECRET: "x"}, "open": "x"}
    found = schema.find_violations(configuration)
    assert all(SECRET not in violation.sentence for violation in found), (
        "no sentence contains a member name of a secret"
    )
    places = {
        (format_pointer(hidden.place), hidden.rule)
        for violation in found
        for hidden in [violation.hide_secrets(schema.place, configuration)]
    }
    assert places == {("/vault", "secret"), ("/open", "type")}


@pytest.mark.parametrize(
    ("configuration", "place"),
    [
        ({"headers": [{"name": "token", "value": SECRET}]}, "/headers/0/value"),
        ({"credentials": SECRET}, "/credentials"),
        ({"credentials": {"extra": SECRET}}, "/credentials/extra"),
        ({"marked": SECRET}, "/marked"),
        ({"token1": SECRET}, "/token1"),
    ],
)
def test_a_violation_hides_the_rules_of_each_form_of_secret(configuration: Any, place: str) -> None:
    short = {"maxLength": 3}
    credentials = {"type": "object", "properties": {"id": {}}, "additionalProperties": short}
    header = {"properties": {"value": short}}
    properties = {"headers": {"items": header}, "credentials": credentials, "marked": {"airbyte_secret": True, **short}}
    type_ = IntegrationType(1, Schema({"properties": {**properties, "token1": short}}))
    (violation,) = type_.list_violations(write(configuration), is_masked=True)
    assert (violation.pointer, violation.code) == (place, "secret")
    (violation,) = type_.list_violations(write(configuration))
    assert violation.code in ("maxLength", "type")


STRICT = IntegrationType(
    1,
    Schema(
        {
            "required": ["host", "port"],
            "properties": {
                "host": {"type": "string"},
                "port": {"type": "integer"},
                "l": {"items": {"required": ["name"]}},
                "no": {"additionalProperties": False},
            },
            "propertyNames": {"pattern": "^[a-z]+$"},
        }
    ),
    mode=Mode.ENFORCE,
)


@pytest.mark.parametrize(
    ("before", "after", "rejected", "warned"),
    [
        (None, {"host": 5}, ["/host", "/port"], []),
        ({"host": 5}, {"host": 5, "note": 1}, [], ["/host", "/port"]),
        ({"host": 5}, {"host": 6}, ["/host"], ["/port"]),
        ({"host": 5}, {"host": "h"}, [], ["/port"]),
        ({"host": "h", "port": 1}, {"host": "h"}, ["/port"], []),
        ({"host": "h"}, {"host": "h", "port": "x"}, ["/port"], []),
        ({"host": "h", "port": 1}, {"host": "g", "port": 1}, [], []),
        ({"host": "h", "port": 1, "l": [{"a": 1}]}, {"host": "h", "port": 1, "l": [{"b": 1}]}, ["/l/0/name"], []),
        ({"host": "h", "port": 1, "l": [{"a": 1}]}, {"host": "g", "port": 1, "l": [{"a": 1}]}, [], ["/l/0/name"]),
        ({"host": "h", "port": 1, "Bad": 1}, {"host": "g", "port": 1, "Bad": 1}, [], ["/Bad"]),
        ({"host": "h", "port": 1, "Bad": 1}, {"host": "h", "port": 1, "Bad": 1, "Worse": 1}, ["/Worse"], ["/Bad"]),
        ({"host": "h", "port": 1, "no": {"a": 1}}, {"host": "h", "port": 1, "no": {"a": 1, "b": 1}},
         ["/no/b"], ["/no/a"]),
    ],
)  # fmt: skip
def test_mode_enforce_rejects_a_save_only_for_new_or_changed_violations(
    before: Any, after: Any, rejected: Any, warned: Any
) -> None:
    found = STRICT.check_save(before, after)
    assert [sorted(format_pointer(violation.place) for violation in violations) for violations in found] == [
        rejected,
        warned,
    ]


@given(OBJECTS, st.booleans())
def test_a_schema_accepts_the_same_configurations_as_the_reference_implementation(
    configuration: Any, is_closed: bool
) -> None:

    document = {
        "maxProperties": 3,
        "additionalProperties": not is_closed,
        "properties": {"a": {"type": ["null", "string"]}},
    }
    assert bool(Schema(document).find_violations(configuration)) == (
        not Draft202012Validator(document).is_valid(configuration)
    )


DIALECTS: dict[str, Any] = {
    DRAFT_07: Draft7Validator,
    "https://json-schema.org/draft-07/schema": Draft7Validator,
    DRAFT_2019_09: Draft201909Validator,
    "https://json-schema.org/draft/2019-09/schema#": Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": Draft202012Validator,
}
RULES_OF_DIALECTS: dict[str, tuple[Any, Any]] = {
    "a list of items": ({"items": [{"type": "integer"}], "additionalItems": False}, [["x"], [1], [1, 2], []]),
    "first items": ({"prefixItems": [{"type": "integer"}], "items": False}, [["x"], [1], [1, 2]]),
    "a required dependency": ({"dependencies": {"a": ["b"]}}, [{"a": 1}, {"a": 1, "b": 1}]),
    "a dependency": ({"dependencies": {"a": {"required": ["b"]}}}, [{"a": 1}, {"a": 1, "b": 1}]),
    "a dependent schema": ({"dependentSchemas": {"a": {"required": ["b"]}}}, [{"a": 1}, {"a": 1, "b": 1}]),
    "a required dependent": ({"dependentRequired": {"a": ["b"]}}, [{"a": 1}, {"a": 1, "b": 1}]),
    "a keyword beside a reference": ({"$ref": "#/definitions/n", "maximum": 5}, [3, 7, "x"]),
    "members that no schema evaluated": (
        {"properties": {"a": {}}, "unevaluatedProperties": False},
        [{"a": 1}, {"b": 1}],
    ),
    "a number of contained elements": ({"contains": {"const": 1}, "maxContains": 1}, [[1], [1, 1]]),
    "a choice": ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, [{"a": 1}, {"a": 1, "b": 1}, {}]),
    "an exclusive limit": ({"exclusiveMinimum": 1}, [1, 2]),
    "names": ({"propertyNames": {"maxLength": 1}}, [{"a": 1}, {"ab": 1}]),
}
# python-jsonschema leaves out `dependencies` in 2019-09; jsonschema-rs keeps it, as the specification allows.
KEPT_DEPENDENCIES = {"a required dependency", "a dependency"}


@pytest.mark.parametrize("rule", RULES_OF_DIALECTS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_schema_has_the_meaning_of_its_dialect(dialect: str, rule: str) -> None:
    keywords, values = RULES_OF_DIALECTS[rule]
    document = {"$schema": dialect, "definitions": {"n": {"type": "integer"}}, "properties": {"v": keywords}}
    if "2020-12" in dialect and {"additionalItems", "dependencies"} & keywords.keys():
        with pytest.raises(SchemaInvalid, match="not supported"):
            Schema(document)
        return
    reference = DIALECTS[DRAFT_07 if "2019" in dialect and rule in KEPT_DEPENDENCIES else dialect](document)
    for value in values:
        is_accepted = not Schema(document).find_violations({"v": value})
        assert is_accepted == reference.is_valid({"v": value}), value


@pytest.mark.parametrize("dialect", DIALECTS)
def test_secrets_and_defaults_follow_the_keywords_of_the_dialect(dialect: str) -> None:
    secret = {"writeOnly": True}
    is_latest = "2020-12" in dialect
    first, rest = ("prefixItems", "items") if is_latest else ("items", "additionalItems")
    document = {
        "$schema": dialect,
        "definitions": {"n": {}, "s": secret, "d": {"properties": {"x": {"default": 1}}}},
        "properties": {
            "reference": {"$ref": "#/definitions/s"},
            "object": {"$ref": "#/definitions/d"},
            "marked": {"$ref": "#/definitions/n", "airbyte_secret": True},
            "list": {first: [{}, secret], rest: secret},
            "elements": {"items": secret},
        },
        "dependentSchemas" if is_latest else "dependencies": {"object": {"properties": {"dependent": secret}}},
    }  # fmt: skip
    schema, warnings = compile_for_registration(document)
    assert warnings == ()
    assert schema.fill_defaults({"object": {}}) == {"object": {"x": 1}}
    if not is_latest and "draft-07" not in dialect:
        assert mask({"dependent": 1}, Schema({**document, "dependentSchemas": {"a": {}}}).place) == {"dependent": MASK}
    configuration: Any = {
        "reference": 1,
        "marked": {},
        "list": [1, 2, 3, 4],
        "elements": [1],
        "dependent": 1,
        "object": {},
    }
    assert mask(configuration, schema.place) == {
        "reference": MASK, "marked": MASK, "list": [1, MASK, MASK, MASK], "elements": [MASK], "dependent": MASK,
        "object": {},
    }  # fmt: skip


def test_draft_07_ignores_a_default_beside_a_reference_and_warns() -> None:
    document = {
        "$schema": DRAFT_07,
        "definitions": {"s": {}},
        "properties": {"a": {"$ref": "#/definitions/s", "default": 1}},
    }
    schema, (warning,) = compile_for_registration(document)
    assert warning.pointer == "/schema/properties/a/default"
    assert "allOf" in warning.detail
    assert schema.fill_defaults({}) == {}
    del document["$schema"]
    schema, warnings = compile_for_registration(document)
    assert (schema.fill_defaults({}), warnings) == ({"a": 1}, ())


@pytest.mark.parametrize(
    ("secret", "is_secret"),
    [
        ({"airbyte_secret": True}, True),
        ({"format": "password"}, True),
        ({"airbyte_secret": False}, False),
        ({"airbyte_secret": "true"}, False),
        ({"format": "uri"}, False),
        ({"format": "password", "writeOnly": False}, False),
        ({"airbyte_secret": True, "writeOnly": False}, False),
        ({"anyOf": [{"format": "password"}, {"type": "null"}]}, True),
    ],
)
def test_other_marks_of_secrets_count_unless_the_schema_says_write_only(secret: Any, is_secret: bool) -> None:
    schema = Schema({"properties": {"a": secret}})
    assert mask({"a": "x"}, schema.place) == {"a": MASK if is_secret else "x"}


@pytest.mark.parametrize("default", [None, "", True, False, {}, []])
@pytest.mark.parametrize("name", ["api_key", "verify_password", "a"])
def test_a_secret_can_have_a_default_that_reveals_nothing(name: str, default: Any) -> None:
    member = {"anyOf": [{"writeOnly": True}, {"type": "null"}], "default": default}
    schema, warnings = compile_for_registration({"properties": {name: member}})
    assert warnings == ()
    assert mask(schema.fill_defaults({}), schema.place) == {name: MASK}


@pytest.mark.parametrize(
    ("member", "is_by_name"),
    [
        ({"db_password": {"default": "x"}}, True),
        ({"token": {"default": 5}}, True),
        ({"a": {"default": {"password": "x"}}}, True),
        ({"a": {"writeOnly": True, "default": "x"}}, False),
        ({"password": {"format": "password", "default": "x"}}, False),
    ],
)
def test_the_error_says_that_the_name_made_a_member_secret(member: Any, is_by_name: bool) -> None:
    with pytest.raises(SchemaInvalid) as raised:
        compile_for_registration({"properties": member})
    (violation,) = raised.value.violations
    assert violation.detail.startswith("The name of this member makes it secret.") == is_by_name
    assert ('"writeOnly": false' in violation.detail) == is_by_name
    assert violation.pointer.startswith("/schema/properties/")


def test_an_ordinary_member_can_have_any_default() -> None:
    properties = {"max_tokens": {"type": "integer", "default": 4096}, "auth_type": {"default": "basic"}}
    schema, warnings = compile_for_registration({"properties": properties})
    assert (schema.fill_defaults({}), warnings) == ({"max_tokens": 4096, "auth_type": "basic"}, ())


@pytest.mark.parametrize("id_", ["https://example.com/schema", "person.schema.json", "/schemas/person", "urn:a:b"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_default_that_violates_its_schema_is_a_warning_and_is_not_filled_in(dialect: str, id_: str) -> None:
    document = {
        "$schema": dialect,
        "$id": id_,
        "definitions": {"a/b %": {"type": "integer", "default": "x"}},
        "properties": {
            "method": {"type": "object", "default": "CDC"},
            "reference": {"$ref": "#/definitions/a~1b%20%25"},
            "object": {
                "default": {},
                "required": ["inner"],
                "properties": {"inner": {"type": "integer", "default": 1}},
            },
            "broken": {
                "default": {},
                "required": ["inner"],
                "properties": {"inner": {"type": "integer", "default": "x"}},
            },
            "port": {"type": "integer", "default": 5},
        },
    }
    schema, warnings = compile_for_registration(document)
    assert [(warning.pointer, warning.code) for warning in warnings] == [
        ("/schema/definitions/a~1b %/default", "default"),
        ("/schema/properties/broken/default", "default"),
        ("/schema/properties/broken/properties/inner/default", "default"),
        ("/schema/properties/method/default", "default"),
    ]
    assert schema.fill_defaults({}) == {"object": {"inner": 1}, "port": 5}
    assert schema.find_violations({}) == []


@pytest.mark.parametrize(
    "document",
    [
        {"properties": {"token1": {"default": "x"}}},
        {"properties": {"auth": {"type": "object", "default": {"user": "u"}}}},
        {"properties": {"url": {"default": "postgres://u:p@h"}}},
        {"properties": {"a": {"format": "password", "default": "x"}}},
        {"format": "password"},
        {"airbyte_secret": True, "properties": {"a": {}}},
    ],
)
def test_a_registered_schema_stays_valid_under_new_rules(document: Any) -> None:
    with pytest.raises(SchemaInvalid):
        compile_for_registration(document)
    schema = Schema(document)
    filled = schema.fill_defaults({})
    assert filled == {name: member["default"] for name, member in document.get("properties", {}).items() if member}
    assert all(MASK in str(value) for value in mask(filled, schema.place).values())
    assert mask({"b": 1}, schema.place) == {"b": 1}, "a configuration as a whole is not secret"
