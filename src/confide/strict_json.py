"""Strict JSON: parsing within the limits of a body, and writing in one canonical form.

Functions that call `pause_if_due` can run in slices. None of them takes long for an ordinary document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from confide.errors import (
    DocumentTooLarge,
    JsonDuplicateKey,
    JsonEncoding,
    JsonInvalid,
    JsonNul,
    JsonSurrogate,
    KeyTooLong,
    NotAnObject,
    NumberOutOfRange,
    ServiceError,
    StringTooLong,
    TooDeep,
    TooManyContainers,
    TooManyMembers,
    Violation,
)
from confide.slices import is_in_slice, iterate, pause_if_due

Json = dict[str, Any]

MAX_BODY_BYTES = 256 * 1024
MAX_LEVELS = 32
MAX_MEMBERS = 2_000
MAX_NAME_BYTES = 256
MAX_STRING_BYTES = 64 * 1024
MAX_DIGITS = 400
# The number of objects and arrays in a body of a caller without credentials.
MAX_UNKNOWN_CONTAINERS = 100
# A document with more values is written in pieces, with pauses between them.
_MAX_VALUES_AT_ONCE = 10_000


_BROKEN_ESCAPE = re.compile("~(?![01])")
# An index has no leading zeros (RFC 6901, section 4).
_INDEX = re.compile("0|[1-9][0-9]{0,8}")


class _Inexact:
    """Marks a number that cannot be stored exactly, until the limit check reports its place."""


_INEXACT = _Inexact()


def read_object(data: bytes) -> Json:
    """Parse one JSON object (RFC 8259) with unique names and valid characters (RFC 7493, I-JSON).

    Raises errors of kind INVALID_REQUEST for bytes that are not JSON, and of kind INVALID_CONTENT, with pointers, for
    values beyond the limits. The object itself is level 1.
    """
    return _require_object(_parse(data, _DECODER), has_escapes=b"\\u" in data)


def read_object_of_unknown(data: bytes) -> Json:
    """Parse as `read_object`, without a call of Python code for each value. For callers without credentials.

    Raises `TooManyContainers` for more than `MAX_UNKNOWN_CONTAINERS` objects and arrays.
    """
    left = [MAX_UNKNOWN_CONTAINERS]
    document = _build_from_pairs(_parse(data, _PAIRS_DECODER), left)
    return _require_object(document, has_escapes=b"\\u" in data)


def find_member(data: bytes, name: str) -> Any:
    """Return a member of a JSON object that is not checked, or None. The cheapest way to parse."""
    # A name can be written with escapes.
    if b'"%b"' % name.encode() not in data and b"\\" not in data:
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document.get(name) if isinstance(document, dict) else None


def encode_configuration(configuration: Json) -> bytes:
    """Encode a configuration for storage. Raises an error if it exceeds the limits of a request."""
    # Every stored configuration must fit into a request, where it is one level deeper.
    _require_limits({"configuration": configuration}, has_escapes=False)
    data = write(configuration)
    if len(data) > MAX_BODY_BYTES:
        raise DocumentTooLarge
    return data


def write(value: Any) -> bytes:
    """Write a value in canonical form: UTF-8, no spaces, members in their order, shortest decimals."""
    if is_in_slice() and _has_many_values(value):
        return "".join(_write_in_pieces(value)).encode()
    return _ENCODER.encode(value).encode()


def read_stored(data: bytes) -> Json:
    """Parse a configuration that `encode_configuration` encoded."""
    configuration: Json = json.loads(data)
    return configuration


def is_equal(one: Any, other: Any) -> bool:
    """Return whether JSON types and values are equal. 1, 1.0 and true differ. The order of members does not count."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        pause_if_due()
        return one.keys() == other.keys() and all(is_equal(inner, other[member]) for member, inner in one.items())
    if isinstance(one, list):
        pause_if_due()
        return len(one) == len(other) and all(map(is_equal, iterate(one), other))
    # Python compares 0.0 and -0.0 as equal; JSON writes them differently.
    return bool(one == other) and (not isinstance(one, float) or repr(one) == repr(other))


def format_pointer(path: tuple[str | int, ...]) -> str:
    """Write a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def parse_pointer(text: str) -> tuple[str, ...]:
    """Parse a JSON Pointer (RFC 6901). Raises `ValueError` if it is malformed."""
    if text and (not text.startswith("/") or _BROKEN_ESCAPE.search(text)):
        raise ValueError("not a JSON Pointer")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def find_value(document: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a path. Raises `LookupError` if there is none."""
    for part in path:
        if isinstance(document, dict):
            document = document[part]
        elif isinstance(document, list) and _INDEX.fullmatch(part):
            document = document[int(part)]
        else:
            raise LookupError(part)
    return document


def _require_object(document: Any, *, has_escapes: bool) -> Json:
    if not isinstance(document, dict):
        raise NotAnObject
    _require_limits(document, has_escapes=has_escapes)
    return document


def _parse(data: bytes, decoder: json.JSONDecoder) -> Any:
    if b"\0" in data:
        raise JsonEncoding
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise JsonEncoding from None
    try:
        return decoder.decode(text)
    except RecursionError:
        raise TooDeep from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise JsonInvalid(f"Invalid JSON at {where}: {_describe_syntax_error(error)}.") from None


