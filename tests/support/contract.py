"""Describe everything that clients and operators can depend on, without its wording."""

from __future__ import annotations

from typing import Any

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo

import confide.server.api  # noqa: F401 - defines every error
from confide.cli.commands import EXIT_CODES
from confide.cli.commands import confide as root
from confide.server.api import build_document
from confide.server.metrics import COUNTERS, GAUGES
from confide.server.settings import Settings
from confide.web.problems import get_status, list_errors

Json = Any
WORDING = frozenset({"description", "title", "summary", "examples", "example", "operationId", "tags"})


def describe_contract() -> dict[str, Json]:
    """Return error codes, HTTP paths with their schemas, settings, commands, metrics and exit codes as JSON."""
    return {
        "codes": {error.code: get_status(error) for error in list_errors()},
        "paths": describe_paths(build_document()),
        "settings": {name: _describe_setting(field) for name, field in Settings.model_fields.items()},
        "commands": _describe_commands(root, ("confide",)),
        "metrics": {name: list(labels) for name, _, labels in (COUNTERS | GAUGES).values()},
        "exit_codes": sorted(set(EXIT_CODES.values())),
    }


def describe_paths(document: Json) -> Json:
    """Return the paths of an OpenAPI document with every reference resolved and without wording."""
    return normalize(_resolve(document["paths"], document["components"]["schemas"]))


def normalize(value: Json, *, is_names: bool = False) -> Json:
    """Drop what means the same on the wire: null defaults, null in query parameters, integral floats."""
    if isinstance(value, dict):
        if value.get("in") == "query":
            value = value | {"schema": _without_null(value["schema"])}
        return {
            key: normalize(each, is_names=key == "properties")
            for key, each in value.items()
            if is_names or key != "default" or each is not None
        }
    if isinstance(value, list):
        return [normalize(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def find_differences(before: Json, after: Json, place: str = "") -> list[str]:
    """Return where two descriptions differ, as paths into the JSON."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = [f"{place}/{key} was removed" for key in before if key not in after]
        found += [f"{place}/{key} was added" for key in after if key not in before]
        shared = [key for key in before if key in after]
        return found + [line for key in shared for line in find_differences(before[key], after[key], f"{place}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for index, (old, new) in pairs for line in find_differences(old, new, f"{place}/{index}")]
    return [] if before == after else [f"{place} was {before!r} and is {after!r}"]


def _resolve(value: Json, schemas: Json, *, is_names: bool = False) -> Json:
    if isinstance(value, dict):
        if "$ref" in value:
            return _resolve(schemas[value["$ref"].rsplit("/", 1)[1]], schemas)
        return {
            key: _resolve(each, schemas, is_names=key == "properties")
            for key, each in value.items()
            if is_names or key not in WORDING
        }
    return [_resolve(each, schemas) for each in value] if isinstance(value, list) else value


def _without_null(schema: Json) -> Json:
    kinds = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    return kinds[0] if len(kinds) == 1 else schema


def _describe_setting(field: FieldInfo) -> Json:
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    alias = field.validation_alias
    aliases = [alias] if isinstance(alias, str) else [str(each) for each in getattr(alias, "choices", [])]
    limits = {
        name: getattr(limit, name)
        for limit in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(limit, name)
    }
    return {"default": None if default is None else str(default), "aliases": aliases, "limits": limits}


def _describe_commands(command: click.Command, path: tuple[str, ...]) -> dict[str, Json]:
    found: dict[str, Json] = {" ".join(path): [_describe_parameter(each) for each in command.params]}
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            found |= _describe_commands(each, (*path, name))
    return found


def drop_option_names(contract: Json) -> Json:
    """Drop the Python names of options from a snapshot. Users see the names of arguments only."""
    for parameters in contract["commands"].values():
        for parameter in parameters:
            if not is_argument(parameter["kind"]):
                parameter.pop("name", None)
    return contract


def is_argument(kind: str) -> bool:
    return kind == "argument"


def _describe_parameter(parameter: click.Parameter) -> Json:
    default = parameter.default
    return {
        **({"name": parameter.name} if is_argument(parameter.param_type_name) else {}),
        "options": sorted(parameter.opts + parameter.secondary_opts),
        "kind": parameter.param_type_name,
        "type": parameter.type.name,
        "is_required": parameter.required,
        "is_multiple": parameter.multiple,
        "is_flag": bool(getattr(parameter, "is_flag", False)),
        "nargs": parameter.nargs,
        "default": "computed" if callable(default) else _plain_default(default),
        "variable": parameter.envvar,
    }


def _plain_default(default: object) -> str | None:
    return None if default is None or "UNSET" in str(default) else str(default)
