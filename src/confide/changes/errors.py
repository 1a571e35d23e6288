"""Expected errors of the change log."""

from __future__ import annotations

from confide.errors import ServiceError


class PositionGone(ServiceError):
    code = "position-gone"
    sentence = "The log does not reach back to that position, or it belongs to an earlier epoch: read again."
