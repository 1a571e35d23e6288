"""Reads a JSON Schema (2020-12) into subschemas, and refuses what a validator would follow blindly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from confide.errors import Violation
from confide.integration_types.errors import SchemaInvalid
from confide.integration_types.subschemas import NO_DEFAULT, Matcher, Path, Subschema
from confide.strict_json import Json, pointer

MOST_SUBSCHEMAS = 1_000
# So many subschemas may apply to one place of a configuration, however deep it lies.
MOST_AT_ONE_PLACE = 100
MOST_LEVELS = 32
# Compiled, all patterns together.
MOST_PATTERN_BYTES = 4 * 2**20
DIALECTS = ("https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2020-12/schema#")

_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLES = ("if", "then", "else", "not")
_INSIDE = ("additionalProperties", "unevaluatedProperties", "propertyNames", "items", "unevaluatedItems", "contains")
_REFUSED = {
    "$dynamicRef": "dynamic references are not taken",
    "$recursiveRef": "recursive references are not taken",
    "$vocabulary": "vocabularies are not taken",
    "dependencies": "it is dependentSchemas or dependentRequired",
}
_FRAGMENT = re.compile(r"#(?:/.*)?", re.DOTALL)


class Reader:
    """Reads a schema into subschemas; raises `SchemaInvalid` for what is refused, saying where."""

    def __init__(self, document: Json, *, matcher: Callable[[str], tuple[Matcher, int]]) -> None:
        """A matcher takes a pattern and returns what matches it, with the bytes that it takes; `ValueError` if none."""
        self._document = document
        self._matcher = matcher
        # What all patterns together take, as often as the validator holds them.
        self.pattern_bytes = 0
        self._known: dict[Path, Subschema] = {}
        self._waiting: list[tuple[Subschema, Any]] = []
        # So many subschemas may be looked at for one place of a configuration; known once it was read.
        self.price = 0

    def read(self) -> Subschema:
        root = self._subschema((), self._document)
        while self._waiting:
            subschema, said = self._waiting.pop()
            if isinstance(said, dict):
                self._take_in(subschema, said)
            elif not isinstance(said, bool):
                raise _invalid(subschema.path, "A schema is an object, true or false.")
        self.price = _price(list(self._known.values()))
        return root

    def _subschema(self, path: Path, said: Any) -> Subschema:
        known = self._known.get(path)
        if known is None:
            if len(self._known) >= MOST_SUBSCHEMAS:
                raise SchemaInvalid(f"The schema has more than {MOST_SUBSCHEMAS:,} subschemas. Simplify it.")
            known = self._known[path] = Subschema(path)
            self._waiting.append((known, said))
        return known

    def _take_in(self, to: Subschema, said: Json) -> None:
        self._must_be_taken(to.path, said)
        if isinstance(said.get("writeOnly"), bool):
            to.write_only = said["writeOnly"]
        to.default = said.get("default", NO_DEFAULT)
        if "$ref" in said:
            to.always.append(self._referred(to.path, said["$ref"]))
        for keyword in _LISTS:
            found = self._listed(to.path, said, keyword)
            (to.always if keyword == "allOf" else to.same).extend(found)
        to.same += [self._subschema((*to.path, keyword), said[keyword]) for keyword in _SINGLES if keyword in said]
        to.same += [found for _, found in self._named(to.path, said, "dependentSchemas")]
        to.same += to.always
        to.members = dict(self._named(to.path, said, "properties"))
        patterns = self._named(to.path, said, "patternProperties")
        to.patterns = [(self._matched((*to.path, "patternProperties", one), one), found) for one, found in patterns]
        if isinstance(said.get("pattern"), str):
            self._matched((*to.path, "pattern"), said["pattern"])
        to.elements = self._listed(to.path, said, "prefixItems")
        to.inside = {word: self._subschema((*to.path, word), said[word]) for word in _INSIDE if word in said}

    def _must_be_taken(self, path: Path, said: Json) -> None:
        for keyword, why in _REFUSED.items():
            if keyword in said:
                raise _invalid((*path, keyword), f"In a schema of Confide {why}.")
        if "$id" in said and path:
            raise _invalid((*path, "$id"), "Only the whole schema may have an $id.")
        if said.get("$schema", DIALECTS[0]) not in DIALECTS:
            raise _invalid((*path, "$schema"), "Only JSON Schema 2020-12 is taken.")

    def _listed(self, path: Path, said: Json, keyword: str) -> list[Subschema]:
        given = said.get(keyword, [])
        if not isinstance(given, list):
            raise _invalid((*path, keyword), "This is a list of schemas.")
        return [self._subschema((*path, keyword, index), one) for index, one in enumerate(given)]

    def _named(self, path: Path, said: Json, keyword: str) -> Iterator[tuple[str, Subschema]]:
        given = said.get(keyword, {})
        if not isinstance(given, dict):
            raise _invalid((*path, keyword), "This is an object of schemas.")
        for name, one in given.items():
            yield name, self._subschema((*path, keyword, name), one)

    def _matched(self, at: Path, pattern: str) -> Matcher:
        try:
            matches, size = self._matcher(pattern)
        except ValueError:
            raise _invalid(at, "This is no pattern that is taken.") from None
        self.pattern_bytes += size
        if self.pattern_bytes > MOST_PATTERN_BYTES:
            raise _invalid(at, "The patterns of the schema together are too large: repeat less.")
        return matches

    def _referred(self, path: Path, reference: Any) -> Subschema:
        at: Path = (*path, "$ref")
        if not isinstance(reference, str) or not _FRAGMENT.fullmatch(reference):
            raise _invalid(at, "A reference is # or #/… into the schema itself: nothing is fetched.")
        found: Any = self._document
        steps: list[str | int] = []
        # The fragment is decoded first, then it is a pointer (RFC 6901, 6).
        for part in unquote(reference)[2:].split("/") if len(reference) > 1 else ():
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                step: str | int = int(name) if isinstance(found, list) else name
                found = found[step]
            except (LookupError, ValueError, TypeError):
                raise _invalid(at, "There is nothing where this reference leads.") from None
            steps.append(step)
            # A member that is named so is no identifier: that is a string.
            if isinstance(found, dict) and isinstance(found.get("$id"), str):
                raise _invalid((*steps, "$id"), "Only the whole schema may have an $id.")
        return self._subschema(tuple(steps), found)


def _price(known: list[Subschema]) -> int:
    """How many subschemas may be looked at for one place; raises `SchemaInvalid` if that is more than is taken.

    Counted for each depth, as many times as a subschema is reached, for so often a validator would look at it.
    """
    ordered, highest = _in_order(known), 1
    price = dict.fromkeys(map(id, known), 0)
    for _ in range(MOST_LEVELS):
        within = dict.fromkeys(map(id, known), 0)
        for one in ordered:
            inside = [price[id(found)] for _, found in one.patterns]
            inside += [price[id(found)] for found in one.inside.values()]
            inside += [max((price[id(found)] for found in [*one.members.values(), *one.elements]), default=0)]
            within[id(one)] = max(1, sum(inside)) + sum(within[id(found)] for found in one.same)
            if within[id(one)] > MOST_AT_ONE_PLACE:
                raise _invalid(one.path, f"More than {MOST_AT_ONE_PLACE} subschemas would apply to one place.")
        price = within
        highest = max(highest, *price.values())
    return highest


def _in_order(known: list[Subschema]) -> list[Subschema]:
    """Each after those that it applies to its own place; raises `SchemaInvalid` if it comes back to itself there."""
    done: dict[int, int] = {}
    ordered: list[Subschema] = []
    for begun in known:
        under_way: dict[int, None] = {}
        waiting = [(begun, False)]
        while waiting:
            one, is_left = waiting.pop()
            if is_left:
                under_way.pop(id(one))
                done[id(one)] = 1
                ordered.append(one)
            elif id(one) in under_way:
                raise _invalid(one.path, "This applies itself to the same place without end.")
            elif id(one) not in done:
                under_way[id(one)] = None
                waiting.append((one, True))
                waiting.extend((found, False) for found in one.same)
    return ordered


def _invalid(path: Path, sentence: str) -> SchemaInvalid:
    return SchemaInvalid(violations=(Violation(pointer(("schema", *path)), SchemaInvalid.code, sentence),))
