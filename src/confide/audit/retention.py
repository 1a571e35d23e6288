"""Remove old entries of the audit log, so that the hash chain can still be verified."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from confide.audit.chain import FIRST_LINK, ChainCheck, ChainedEntry, ChainPart, Removal
from confide.clock import MICROSECONDS_PER_SECOND, Clock

if TYPE_CHECKING:
    from confide.audit.retention_store import AuditRetentionStore
    from confide.audit.store import AuditStore
    from confide.crypto.envelope import EnvelopeEncryption

TRIM_SECONDS = 6 * 60 * 60
# The number of entries that are read and verified at a time.
BATCH_SIZE = 500
DAY_SECONDS = 24 * 60 * 60
# Entries of every other action stay: users, tokens, types, destroyed tenants, epochs and what later releases add.
REMOVABLE_ACTIONS = frozenset({"save", "retire", "roll back", "reveal", "open", "login", "logout"})

_log = logging.getLogger("confide")


class ClaimJob(Protocol):
    """Claims a background job until a time. Returns False if another process has claimed it."""

    def __call__(self, name: str, *, now: int, until: int) -> Awaitable[bool]: ...


@dataclass(slots=True)
class _Stretch:
    """Consecutive parts of the chain that can be removed, from the link before them to their last link."""

    first: int
    last: int
    previous_link: bytes
    link: bytes
    # Entries that are still stored.
    count: int = 0


class AuditRetention:
    """Removes old entries in the background. Off with `days` 0.

    A signed removal stands for each stretch of removed entries. The last signed entry and those after it stay.
    """

    def __init__(
        self,
        audit: AuditStore,
        retention: AuditRetentionStore,
        encryption: EnvelopeEncryption,
        *,
        claim_job: ClaimJob,
        clock: Clock,
        days: int,
    ) -> None:
        self._audit = audit
        self._retention = retention
        self._encryption = encryption
        self._claim_job = claim_job
        self._clock = clock
        self._days = days

    async def run_due_job(self) -> None:
        """Remove old entries if that is due, unless another process has claimed it."""
        now = self._clock()
        until = now + TRIM_SECONDS * MICROSECONDS_PER_SECOND
        if self._days and await self._claim_job("trim audit", now=now, until=until):
            await self.trim()

    async def trim(self) -> int:
        """Remove old entries and return their number.

        Each entry is verified first. At an invalid one this stops, so that the verification still finds it.
        """
        removed, open_stretch = 0, None
        before = self._clock() - self._days * DAY_SECONDS * MICROSECONDS_PER_SECOND
        last_signed = await self._retention.read_last_signed()
        first_recent_change = await self._retention.find_first_recent_change()
        check = ChainCheck([], link=FIRST_LINK, mac=lambda entry: self._encryption.compute_mac("audit", entry))
        while parts := await self._audit.list_chained(after=check.number, limit=BATCH_SIZE):
            first, previous_link = check.number + 1, check.link
            if not self._verify(check, parts):
                _log.error("audit_retention_stopped number=%d", check.number + 1)
                return removed
            needed = await self._retention.list_needed(first, check.number, first_recent_change=first_recent_change)
            old = list(takewhile(partial(_is_old, before=before, until=last_signed), parts))
            for stretch in _find_stretches(old, previous_link, needed):
                joined = _join(open_stretch, stretch)
                removed += await self._remove(joined)
                open_stretch = replace(joined, count=0)
            if len(old) < len(parts):
                break
            await asyncio.sleep(0)
        if removed:
            _log.info("audit_entries_removed count=%d", removed)
        return removed

    def _verify(self, check: ChainCheck, parts: list[ChainPart]) -> bool:
        return all(
            self._encryption.is_signature_valid(part.encode_signed_part(), part.signature)
            for part in parts
            if isinstance(part, Removal)
        ) and check.verify_next(parts)

    async def _remove(self, stretch: _Stretch) -> int:
        if not stretch.count:
            return 0
        unsigned = Removal(
            stretch.first,
            stretch.last,
            stretch.previous_link,
            stretch.link,
            self._clock(),
            self._encryption.public_key,
            b"",
        )
        removal = replace(unsigned, signature=self._encryption.sign(unsigned.encode_signed_part()))
        return stretch.count if await self._retention.remove(removal, count=stretch.count) else 0


def _find_stretches(parts: list[ChainPart], previous_link: bytes, needed: set[int]) -> Iterator[_Stretch]:
    """Yield the longest stretches of consecutive parts that can be removed."""
    stretch: _Stretch | None = None
    for part in parts:
        if isinstance(part, Removal):
            one = _Stretch(part.first, part.last, part.previous_link, part.link)
        elif part.number not in needed and _is_removable(part):
            one = _Stretch(part.number, part.number, previous_link, part.link, 1)
        else:
            if stretch is not None:
                yield stretch
            stretch, previous_link = None, part.link
            continue
        stretch, previous_link = _join(stretch, one), part.link
    if stretch is not None:
        yield stretch


def _join(stretch: _Stretch | None, following: _Stretch) -> _Stretch:
    """Join two stretches. Return the second one if it does not follow the first one directly."""
    if stretch is None or stretch.last + 1 != following.first:
        return following
    return _Stretch(
        stretch.first, following.last, stretch.previous_link, following.link, stretch.count + following.count
    )


def _is_old(part: ChainPart, *, before: int, until: int) -> bool:
    """Return whether a verified part is older than a time and precedes a number."""
    if isinstance(part, Removal):
        return part.last < until
    return part.number < until and part.entry is not None and int(json.loads(part.entry)[0]) < before


def _is_removable(part: ChainedEntry) -> bool:
    _, action, outcome, *_ = json.loads(part.entry or b"null")
    return outcome == "denied" or action in REMOVABLE_ACTIONS
