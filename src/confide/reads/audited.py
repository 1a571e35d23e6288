"""Reads that ask for secrets. Each is audited before its response is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from confide.identity.model import Principal, SecretsMode
from confide.names import ConfigKey
from confide.preconditions import Precondition
from confide.reads.errors import MemberMissing
from confide.reads.response import ReadResult
from confide.strict_json import find_value, format_pointer

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder
    from confide.reads.reader import ConfigReader


class ReadConditions(NamedTuple):
    """What the headers and parameters of a read demand."""

    precondition: Precondition
    min_version: int
    has_defaults: bool


class OpenedMember(NamedTuple):
    """One member of a version of a config, with its secrets."""

    version: int
    value: Any


class AuditedReader:
    """Reads current configs with their secrets, for people.

    Applications read without the parameter `secrets`. Those reads are counted, but not audited one by one.
    """

    def __init__(self, reader: ConfigReader, recorder: AuditRecorder) -> None:
        self._reader = reader
        self._recorder = recorder

    async def read(self, key: ConfigKey, conditions: ReadConditions, *, principal: Principal) -> ReadResult:
        """Read a whole config.

        Raises the errors of `ConfigReader.read`, `NotAllowed` for a viewer, and `VersionConflict`.
        """
        result = await self._read(key, conditions, principal=principal)
        await self._record("config", key, result, principal=principal)
        return result

    async def read_member(
        self, key: ConfigKey, path: tuple[str, ...], conditions: ReadConditions, *, principal: Principal
    ) -> OpenedMember:
        """Read the value at a path. Raises `MemberMissing`, and the errors of `read`."""
        result = await self._read(key, conditions, principal=principal)
        try:
            value = find_value(json.loads(result.response.body)["configuration"], path)
        except LookupError:
            raise MemberMissing from None
        await self._record("member", key, result, principal=principal, subject=format_pointer(path))
        return OpenedMember(result.response.version, value)

    async def _read(self, key: ConfigKey, conditions: ReadConditions, *, principal: Principal) -> ReadResult:
        result = await self._reader.read(
            key,
            principal=principal,
            min_version=conditions.min_version,
            has_defaults=conditions.has_defaults,
            secrets=SecretsMode.OPENED,
        )
        conditions.precondition.require_match(result.response.version, epoch=result.response.epoch)
        return result

    async def _record(
        self, outcome: str, key: ConfigKey, result: ReadResult, *, principal: Principal, subject: str | None = None
    ) -> None:
        version = result.response.version
        await self._recorder.record("reveal", outcome, principal=principal, key=key, version=version, subject=subject)
