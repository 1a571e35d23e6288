"""Strict JSON: what is accepted, and the code and place of each error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide import strict_json
from confide.errors import ServiceError
from support.json_texts import MALFORMED, WELL_FORMED
from support.json_values import OBJECTS


def read_error(data: bytes) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        strict_json.read_object(data)
    return caught.value


def wrap(inner: str) -> bytes:
    return f'{{"configuration":{inner}}}'.encode()


@given(OBJECTS)
def test_reading_written_json_returns_the_same_value(value: dict[str, Any]) -> None:
    assert strict_json.is_equal(strict_json.read_object(strict_json.write(value)), value)


@given(OBJECTS)
def test_the_canonical_form_is_stable(value: dict[str, Any]) -> None:
    once = strict_json.write(value)
    assert strict_json.write(strict_json.read_object(once)) == once


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_raise_a_service_error(data: bytes) -> None:
    try:
        strict_json.read_object(data)
    except ServiceError as error:
        assert error.code  # noqa: PT017 - nothing else may be raised


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_json_is_rejected_as_a_member_value(text: str) -> None:
    assert read_error(wrap(text)).code in {"json-invalid", "json-encoding", "json-duplicate-key", "json-surrogate"}


@pytest.mark.parametrize("text", WELL_FORMED)
def test_well_formed_json_is_read(text: str) -> None:
    assert strict_json.read_object(wrap(text)) == {"configuration": json.loads(text)}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "json-invalid"),
        (b"[]", "not-an-object"),
        (b"5", "not-an-object"),
        (b'"token"', "not-an-object"),
        (b"null", "not-an-object"),
        (b'\xef\xbb\xbf{"a":1}', "json-invalid"),
        ('{"a":1}'.encode("utf-16"), "json-encoding"),
        ('{"a":1}'.encode("utf-16-le"), "json-encoding"),
        (b'{"a":"\xff"}', "json-encoding"),
        (b'{"a":"\xed\xa0\x80"}', "json-encoding"),
        (b'{"a":1,"a":2}', "json-duplicate-key"),
        (b'{"a":1,"\\u0061":2}', "json-duplicate-key"),
        (b'{"l":[{"a":1,"a":2}]}', "json-duplicate-key"),
        (b'{"a":"\\ud800"}', "json-surrogate"),
        (b'{"\\udc00":1}', "json-surrogate"),
        (b'{"a":"\\u0000"}', "json-nul"),
        (b'{"a\\u0000b":1}', "json-nul"),
        (b'{"n":1e400}', "number-out-of-range"),
        (b'{"n":-1e400}', "number-out-of-range"),
        (b'{"n":1e-400}', "number-out-of-range"),
        (b'{"n":1e999999999999999999999}', "number-out-of-range"),
        (b'{"n":0.1000000000000000055}', "number-out-of-range"),
        (b'{"n":' + b"9" * 401 + b"}", "number-out-of-range"),
        (b'{"n":' + b"9" * 5_000 + b"}", "number-out-of-range"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "too-deep"),
        (b'{"a":' + b"[" * 32 + b"]" * 32 + b"}", "too-deep"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too-deep"),
        (b'{"' + b"k" * 257 + b'":1}', "key-too-long"),
        (('{"' + "ä" * 129 + '":1}').encode(), "key-too-long"),
        (b'{"a":"' + b"x" * 65_537 + b'"}', "string-too-long"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value[:24]),
)
def test_an_error_has_the_code_of_its_cause(data: bytes, code: str) -> None:
    assert read_error(data).code == code


@pytest.mark.parametrize(
    "text",
    [
        "9007199254740993",
        "9223372036854775808",
        "-170141183460469231731687303715884105728",
        "9" * 400,
        "0.1",
        "1.5",
        "1e22",
        "-0.0",
        "5e-324",
        "1.7976931348623157e308",
    ],
)
def test_an_exactly_representable_number_is_accepted(text: str) -> None:
    canonical = strict_json.write(strict_json.read_object(wrap(text)))
    assert json.loads(canonical, parse_float=str, parse_int=str)["configuration"] in {text, str(float(text))}
    assert json.loads(canonical) == json.loads(wrap(text))


def test_integers_keep_their_digits_and_members_their_order() -> None:
    text = b'{"z":12345678901234567890123,"a":{"y":1,"b":2}}'
    assert strict_json.write(strict_json.read_object(text)) == text


def test_an_error_names_the_place_and_never_the_value() -> None:
    error = read_error(b'{"a/b":{"m~n":[1,{"secret":"cnry\\u0000"}]}}')
    assert [violation.pointer for violation in error.violations] == ["/a~1b/m~0n/1/secret"]
    assert "cnry" not in error.detail + repr(error.violations)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{\n  "a": 1,\n  "secret" 2\n}', "Invalid JSON at line 3, column 12: expected a colon."),
        ('{"a": 1\n"b": 2}', "Invalid JSON at line 2, column 1: expected a comma."),
        ('{"a":1}x', "Invalid JSON at line 1, column 8: remove the text after the value."),
        ("{a:1}", "Invalid JSON at line 1, column 2: expected a member name in double quotes."),
        ('{"a":secret}', "Invalid JSON at line 1, column 6: expected a value."),
        ('{"a":"secret', "Invalid JSON at line 1, column 6: the string has no closing quote."),
        ('{"a":"\\q"}', "Invalid JSON at line 1, column 7: invalid escape sequence."),
        ('{"a":"\\u12"}', "Invalid JSON at line 1, column 8: invalid Unicode escape sequence."),
        ('{"a":"\t"}', "Invalid JSON at line 1, column 7: escape the control character."),
    ],
)
def test_a_syntax_error_names_its_line_and_column(text: str, sentence: str) -> None:
    assert read_error(text.encode()).detail == sentence


def test_values_at_the_limits_are_accepted() -> None:
    strict_json.read_object(b'{"a":' * 32 + b"1" + b"}" * 32)
    strict_json.read_object(wrap('{"' + "k" * 256 + '":"' + "x" * 65_536 + '"}'))
    many = {f"k{n}": 1 for n in range(2_000)}
    strict_json.read_object(wrap(json.dumps(many)))
    assert read_error(wrap(json.dumps(many | {"one": 1}))).code == "too-many-members"


def test_a_merged_configuration_has_the_limits_of_a_request() -> None:
    deepest: Any = 1
    for _ in range(31):
        deepest = {"a": deepest}
    assert strict_json.encode_configuration(deepest)
    for value, code in (
        ({"a": deepest}, "too-deep"),
        ({f"k{n}": 1 for n in range(2_001)}, "too-many-members"),
        ({f"k{n}": "x" * 60_000 for n in range(5)}, "document-too-large"),
    ):
        with pytest.raises(ServiceError) as caught:
            strict_json.encode_configuration(value)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 0}, {"a": False}, False),
        ({"a": None}, {}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
    ],
)
def test_configurations_are_equal_if_types_and_values_are_equal(one: Any, other: Any, *, same: bool) -> None:
    assert strict_json.is_equal(one, other) is same


def test_parsing_a_hostile_body_ends() -> None:
    """The time limit of the test applies to 256 KiB of the worst shapes."""
    for data in (b"[" * 262_144, b'{"a":[' + b"0," * 131_000 + b"0]}", b'{"n":' + b"1" * 262_000 + b".0}"):
        try:
            strict_json.read_object(data)
        except ServiceError as error:
            assert error.code in {"too-deep", "number-out-of-range"}  # noqa: PT017 - it may also be accepted
