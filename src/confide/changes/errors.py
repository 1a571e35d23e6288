"""Expected errors of the change log."""

from __future__ import annotations

from confide.errors import ErrorKind, ServiceError


class TooManyStreams(ServiceError):
    kind = ErrorKind.RATE_LIMITED
    code = "too-many-streams"
    sentence = "This token has too many watchers. Close unused ones, or use another token."


class PositionGone(ServiceError):
    kind = ErrorKind.GONE
    code = "position-gone"
    sentence = "The change log no longer has this position. Read the configs again and continue from there."
