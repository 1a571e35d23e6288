"""The one strict reader of JSON, the limits of a body, and the one form in which a configuration is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from confide.configs.errors import DocumentTooLarge
from confide.errors import (
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
    TooManyMembers,
    Violation,
)

Json = dict[str, Any]

MAX_BODY_BYTES = 256 * 1024
MAX_LEVELS = 32
MAX_MEMBERS = 2_000
MAX_NAME_BYTES = 256
MAX_STRING_BYTES = 64 * 1024
MAX_DIGITS = 400


class _Inexact:
    """Stands where a number was sent that cannot be kept exactly, until the walk tells its place."""


_INEXACT = _Inexact()


def read_object(data: bytes) -> Json:
    """Read bytes as one strict JSON object (RFC 8259, I-JSON's demands on names and characters).

    400-class refusals for what is not JSON, 422-class ones, with pointers, for what is not allowed.
    The object itself is level 1.
    """
    document = _parsed(data)
    if not isinstance(document, dict):
        raise NotAnObject
    _must_fit(document, escapes=b"\\u" in data)
    return document


def check_merged(configuration: Json) -> bytes:
    """Return the bytes to keep of a merged configuration, if it is within the limits of a request."""
    # One level is the envelope that it travels in, so that whatever is stored can be sent again.
    _must_fit({"configuration": configuration}, escapes=False)
    data = write(configuration)
    if len(data) > MAX_BODY_BYTES:
        raise DocumentTooLarge
    return data


def write(value: Any) -> bytes:
    """Write a value in the one kept form: UTF-8, no spaces, members in order, shortest decimals."""
    return _ENCODER.encode(value).encode()


def read_kept(data: bytes) -> Json:
    """Read a configuration that `check_merged` let through before it was sealed."""
    configuration: Json = json.loads(data)
    return configuration


def are_equal(one: Any, other: Any) -> bool:
    """Whether JSON types and values are the same: 1, 1.0 and true differ, member order does not count."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_equal(inner, other[member]) for member, inner in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    # Zero and minus zero are one number to Python and two in JSON.
    return bool(one == other) and (not isinstance(one, float) or repr(one) == repr(other))


def pointer(path: tuple[str | int, ...]) -> str:
    """Write a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _parsed(data: bytes) -> Any:
    if b"\0" in data:
        raise JsonEncoding
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise JsonEncoding from None
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise TooDeep from None
    except json.JSONDecodeError as error:
        raise JsonInvalid(f"The body is not valid JSON near character {error.pos}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonDuplicateKey
    return members


def _integer(digits: str) -> int | _Inexact:
    return int(digits) if len(digits.lstrip("-")) <= MAX_DIGITS else _INEXACT


def _decimal(digits: str) -> float | _Inexact:
    value = float(digits)
    if len(digits) > MAX_DIGITS or math.isinf(value):
        return _INEXACT
    try:
        return value if Decimal(repr(value)) == Decimal(digits) else _INEXACT
    except InvalidOperation:
        return _INEXACT


def _constant(_name: str) -> Any:
    raise JsonInvalid("NaN and Infinity are not JSON.")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_decimal, parse_constant=_constant
)


def _must_fit(document: Json, *, escapes: bool) -> None:
    if not escapes and _surely_fits(document):
        return
    for path, value in _walk(document):
        if isinstance(value, dict):
            if len(value) > MAX_MEMBERS:
                raise _at(path, TooManyMembers)
            for member in value:
                _check_text(member, path, MAX_NAME_BYTES, KeyTooLong, escapes=escapes)
        elif isinstance(value, str):
            _check_text(value, path, MAX_STRING_BYTES, StringTooLong, escapes=escapes)
        elif value is _INEXACT:
            raise _at(path, NumberOutOfRange)


def _surely_fits(document: Json) -> bool:
    """Whether it is surely within the limits, level by level; where it is not sure, the walk tells, and the place."""
    level: list[Any] = [document]
    for _ in range(MAX_LEVELS):
        below: list[Any] = []
        for container in level:
            if isinstance(container, list):
                values: Iterable[Any] = container
            elif len(container) > MAX_MEMBERS or max(map(len, container), default=0) * 4 > MAX_NAME_BYTES:
                return False
            else:
                values = container.values()
            for value in values:
                if isinstance(value, dict | list):
                    below.append(value)
                elif value is _INEXACT or (isinstance(value, str) and len(value) * 4 > MAX_STRING_BYTES):
                    return False
        if not below:
            return True
        level = below
    return False


def _walk(document: Json) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        if isinstance(value, dict | list):
            if len(path) >= MAX_LEVELS:
                raise _at(path[:-1], TooDeep)
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            waiting.extend(((*path, part), child) for part, child in inside)


def _check_text(
    text: str, path: tuple[str | int, ...], limit: int, too_long: type[ServiceError], *, escapes: bool
) -> None:
    if escapes:
        if "\0" in text:
            raise _at(path, JsonNul)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise JsonSurrogate from None
    if len(text) > limit or (len(text) * 4 > limit and len(text.encode()) > limit):
        raise _at(path, too_long)


def _at(path: tuple[str | int, ...], refusal: type[ServiceError]) -> ServiceError:
    return refusal(violations=(Violation(pointer(path), refusal.code, refusal.sentence),))
