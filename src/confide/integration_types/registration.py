"""Check a schema at its registration: secrets with defaults are errors, and defaults that violate it are warnings."""

from __future__ import annotations

from typing import Any, NamedTuple

from confide.errors import Violation
from confide.integration_types.errors import SchemaInvalid
from confide.integration_types.masking import Path, SecretPlace, has_mask
from confide.integration_types.schema import Schema
from confide.integration_types.subschemas import NO_DEFAULT, SchemaPlace
from confide.integration_types.url_secrets import find_secrets
from confide.strict_json import Json, format_pointer

# Limits of the search for secrets with defaults.
MAX_PLACES, MAX_VISITS = 2_000, 20_000
_ALLOWED = "A secret can only have null, an empty string, true or false as its default."
_SECRET_BY_SCHEMA = f"{_ALLOWED} Remove the default."
_SECRET_BY_NAME = (
    f'The name of this member makes it secret. {_ALLOWED} Remove the default, or add "writeOnly": false if the value is'
    " not secret."
)
_CREDENTIALS_IN_URL = "A default cannot contain the password of a URL. Remove it."
_MASK = "A default cannot contain the mask of a secret. Remove it."
_IGNORED_DEFAULT = "Draft-07 ignores this default, because `$ref` is beside it. Move the reference into `allOf`."
_BROKEN_DEFAULT = "This default violates its own schema. Reads do not fill it in. Correct or remove it."


class CheckedSchema(NamedTuple):
    """A schema that can be registered, and its problems that do not prevent that."""

    schema: Schema
    warnings: tuple[Violation, ...]


def compile_for_registration(document: Json) -> CheckedSchema:
    """Compile a schema that a client registers. Raises `SchemaInvalid`.

    These checks do not apply to registered schemas, which stay valid when the rules of secrets change.
    """
    schema = Schema(document)
    _require_visible_root(schema.place)
    _require_no_secret_defaults(schema.place)
    warnings = dict.fromkeys(schema.ignored_defaults, _IGNORED_DEFAULT)
    warnings |= dict.fromkeys(schema.broken_defaults, _BROKEN_DEFAULT)
    return CheckedSchema(
        schema,
        tuple(
            Violation(format_pointer(("schema", *path, "default")), "default", sentence)
            for path, sentence in sorted(warnings.items(), key=lambda warning: format_pointer(warning[0]))
        ),
    )


def _require_visible_root(root: SchemaPlace) -> None:
    """Reject a secret root, because a viewer sees the names of its members and which of them changed."""
    for subschema in root.applied:
        if subschema.is_secret:
            raise _build_error(
                (*subschema.path, subschema.secrecy_keyword),
                "A configuration as a whole cannot be secret. Mark its members.",
            )


def _require_no_secret_defaults(root: SchemaPlace) -> None:
    """Raise `SchemaInvalid` if a default contains a secret or the mask."""
    seen: set[tuple[frozenset[int], bool, bool]] = set()
    pending, visits = [(root, False)], 0
    while pending:
        place, is_inside_secret = pending.pop()
        is_secret = is_inside_secret or place.is_secret
        for subschema in place.applied:
            if subschema.default is not NO_DEFAULT:
                at: Path = (*subschema.path, "default")
                _require_no_secret(subschema.default, place, at, is_inside_secret=is_inside_secret)
        for inside in place.list_places_inside():
            visits += 1
            identity = (frozenset(map(id, inside.applied)), is_secret, inside.is_inside_secret_name)
            if inside.applied and identity not in seen:
                seen.add(identity)
                pending.append((inside, is_secret))
            if len(seen) > MAX_PLACES or visits > MAX_VISITS:
                raise SchemaInvalid("The schema describes too many places. Simplify it.")


def _require_no_secret(value: Any, place: SecretPlace, at: Path, *, is_inside_secret: bool) -> None:
    if is_inside_secret or place.is_hiding(value):
        if value not in (None, "", [], {}) and not isinstance(value, bool):
            is_by_name = not is_inside_secret and not (isinstance(place, SchemaPlace) and place.is_secret_by_keyword)
            raise _build_error(at, _SECRET_BY_NAME if is_by_name else _SECRET_BY_SCHEMA)
    elif isinstance(value, dict):
        for member, inner in value.items():
            _require_no_secret(inner, place.get_member_of(member, value), (*at, member), is_inside_secret=False)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _require_no_secret(inner, place.get_element(index), (*at, index), is_inside_secret=False)
    elif isinstance(value, str) and not place.is_visible and find_secrets(value):
        raise _build_error(at, _CREDENTIALS_IN_URL)
    if has_mask(value):
        raise _build_error(at, _MASK)


def _build_error(path: Path, sentence: str) -> SchemaInvalid:
    return SchemaInvalid(violations=(Violation(format_pointer(("schema", *path)), SchemaInvalid.code, sentence),))
