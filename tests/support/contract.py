"""The public contract: all that clients and operators can depend on, without its wording.

`make contract` records additions. It rejects changes, unless ARGS is `--accept-changes`.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

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
Place = tuple[str, ...]
SNAPSHOT = Path(__file__).parents[1] / "compatibility" / "contract.json"
WORDING = frozenset({"description", "title", "summary", "examples", "example", "tags"})
# Where a new member is an addition that no existing client notices. `*` is any one step of the path.
_ADDITIONS = (
    "codes/*",
    "components/*",
    "metrics/*",
    "settings/*",
    "commands/*",
    "paths/*",
    "paths/*/*",
    "paths/*/*/responses/*/headers/*",
    "paths/*/*/responses/*/content/*",
)
# Where a longer list is an addition: a client does not depend on the rest of the list.
_GROWING_LISTS = ("exit_codes", "settings/*/aliases")
# Where a new member is an addition if it is optional.
_PARAMETERS = ("paths/*/*/parameters/*", "commands/*/*")


@dataclass
class Differences:
    """How a contract differs from a snapshot: additions are allowed, changes break clients or operators."""

    additions: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


def describe_contract() -> dict[str, Json]:
    """Return error codes, HTTP paths, names of components, settings, commands, metrics and exit codes as JSON."""
    document = build_document()
    contract = {
        "codes": {error.code: get_status(error) for error in list_errors()},
        "paths": describe_paths(document),
        # Generated clients name classes after the components.
        "components": dict.fromkeys(document["components"]["schemas"], True),
        "settings": {name: _describe_setting(field) for name, field in Settings.model_fields.items()},
        "commands": _describe_commands(root, ("confide",)),
        "metrics": {name: list(labels) for name, _, labels in (COUNTERS | GAUGES).values()},
        "exit_codes": sorted(set(EXIT_CODES.values())),
    }
    return cast("dict[str, Json]", json.loads(json.dumps(contract)))  # tuples become lists, as in the snapshot


def describe_paths(document: Json) -> Json:
    """Return the paths of an OpenAPI document with every reference resolved and without wording."""
    paths = normalize(_resolve(document["paths"], document["components"]["schemas"]))
    for operation in (operation for operations in paths.values() for operation in operations.values()):
        parameters = operation.get("parameters", [])
        operation["parameters"] = {f"{each['in']} {each['name']}": each for each in parameters}
        for response in operation["responses"].values():
            response.setdefault("headers", {})
            response.setdefault("content", {})
    return paths


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


def find_differences(before: Json, after: Json) -> Differences:
    """Compare a contract with its snapshot, place by place."""
    found = Differences()
    _compare(before, after, (), found)
    return found


def _compare(before: Json, after: Json, place: Place, found: Differences) -> None:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() - after.keys():
            found.changes.append(f"{_format_place((*place, key))} was removed")
        for key in after.keys() - before.keys():
            is_addition = _is_addition((*place, key), after[key])
            (found.additions if is_addition else found.changes).append(f"{_format_place((*place, key))} was added")
        for key in before.keys() & after.keys():
            _compare(before[key], after[key], (*place, key), found)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            _compare(old, new, (*place, str(index)), found)
    elif _is_grown_list(place, before, after):
        added = [each for each in after if each not in before]
        found.additions.append(f"{_format_place(place)} also has {added}")
    elif before != after:
        found.changes.append(f"{_format_place(place)} was {before!r} and is {after!r}")


def _is_addition(place: Place, value: Json) -> bool:
    if _is_match(place, _PARAMETERS):
        return not (value.get("required") or value.get("is_required"))
    # A new member of a body. If a request requires it, the list `required` of the request changes as well.
    is_member = place[0] == "paths" and place[-2] == "properties"
    return is_member or _is_required_in_response(place) or _is_match(place, _ADDITIONS)


def _is_grown_list(place: Place, before: Json, after: Json) -> bool:
    if not (isinstance(before, list) and isinstance(after, list) and all(each in after for each in before)):
        return False
    return _is_required_in_response(place) or _is_match(place, _GROWING_LISTS)


def _is_required_in_response(place: Place) -> bool:
    """Return whether this is the list of the members that a response always has."""
    return place[-1] == "required" and "responses" in place


def _is_match(place: Place, patterns: tuple[str, ...]) -> bool:
    steps = [pattern.split("/") for pattern in patterns]
    return any(len(each) == len(place) and all(map(fnmatch, place, each)) for each in steps)


def _format_place(place: Place) -> str:
    return " > ".join(place)


def record(contract: Json, file: Path, *, has_accepted_changes: bool) -> Differences:
    """Write the snapshot, unless the contract has changes that are not accepted."""
    found = find_differences(load_snapshot(file), contract)
    if has_accepted_changes or not found.changes:
        file.write_text(json.dumps(contract, indent=1, sort_keys=True) + "\n")
    return found


def load_snapshot(file: Path = SNAPSHOT) -> Json:
    return json.loads(file.read_text())


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
    found: dict[str, Json] = {" ".join(path): _describe_parameters(command)}
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            found |= _describe_commands(each, (*path, name))
    return found


def _describe_parameters(command: click.Command) -> Json:
    """Describe options by their longest name, and arguments by their place and name: users type them in this order."""
    described: dict[str, Json] = {}
    places = itertools.count(1)
    for parameter in command.params:
        is_argument = isinstance(parameter, click.Argument)
        name = f"{next(places)} {parameter.name}" if is_argument else max(parameter.opts, key=len)
        described[name] = _describe_parameter(parameter)
    return described


def _describe_parameter(parameter: click.Parameter) -> Json:
    default = parameter.default
    return {
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


def main() -> None:
    has_accepted_changes = "--accept-changes" in sys.argv[1:]
    found = record(describe_contract(), SNAPSHOT, has_accepted_changes=has_accepted_changes)
    for line in sorted(found.additions):
        print(f"addition: {line}")
    for line in sorted(found.changes):
        print(f"change: {line}")
    if found.changes and not has_accepted_changes:
        sys.exit("Nothing is recorded: a change breaks clients or operators. Undo it, or pass --accept-changes.")


if __name__ == "__main__":
    main()
