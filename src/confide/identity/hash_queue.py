"""The places of the queue for password hashes, with a share that is reserved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from confide.errors import Busy

MAX_RUNNING = 2
MAX_WAITING = 16
MAX_PLACES = MAX_RUNNING + MAX_WAITING
# One address holds at most a quarter of the places with logins that have not succeeded from it.
MAX_PLACES_OF_AN_ADDRESS = MAX_PLACES // 4
# Only for authenticated callers, and for logins that have succeeded from the same address.
RESERVED_PLACES = MAX_PLACES // 4


class HashQueue:
    """Counts the hashes that run or wait, so that made-up logins cannot take every place."""

    def __init__(self) -> None:
        self.taken = 0
        self._unproven = 0
        self._by_address: Counter[str] = Counter()

    @contextmanager
    def take_reserved(self) -> Iterator[None]:
        """Hold a place for an authenticated caller or a proven login. Raises `Busy` if all places are taken."""
        self._require(has_place=self.taken < MAX_PLACES)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    @contextmanager
    def take_unproven(self, address: str | None) -> Iterator[None]:
        """Hold a place outside of the reserved ones. Raises `Busy` if there is none, or none for this address.

        None stands for callers whose address is not known: they have no limit for each address.
        """
        self._require(has_place=self._unproven < MAX_PLACES - RESERVED_PLACES)
        self._require(has_place=address is None or self._by_address[address] < MAX_PLACES_OF_AN_ADDRESS)
        with self.take_reserved():
            self._unproven += 1
            if address is not None:
                self._by_address[address] += 1
            try:
                yield
            finally:
                self._unproven -= 1
                if address is not None:
                    self._by_address[address] -= 1
                    self._by_address += Counter()  # drops the addresses without places

    def _require(self, *, has_place: bool) -> None:
        if not has_place:
            raise Busy("Too many logins are in progress. Try again.", retry_after_seconds=2)
