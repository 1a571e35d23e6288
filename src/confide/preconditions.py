"""Entity tags and the conditions of a write (RFC 9110, section 13.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from confide.errors import PreconditionInvalid, VersionConflict

_TAG_LIST = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e]*"\s*(?:,\s*(?:W/)?"[\x21\x23-\x7e]*"\s*)*')


_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')


_OUR_TAG = re.compile(r'"([1-9][0-9]{0,18})(?:\.[1-9][0-9]{0,18})?m?d?"')


@dataclass(frozen=True, slots=True)
class Condition:
    """`If-Match` and `If-None-Match: *` of one request (RFC 9110, section 13.1)."""

    match: tuple[str, ...] | None = None
    must_be_new: bool = False

    def require(self, version: int | None) -> None:
        """Raise `VersionConflict` unless it holds of the current version; None if missing or retired."""
        if self.must_be_new and version is not None:
            raise VersionConflict(current_version=version)
        if self.match is None or (version is not None and self.match == ("*",)):
            return
        if version is None or version not in {matched_version(tag) for tag in self.match}:
            raise VersionConflict(current_version=version)


def condition(if_match: str | None, if_none_match: str | None) -> Condition:
    """Read the condition of a save; `If-None-Match` may only be `*` there."""
    if if_none_match is not None and if_none_match.strip() != "*":
        raise PreconditionInvalid("Invalid If-None-Match. A write accepts only *.")
    match = None if if_match is None else tags(if_match)
    return Condition(match, must_be_new=if_none_match is not None)


def tags(value: str) -> tuple[str, ...]:
    """Read a list of entity tags, or `*`; raise `PreconditionInvalid` if it is neither."""
    if value.strip() == "*":
        return ("*",)
    if not _TAG_LIST.fullmatch(value):
        raise PreconditionInvalid
    return tuple(_TAG.findall(value))


def matched_version(tag: str) -> int | None:
    """The config's version in a tag of ours, compared strongly: a weak or foreign tag matches none."""
    ours = _OUR_TAG.fullmatch(tag)
    return int(ours[1]) if ours else None


def is_known(tag: str, known: str) -> bool:
    """Whether `If-None-Match` names the tag (RFC 9110, 13.1.2: weak comparison)."""
    return any(candidate in ("*", tag) or candidate.removeprefix("W/") == tag for candidate in tags(known))