# The messages of the standard library. They never repeat the input.
_SYNTAX_ERRORS = {
    "Expecting value": "expected a value",
    "Expecting ',' delimiter": "expected a comma",
    "Expecting ':' delimiter": "expected a colon",
    "Expecting property name enclosed in double quotes": "expected a member name in double quotes",
    "Illegal trailing comma before end of object": "remove the trailing comma",
    "Illegal trailing comma before end of array": "remove the trailing comma",
    "Unterminated string starting at": "the string has no closing quote",
    "Invalid control character at": "escape the control character",
    "Invalid \\escape": "invalid escape sequence",
    "Invalid \\uXXXX escape": "invalid Unicode escape sequence",
    "Extra data": "remove the text after the value",
}


def _describe_syntax_error(error: json.JSONDecodeError) -> str:
    # Some versions of Python append details to a message after a colon.
    return _SYNTAX_ERRORS.get(error.msg, _SYNTAX_ERRORS.get(error.msg.split(":")[0], "invalid syntax"))


def _build_object(pairs: list[tuple[str, Any]]) -> Json:
    pause_if_due()
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonDuplicateKey
    return members


def _build_from_pairs(value: Any, left: list[int]) -> Any:
    """Build the objects of a parsed document, in which each is still a tuple of pairs."""
    if not isinstance(value, tuple | list):
        return value
    left[0] -= 1
    if left[0] < 0:
        raise TooManyContainers
    if isinstance(value, list):
        return [_build_from_pairs(inner, left) for inner in value]
    return _build_object([(name, _build_from_pairs(inner, left)) for name, inner in value])


def _parse_integer(digits: str) -> int | _Inexact:
    pause_if_due()
    return int(digits) if len(digits.lstrip("-")) <= MAX_DIGITS else _INEXACT


def _parse_decimal(digits: str) -> float | _Inexact:
    pause_if_due()
    value = float(digits)
    if len(digits) > MAX_DIGITS or math.isinf(value):
        return _INEXACT
    try:
        return value if Decimal(repr(value)) == Decimal(digits) else _INEXACT
    except InvalidOperation:
        return _INEXACT


def _reject_constant(_name: str) -> Any:
    raise JsonInvalid("NaN and Infinity are not valid JSON. Send a number or null.")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(
    object_pairs_hook=_build_object,
    parse_int=_parse_integer,
    parse_float=_parse_decimal,
    parse_constant=_reject_constant,
)
# The hook is a type of C, not Python code.
_PAIRS_DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_constant=_reject_constant)


def _require_limits(document: Json, *, has_escapes: bool) -> None:
    if not has_escapes and _is_surely_within_limits(document):
        return
    for path, value in _walk(document):
        if isinstance(value, dict):
            if len(value) > MAX_MEMBERS:
                raise _error_at(path, TooManyMembers)
            for member in value:
                _check_text(member, path, MAX_NAME_BYTES, KeyTooLong, has_escapes=has_escapes)
        elif isinstance(value, str):
            _check_text(value, path, MAX_STRING_BYTES, StringTooLong, has_escapes=has_escapes)
        elif value is _INEXACT:
            raise _error_at(path, NumberOutOfRange)


def _is_surely_within_limits(document: Json) -> bool:
    """Return whether a quick check proves that the limits hold; if not, the full check finds the place."""
    level: list[Any] = [document]
    for _ in range(MAX_LEVELS):
        next_level: list[Any] = []
        for container in level:
            pause_if_due()
            if isinstance(container, list):
                values: Iterable[Any] = iterate(container)
            elif len(container) > MAX_MEMBERS or max(map(len, container), default=0) * 4 > MAX_NAME_BYTES:
                return False
            else:
                values = container.values()
            for value in values:
                if isinstance(value, dict | list):
                    next_level.append(value)
                elif value is _INEXACT or (isinstance(value, str) and len(value) * 4 > MAX_STRING_BYTES):
                    return False
        if not next_level:
            return True
        level = next_level
    return False


def _has_many_values(value: Any) -> bool:
    left = _MAX_VALUES_AT_ONCE
    pending = [value]
    while pending and left >= 0:
        container = pending.pop()
        if isinstance(container, dict | list):
            left -= len(container)
            pending += container.values() if isinstance(container, dict) else container
    return left < 0


def _write_in_pieces(value: Any) -> Iterator[str]:
    for piece in _ENCODER.iterencode(value):
        pause_if_due()
        yield piece


def _walk(document: Json) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while pending:
        pause_if_due()
        path, value = pending.pop()
        yield path, value
        if isinstance(value, dict | list):
            if len(path) >= MAX_LEVELS:
                raise _error_at(path[:-1], TooDeep)
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            pending.extend(((*path, part), child) for part, child in inside)


def _check_text(
    text: str, path: tuple[str | int, ...], limit: int, error: type[ServiceError], *, has_escapes: bool
) -> None:
    if has_escapes:
        if "\0" in text:
            raise _error_at(path, JsonNul)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise JsonSurrogate from None
    if len(text) > limit or (len(text) * 4 > limit and len(text.encode()) > limit):
        raise _error_at(path, error)


def _error_at(path: tuple[str | int, ...], error: type[ServiceError]) -> ServiceError:
    return error(violations=(Violation(format_pointer(path), error.code, error.sentence),))
