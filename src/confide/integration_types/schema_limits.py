"""Read a JSON Schema into subschemas. Reject a schema that is unsupported or too expensive."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from confide.errors import Violation
from confide.integration_types.dialects import Dialect, find_dialect
from confide.integration_types.errors import SchemaInvalid
from confide.integration_types.keyword_work import WORK_OF_FALSE, measure_keywords
from confide.integration_types.masking import Path
from confide.integration_types.subschemas import NO_DEFAULT, Matcher, Subschema
from confide.strict_json import Json, format_pointer

MAX_SUBSCHEMAS = 1_000
# The maximum number of subschemas that can apply to one place of a configuration, at any depth.
MAX_AT_ONE_PLACE = 100
MAX_LEVELS = 32
# The compiled size of all patterns together.
MAX_PATTERN_BYTES = 4 * 2**20

_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLES = ("if", "then", "else", "not")
_UNSUPPORTED = {
    "$dynamicRef": "Dynamic references are not supported.",
    "$recursiveRef": "Recursive references are not supported.",
    "$vocabulary": "Vocabularies are not supported.",
}
# Sentences for keywords of another draft than the one of the schema.
_EARLIER_DEPENDENCIES = (
    "`dependencies` belongs to earlier drafts. Use `dependentSchemas` or `dependentRequired`, or name the draft in"
    " `$schema`."
)
_EARLIER_ITEMS = "A list of `items` belongs to earlier drafts. Use `prefixItems`, or name the draft in `$schema`."
_EARLIER_LIMIT = "A boolean limit belongs to draft-04. Write the exclusive limit itself, as a number."
_OTHER_DIALECT = "Unsupported dialect. Use JSON Schema draft-07, 2019-09 or 2020-12."
_FRAGMENT = re.compile(r"#(?:/.*)?", re.DOTALL)


class CompiledPattern(NamedTuple):
    """The matcher of a pattern, and its size when compiled."""

    matches: Matcher
    size_bytes: int


class SchemaReader:
    """Reads a schema into subschemas. Raises `SchemaInvalid` with the place of the first problem."""

    def __init__(self, document: Json, *, matcher: Callable[[str], tuple[Matcher, int]]) -> None:
        """Take `matcher`, which compiles a pattern to a matcher and its size in bytes, or raises `ValueError`."""
        self._document = document
        self._matcher = matcher
        # The compiled size of all patterns. Each pattern counts as often as the validator compiles it.
        self.pattern_bytes = 0
        # The places of defaults that the dialect ignores.
        self.ignored_defaults: list[Path] = []
        self._dialect = _read_dialect(document)
        self._known: dict[Path, Subschema] = {}
        self._pending: list[tuple[Subschema, Any]] = []
        # The number of subschemas that the validator can visit for one place of a configuration. `read` sets it.
        self.cost = 0

    @property
    def dialect(self) -> Dialect:
        return self._dialect

    @property
    def subschemas(self) -> Iterable[Subschema]:
        """All subschemas that `read` found."""
        return self._known.values()

    def read(self) -> Subschema:
        root = self._add((), self._document)
        while self._pending:
            subschema, document = self._pending.pop()
            if isinstance(document, dict):
                self._read_keywords(subschema, document)
            elif document is False:
                subschema.work = WORK_OF_FALSE
            elif document is not True:
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
        _read_secrecy(subschema, document)
        keywords = self._dialect.keywords
        if "$ref" in document:
            subschema.always.append(self._resolve(subschema.path, document["$ref"]))
            if keywords.has_exclusive_reference:
                if "default" in document:
                    self.ignored_defaults.append(subschema.path)
                subschema.same += subschema.always
                return
        subschema.default = document.get("default", NO_DEFAULT)
        for keyword in _LISTS:
            found = self._read_list(subschema.path, document, keyword)
            (subschema.always if keyword == "allOf" else subschema.same).extend(found)
        subschema.same += [
            self._add((*subschema.path, keyword), document[keyword]) for keyword in _SINGLES if keyword in document
        ]
        for keyword in keywords.dependent:
            subschema.same += [found for _, found in self._read_members(subschema.path, document, keyword)]
        subschema.same += subschema.always
        subschema.members = dict(self._read_members(subschema.path, document, "properties"))
        patterns = [
            (self._compile((*subschema.path, "patternProperties", one), one), found)
            for one, found in self._read_members(subschema.path, document, "patternProperties")
        ]
        subschema.patterns = [(compiled.matches, found) for compiled, found in patterns]
        pattern = document.get("pattern")
        compiled = self._compile((*subschema.path, "pattern"), pattern) if isinstance(pattern, str) else None
        subschema.work = measure_keywords(
            document,
            pattern_bytes=0 if compiled is None else compiled.size_bytes,
            name_pattern_bytes=[one.size_bytes for one, _ in patterns],
        )
        subschema.inside = {
            word: self._add((*subschema.path, word), document[word]) for word in keywords.inside if word in document
        }
        self._read_elements(subschema, document)

    def _read_elements(self, subschema: Subschema, document: Json) -> None:
        """Read the schemas of the elements of a list. `inside["items"]` is the one for all elements after the first."""
        keywords = self._dialect.keywords
        rest = keywords.rest
        if keywords.elements == "items" and not isinstance(document.get("items"), list):
            rest = "items"
        else:
            subschema.elements = self._read_list(subschema.path, document, keywords.elements)
        if rest == "items" and isinstance(document.get("items"), list):
            raise _build_error((*subschema.path, "items"), _EARLIER_ITEMS)
        if rest in document:
            subschema.inside["items"] = self._add((*subschema.path, rest), document[rest])

    def _require_supported(self, path: Path, document: Json) -> None:
        for keyword, reason in _UNSUPPORTED.items():
            if keyword in document:
                raise _build_error((*path, keyword), reason)
        if "dependencies" in document and "dependencies" not in self._dialect.keywords.dependent:
            raise _build_error((*path, "dependencies"), _EARLIER_DEPENDENCIES)
        for keyword in ("exclusiveMinimum", "exclusiveMaximum"):
            if isinstance(document.get(keyword), bool):
                raise _build_error((*path, keyword), _EARLIER_LIMIT)
        if "$id" in document and path:
            raise _build_error((*path, "$id"), "Only the root of the schema can have an $id. Remove it.")
        if "$schema" in document and find_dialect(document) is not self._dialect:
            raise _build_error((*path, "$schema"), "A part of a schema cannot have another dialect. Remove it.")

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
            # In `dependencies`, a list names members that must be present.
            if keyword != "dependencies" or not isinstance(one, list):
                yield name, self._add((*path, keyword, name), one)

    def _compile(self, at: Path, pattern: str) -> CompiledPattern:
        try:
            compiled = CompiledPattern(*self._matcher(pattern))
        except ValueError:
            raise _build_error(at, "The pattern is invalid or unsupported. Correct it.") from None
        self.pattern_bytes += compiled.size_bytes
        if self.pattern_bytes > MAX_PATTERN_BYTES:
            raise _build_error(at, "The patterns of the schema are too large together. Use fewer repetitions.")
        return compiled

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


def _read_dialect(document: Any) -> Dialect:
    dialect = find_dialect(document) if isinstance(document, dict) else Dialect.DRAFT_2020_12
    if dialect is None:
        raise _build_error(("$schema",), _OTHER_DIALECT)
    return dialect


def _read_secrecy(subschema: Subschema, document: Json) -> None:
    """Read whether the value is secret. `writeOnly` counts before what other tools mark secrets with."""
    if isinstance(document.get("writeOnly"), bool):
        subschema.write_only = subschema.is_secret = document["writeOnly"]
        subschema.secrecy_keyword = "writeOnly"
    elif document.get("airbyte_secret") is True:
        subschema.is_secret, subschema.secrecy_keyword = True, "airbyte_secret"
    elif document.get("format") == "password":
        subschema.is_secret, subschema.secrecy_keyword = True, "format"


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
