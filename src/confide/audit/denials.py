"""Record denied access: the first denial of a minute at once, and the number of the others afterwards.

Otherwise a caller without rights could add permanent entries as fast as it sends requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from confide.errors import Busy, DatabaseUnavailable
from confide.identity.model import Principal
from confide.names import ConfigKey
from confide.telemetry.outage import Outage

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder

WINDOW_SECONDS = 60.0
# The number of different denials of a principal in one window. The others share one entry.
MAX_KEYS = 20
FLUSH_SECONDS = 1.0

_log = logging.getLogger("confide")


class _Denial(NamedTuple):
    """The action, object and token of a denied request. Equal denials of one window share a count."""

    token_id: int | None
    action: str
    key: ConfigKey | None


# The token and the object are left out, because denials of any token and object share this one.
_FURTHER = _Denial(None, "access", None)
_FURTHER_SUBJECT = (
    f"more than {MAX_KEYS} different denials within {WINDOW_SECONDS:.0f} s; further ones are counted together"
)


@dataclass(slots=True)
class _Count:
    """One denial of a principal in one window, and how often it was repeated."""

    principal: Principal
    is_recorded: bool = False
    repeated: int = 0


@dataclass(slots=True)
class _Window:
    """The denials of one principal within a minute."""

    began: float
    counts: dict[_Denial, _Count] = field(default_factory=dict)


class DenialRecorder:
    """Records denials of each principal. An entry with a number replaces repeated ones of the same minute.

    A crash loses numbers only. Each process counts separately.
    """

    def __init__(self, recorder: AuditRecorder, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._recorder = recorder
        self._timer = timer
        self._outage = Outage()
        self._windows: dict[int, _Window] = {}
        # Repeated denials of windows that have ended.
        self._ended: list[tuple[_Denial, _Count]] = []

    async def record(self, action: str, *, principal: Principal, key: ConfigKey | None = None) -> None:
        """Store the entry of a first denial. Count a repeated one."""
        denial = _Denial(principal.token_id, action, key)
        counts = self._open_window(principal.user_id).counts
        if denial not in counts and len(counts) >= MAX_KEYS:
            denial = _FURTHER
        count = counts.setdefault(denial, _Count(principal))
        if count.is_recorded:
            count.repeated += 1
            return
        count.is_recorded = True
        subject = _FURTHER_SUBJECT if denial is _FURTHER else None
        try:
            await self._recorder.record(denial.action, "denied", principal=principal, key=denial.key, subject=subject)
        except BaseException:
            count.is_recorded = False  # the next denial stores the entry
            raise

    async def run(self) -> None:
        """Store the numbers of ended windows until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self, *, is_ending: bool = False) -> None:
        """Store the numbers of windows that have ended, or of all with `is_ending`. During an outage they wait."""
        now = self._timer()
        for user_id, window in list(self._windows.items()):
            if is_ending or now - window.began >= WINDOW_SECONDS:
                self._end_window(user_id)
        try:
            while self._ended:
                await self._store(*self._ended[-1])
                self._ended.pop()
            self._outage.end()
        except (DatabaseUnavailable, Busy) as error:
            if (reason := self._outage.find_new_reason(error)) is not None:
                _log.warning("denial_counts_postponed reason=%s", reason)
        except Exception:  # noqa: BLE001 - later counts must be stored
            self._ended.pop()
            _log.exception("denial_count_lost")

    async def _store(self, denial: _Denial, count: _Count) -> None:
        subject = f"{count.repeated} more within {WINDOW_SECONDS:.0f} s"
        await self._recorder.record(denial.action, "denied", principal=count.principal, key=denial.key, subject=subject)

    def _open_window(self, user_id: int) -> _Window:
        now, window = self._timer(), self._windows.get(user_id)
        if window is None or now - window.began >= WINDOW_SECONDS:
            self._end_window(user_id)
            window = self._windows[user_id] = _Window(now)
        return window

    def _end_window(self, user_id: int) -> None:
        window = self._windows.pop(user_id, None)
        if window is not None:
            self._ended += [(denial, count) for denial, count in window.counts.items() if count.repeated]
