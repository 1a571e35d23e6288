"""Entity tags and the preconditions of reads and writes (RFC 9110, section 13.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from confide.errors import PreconditionInvalid, VersionConflict

_TAG_LIST = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e]*"\s*(?:,\s*(?:W/)?"[\x21\x23-\x7e]*"\s*)*')
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
# A proxy that compresses a response weakens its tag (RFC 9110, section 8.8.1).
_SERVER_TAG = re.compile(r'(?:W/)?"([1-9][0-9]{0,18})(?:\.[1-9][0-9]{0,18})?m?d?"')
_FOREIGN_TAGS = (
    "If-Match has no entity tag of this service; nothing was stored. A proxy that compresses or rewrites responses can"
    " change tags: read the config without that proxy, or turn this off there."
)


@dataclass(frozen=True, slots=True)
class Precondition:
    """`If-Match` and `If-None-Match: *` of one request (RFC 9110, section 13.1)."""

    match: tuple[str, ...] | None = None
    is_new_required: bool = False

    def require_match(self, version: int | None) -> None:
        """Raise `VersionConflict` unless the current version matches. None means that the config does not exist."""
        if self.is_new_required and version is not None:
            raise VersionConflict(current_version=version)
        if self.match is None or (version is not None and self.match == ("*",)):
            return
        versions = {read_tag_version(tag) for tag in self.match}
        if version is None or version not in versions:
            is_foreign = version is not None and versions == {None}
            raise VersionConflict(_FOREIGN_TAGS if is_foreign else None, current_version=version)


def parse_precondition(if_match: str | None, if_none_match: str | None) -> Precondition:
    """Parse the precondition headers of a request. A read passes no `If-None-Match`, and a write only `*`."""
    if if_none_match is not None and if_none_match.strip() != "*":
        raise PreconditionInvalid("Invalid If-None-Match. A write accepts only *.")
    match = None if if_match is None else parse_tags(if_match)
    return Precondition(match, is_new_required=if_none_match is not None)


def parse_tags(value: str) -> tuple[str, ...]:
    """Parse a list of entity tags or `*`, or raise `PreconditionInvalid`."""
    if value.strip() == "*":
        return ("*",)
    if not _TAG_LIST.fullmatch(value):
        raise PreconditionInvalid
    return tuple(_TAG.findall(value))


def format_tag(
    version: int, type_version: int | None = None, *, is_masked: bool = False, has_defaults: bool = True
) -> str:
    """Format an entity tag: version, version of the type if it has a schema, `m` for masked, `d` without defaults."""
    type_part = "" if type_version is None else f".{type_version}"
    return f'"{version}{type_part}{"m" if is_masked else ""}{"" if has_defaults else "d"}"'


def read_tag_version(tag: str) -> int | None:
    """Return the version in an entity tag of the server, also if a proxy weakened it. None for foreign tags.

    RFC 9110, section 13.1.1 compares strongly. A weakened tag still names exactly one version, which is never changed.
    """
    parts = _SERVER_TAG.fullmatch(tag)
    return int(parts[1]) if parts else None


def is_tag_matched(tag: str, if_none_match: str) -> bool:
    """Return whether `If-None-Match` matches the tag (RFC 9110, section 13.1.2: weak comparison)."""
    return any(
        candidate in ("*", tag) or candidate.removeprefix("W/") == tag for candidate in parse_tags(if_none_match)
    )
