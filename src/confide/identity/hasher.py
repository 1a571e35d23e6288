"""Hash and verify passwords with Argon2id, in the same time whether the login exists or not."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic_ns
from typing import TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from confide.errors import Busy
from confide.telemetry.io_log import NO_IO_LOG, IoLog, record_failure

T = TypeVar("T")

MEMORY_KIB = 46 * 1024
ITERATIONS = 1
LANES = 1
SALT_BYTES = 16
HASH_BYTES = 32
AT_ONCE = 2
MAX_WAITING = 16
HASH = "hash password"

_PHC = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,2}),p=([0-9])\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)
_MOST_MEMORY_KIB = 256 * 1024
_MOST_ITERATIONS = 10


class Argon2Hasher:
    """Hashes in its own executor, so that reads and saves do not wait for it.

    The parameters follow OWASP and NIST SP 800-63B: m = 46 MiB, t = 1 (RFC 9106 for the function itself).
    """

    def __init__(self, *, memory_kib: int = MEMORY_KIB, io: IoLog = NO_IO_LOG) -> None:
        self._memory_kib = memory_kib
        self._io = io
        self._executor = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")
        self.waiting = 0
        # The hash for unknown logins, computed in the background during the start.
        self._dummy_hash = self._executor.submit(self._compute_hash, secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        return await self._run(self._compute_hash, password)

    async def verify(self, password: str, known: str | None) -> bool:
        dummy = await asyncio.wrap_future(self._dummy_hash)
        is_right = await self._run(_is_right, password, dummy if known is None else known)
        return is_right and known is not None

    def is_outdated(self, known: str) -> bool:
        parts = _PHC.fullmatch(known)
        return parts is None or (int(parts[1]), int(parts[2])) != (self._memory_kib, ITERATIONS)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., T], *args: str) -> T:
        if self.waiting >= AT_ONCE + MAX_WAITING:
            raise Busy("Too many logins are in progress. Try again.", retry_after_seconds=2)
        self.waiting += 1
        asked = monotonic_ns()
        try:
            began, result = await asyncio.get_running_loop().run_in_executor(self._executor, _timed, work, *args)
        except BaseException as error:
            record_failure(self._io, HASH, asked, error)
            raise
        finally:
            self.waiting -= 1
        self._io.record("wait hash", asked, ended_ns=began)
        self._io.record(HASH, began)
        return result

    def _compute_hash(self, password: str) -> str:
        kdf = Argon2id(
            salt=secrets.token_bytes(SALT_BYTES),
            length=HASH_BYTES,
            iterations=ITERATIONS,
            lanes=LANES,
            memory_cost=self._memory_kib,
        )
        return kdf.derive_phc_encoded(password.encode())


def _timed(work: Callable[..., T], *args: str) -> tuple[int, T]:
    """Run on a thread; returns the start time and the result."""
    began = monotonic_ns()
    return began, work(*args)


def _is_right(password: str, known: str) -> bool:
    # Altered parameters of a stored hash must not exhaust the memory.
    parts = _PHC.fullmatch(known)
    if parts is None or int(parts[1]) > _MOST_MEMORY_KIB or int(parts[2]) > _MOST_ITERATIONS:
        return False
    try:
        Argon2id.verify_phc_encoded(password.encode(), known)
    except InvalidKey:
        return False
    return True
