"""The supported dialects of JSON Schema and their keywords."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from confide.strict_json import Json

_URL = re.compile(r"https?://json-schema\.org/(?P<draft>[^#]*)/schema#?")


@dataclass(frozen=True, slots=True)
class Keywords:
    """How a dialect describes the places of a document."""

    # The keywords for the value of a member or element that no other keyword describes, and for names.
    inside: tuple[str, ...]
    # The keyword with one schema for each of the first elements, and the one for the elements after them.
    elements: str
    rest: str
    # The keyword with schemas that apply if a member is present.
    dependent: tuple[str, ...]
    # `$ref` replaces the other keywords of its schema.
    has_exclusive_reference: bool = False


class Dialect(enum.Enum):
    """A dialect of JSON Schema. Its value is the path in the URL of its meta-schema."""

    DRAFT_07 = "draft-07"
    DRAFT_2019_09 = "draft/2019-09"
    DRAFT_2020_12 = "draft/2020-12"

    @property
    def url(self) -> str:
        scheme, end = ("http", "#") if self is Dialect.DRAFT_07 else ("https", "")
        return f"{scheme}://json-schema.org/{self.value}/schema{end}"

    @property
    def keywords(self) -> Keywords:
        return _KEYWORDS[self]


_KEYWORDS = {
    Dialect.DRAFT_07: Keywords(
        inside=("additionalProperties", "propertyNames", "contains"),
        elements="items",
        rest="additionalItems",
        dependent=("dependencies",),
        has_exclusive_reference=True,
    ),
    Dialect.DRAFT_2019_09: Keywords(
        inside=("additionalProperties", "unevaluatedProperties", "propertyNames", "unevaluatedItems", "contains"),
        elements="items",
        rest="additionalItems",
        dependent=("dependentSchemas", "dependencies"),
    ),
    Dialect.DRAFT_2020_12: Keywords(
        inside=("additionalProperties", "unevaluatedProperties", "propertyNames", "unevaluatedItems", "contains"),
        elements="prefixItems",
        rest="items",
        dependent=("dependentSchemas",),
    ),
}


def find_dialect(schema: Json) -> Dialect | None:
    """Return the dialect that `$schema` names, 2020-12 without it, or None if it is not supported."""
    if "$schema" not in schema:
        return Dialect.DRAFT_2020_12
    found = _URL.fullmatch(schema["$schema"]) if isinstance(schema["$schema"], str) else None
    return next((one for one in Dialect if found is not None and one.value == found["draft"]), None)
