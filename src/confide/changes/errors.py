"""Expected errors of the change log."""

from __future__ import annotations

from confide.errors import ErrorKind, ServiceError


class PositionGone(ServiceError):
    kind = ErrorKind.GONE
    code = "position-gone"
    sentence = "The change log no longer has this position. Read the configs again and continue from there."
