"""Errors of reads."""

from __future__ import annotations

from confide.errors import ErrorKind, ServiceError


class MemberMissing(ServiceError):
    kind = ErrorKind.NOT_FOUND
    code = "member-missing"
    sentence = "The config has no member at this pointer. Check it against the masked config."
