"""Read a JSON Schema (2020-12) into subschemas. Reject a schema that is unsupported or too expensive."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from confide.errors import Violation
from confide.integration_types.errors import SchemaInvalid
from confide.integration_types.subschemas import NO_DEFAULT, Matcher, Path, Subschema
from confide.strict_json import Json, format_pointer

MAX_SUBSCHEMAS = 1_000
# The maximum number of subschemas that can apply to one place of a configuration, at any depth.
MAX_AT_ONE_PLACE = 100
MAX_LEVELS = 32
# The compiled size of all patterns together.
MAX_PATTERN_BYTES = 4 * 2**20
DIALECTS = ("https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2020-12/schema#")

_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLES = ("if", "then", "else", "not")
_INSIDE = ("additionalProperties", "unevaluatedProperties", "propertyNames", "items", "unevaluatedItems", "contains")
_UNSUPPORTED = {
    "$dynamicRef": "Dynamic references are not supported.",
    "$recursiveRef": "Recursive references are not supported.",
    "$vocabulary": "Vocabularies are not supported.",
    "dependencies": "`dependencies` is not supported. Use `dependentSchemas` or `dependentRequired`.",
}
_FRAGMENT = re.compile(r"#(?:/.*)?", re.DOTALL)


class SchemaReader:
    """Reads a schema into subschemas. Raises `SchemaInvalid` with the place of the first problem."""

    def __init__(self, document: Json, *, matcher: Callable[[str], tuple[Matcher, int]]) -> None:
        """Take `matcher`, which compiles a pattern to a matcher and its size in bytes, or raises `ValueError`."""
        self._document = document
        self._matcher = matcher
        # The compiled size of all patterns. Each pattern counts as often as the validator compiles it.
        self.pattern_bytes = 0
        self._known: dict[Path, Subschema] = {}
        self._pending: list[tuple[Subschema, Any]] = []
        # The number of subschemas that the validator can visit for one place of a configuration. `read` sets it.
        self.cost = 0

    def read(self) -> Subschema:
        root = self._add((), self._document)
        while self._pending:
            subschema, document = self._pending.pop()
            if isinstance(document, dict):
                self._read_keywords(subschema, document)
            elif not isinstance(document, bool):
                raise _build_error(subschema.path, "A schema must be an object, true or false.")
        self.cost = _compute_cost(list(self._known.values()))
        return root

    def _add(self, path: Path, document: Any) -> Subschema:
        known = self._known.get(path)
        if known is None:
            if len(self._known) >= MAX_SUBSCHEMAS:
                raise SchemaInvalid(f"The schema has more than {MAX_SUBSCHEMAS:,} subschemas. Simplify it.")
            known = self._known[path] = Subschema(path)
            self._pending.append((known, document))
        return known

    def _read_keywords(self, subschema: Subschema, document: Json) -> None:
        self._require_supported(subschema.path, document)
        if isinstance(document.get("writeOnly"), bool):
            subschema.write_only = document["writeOnly"]
        subschema.default = document.get("default", NO_DEFAULT)
        if "$ref" in document:
            subschema.always.append(self._resolve(subschema.path, document["$ref"]))
        for keyword in _LISTS:
            found = self._read_list(subschema.path, document, keyword)
            (subschema.always if keyword == "allOf" else subschema.same).extend(found)
        subschema.same += [
            self._add((*subschema.path, keyword), document[keyword]) for keyword in _SINGLES if keyword in document
        ]
        subschema.same += [found for _, found in self._read_members(subschema.path, document, "dependentSchemas")]
        subschema.same += subschema.always
        subschema.members = dict(self._read_members(subschema.path, document, "properties"))
        patterns = self._read_members(subschema.path, document, "patternProperties")
        subschema.patterns = [
            (self._compile((*subschema.path, "patternProperties", one), one), found) for one, found in patterns
        ]
        if isinstance(document.get("pattern"), str):
            self._compile((*subschema.path, "pattern"), document["pattern"])
        subschema.elements = self._read_list(subschema.path, document, "prefixItems")
        subschema.inside = {
            word: self._add((*subschema.path, word), document[word]) for word in _INSIDE if word in document
        }

    def _require_supported(self, path: Path, document: Json) -> None:
        for keyword, reason in _UNSUPPORTED.items():
            if keyword in document:
                raise _build_error((*path, keyword), reason)
        if "$id" in document and path:
            raise _build_error((*path, "$id"), "Only the root of the schema can have an $id. Remove it.")
        if document.get("$schema", DIALECTS[0]) not in DIALECTS:
            raise _build_error((*path, "$schema"), "Unsupported dialect. Use JSON Schema 2020-12.")

    def _read_list(self, path: Path, document: Json, keyword: str) -> list[Subschema]:
        value = document.get(keyword, [])
        if not isinstance(value, list):
            raise _build_error((*path, keyword), "This must be an array of schemas.")
        return [self._add((*path, keyword, index), one) for index, one in enumerate(value)]

    def _read_members(self, path: Path, document: Json, keyword: str) -> Iterator[tuple[str, Subschema]]:
        value = document.get(keyword, {})
        if not isinstance(value, dict):
            raise _build_error((*path, keyword), "This must be an object of schemas.")
        for name, one in value.items():
            yield name, self._add((*path, keyword, name), one)

    def _compile(self, at: Path, pattern: str) -> Matcher:
        try:
            matches, size = self._matcher(pattern)
        except ValueError:
            raise _build_error(at, "The pattern is invalid or unsupported. Correct it.") from None
        self.pattern_bytes += size
        if self.pattern_bytes > MAX_PATTERN_BYTES:
            raise _build_error(at, "The patterns of the schema are too large together. Use fewer repetitions.")
        return matches

    def _resolve(self, path: Path, reference: Any) -> Subschema:
        at: Path = (*path, "$ref")
        if not isinstance(reference, str) or not _FRAGMENT.fullmatch(reference):
            raise _build_error(at, "A reference must be # or start with #/. Remote references are not supported.")
        found: Any = self._document
        steps: list[str | int] = []
        # A fragment is percent-decoded before it is split as a pointer (RFC 6901, section 6).
        for part in unquote(reference)[2:].split("/") if len(reference) > 1 else ():
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                step: str | int = int(name) if isinstance(found, list) else name
                found = found[step]
            except (LookupError, ValueError, TypeError):
                raise _build_error(at, "The target of this reference does not exist.") from None
            steps.append(step)
            # An `$id` that is not a string is an ordinary member.
            if isinstance(found, dict) and isinstance(found.get("$id"), str):
                raise _build_error((*steps, "$id"), "Only the root of the schema can have an $id. Remove it.")
        return self._add(tuple(steps), found)


def _compute_cost(known: list[Subschema]) -> int:
    """Return how many subschemas the validator can visit for one place. Raises `SchemaInvalid` above the limit.

    A subschema counts at each depth as often as it is reached, because the validator visits it that often.
    """
    ordered, highest = _sort(known), 1
    cost = dict.fromkeys(map(id, known), 0)
    for _ in range(MAX_LEVELS):
        within = dict.fromkeys(map(id, known), 0)
        for one in ordered:
            inside = [cost[id(found)] for _, found in one.patterns]
            inside += [cost[id(found)] for found in one.inside.values()]
            inside += [max((cost[id(found)] for found in [*one.members.values(), *one.elements]), default=0)]
            within[id(one)] = max(1, sum(inside)) + sum(within[id(found)] for found in one.same)
            if within[id(one)] > MAX_AT_ONE_PLACE:
                raise _build_error(
                    one.path, f"More than {MAX_AT_ONE_PLACE} subschemas apply to one place. Simplify the schema."
                )
        cost = within
        highest = max(highest, *cost.values())
    return highest


def _sort(known: list[Subschema]) -> list[Subschema]:
    """Sort subschemas after the ones that they apply to the same place. Raises `SchemaInvalid` for a cycle."""
    done: dict[int, int] = {}
    ordered: list[Subschema] = []
    for start in known:
        in_progress: dict[int, None] = {}
        pending = [(start, False)]
        while pending:
            one, is_done = pending.pop()
            if is_done:
                in_progress.pop(id(one))
                done[id(one)] = 1
                ordered.append(one)
            elif id(one) in in_progress:
                raise _build_error(
                    one.path, "This schema applies itself to the same place without end. Remove the cycle."
                )
            elif id(one) not in done:
                in_progress[id(one)] = None
                pending.append((one, True))
                pending.extend((found, False) for found in one.same)
    return ordered


def _build_error(path: Path, sentence: str) -> SchemaInvalid:
    return SchemaInvalid(violations=(Violation(format_pointer(("schema", *path)), SchemaInvalid.code, sentence),))
