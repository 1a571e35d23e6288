"""Entity tags and the preconditions of reads and writes (RFC 9110, section 13.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from confide.epoch import Epoch
from confide.errors import PreconditionInvalid, VersionConflict

_TAG_LIST = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e]*"\s*(?:,\s*(?:W/)?"[\x21\x23-\x7e]*"\s*)*')
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
# A proxy that compresses a response weakens its tag (RFC 9110, section 8.8.1).
_SERVER_TAG = re.compile(r'(?:W/)?"([1-9][0-9]{0,18})(-[0-9a-f]{8}|)(?:\.[1-9][0-9]{0,18})?m?d?"')
_FOREIGN_TAGS = (
    "If-Match has no entity tag of this service; nothing was stored. A proxy that compresses or rewrites responses can"
    " change tags: read the config without that proxy, or turn this off there."
)
_EARLIER_TAGS = (
    "If-Match has only entity tags of another epoch; nothing was stored. The database was restored, or it lost commits."
    " Read the current version again."
)


class TagVersion(NamedTuple):
    """The version that an entity tag names, and the part of the tag that names its epoch."""

    version: int
    epoch_part: str


@dataclass(frozen=True, slots=True)
class Precondition:
    """`If-Match` and `If-None-Match: *` of one request (RFC 9110, section 13.1)."""

    match: tuple[str, ...] | None = None
    is_new_required: bool = False

    def require_match(self, version: int | None, *, epoch: Epoch) -> None:
        """Raise `VersionConflict` unless the current version matches. None means that the config does not exist."""
        if self.is_new_required and version is not None:
            raise VersionConflict(current_tag=format_tag(version, epoch=epoch))
        if self.match is None or (version is not None and self.match == ("*",)):
            return
        if version is None:
            raise VersionConflict
        named = {read_tag(tag) for tag in self.match}
        if TagVersion(version, epoch.tag_part) not in named:
            raise VersionConflict(_explain_mismatch(named, epoch), current_tag=format_tag(version, epoch=epoch))


def _explain_mismatch(named: set[TagVersion | None], epoch: Epoch) -> str | None:
    """Return a reason other than a changed version why no tag matches."""
    if named == {None}:
        return _FOREIGN_TAGS
    is_earlier = all(tag is None or tag.epoch_part != epoch.tag_part for tag in named)
    return _EARLIER_TAGS if is_earlier else None


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
    version: int,
    type_version: int | None = None,
    *,
    epoch: Epoch,
    is_masked: bool = False,
    has_defaults: bool = True,
) -> str:
    """Format an entity tag: version, epoch except the first one, version of the type if it has a schema, and flags.

    The flag `m` means masked, `d` without defaults.
    """
    type_part = "" if type_version is None else f".{type_version}"
    return f'"{version}{epoch.tag_part}{type_part}{"m" if is_masked else ""}{"" if has_defaults else "d"}"'


def read_tag(tag: str) -> TagVersion | None:
    """Return what an entity tag of the server names, also if a proxy weakened it. None for foreign tags.

    RFC 9110, section 13.1.1 compares strongly. A weakened tag still names exactly one version, which is never changed.
    """
    parts = _SERVER_TAG.fullmatch(tag)
    return TagVersion(int(parts[1]), parts[2]) if parts else None


def is_tag_matched(tag: str, if_none_match: str) -> bool:
    """Return whether `If-None-Match` matches the tag (RFC 9110, section 13.1.2: weak comparison)."""
    return any(
        candidate in ("*", tag) or candidate.removeprefix("W/") == tag for candidate in parse_tags(if_none_match)
    )
