"""Hash and verify passwords with Argon2id. Verification takes the same time whether or not the login exists."""

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

from confide.context import extend_deadline
from confide.identity.hash_queue import MAX_RUNNING, HashQueue
from confide.telemetry.io_log import NO_IO_LOG, IoLog, record_failure

T = TypeVar("T")

MEMORY_KIB = 46 * 1024
ITERATIONS = 1
LANES = 1
SALT_BYTES = 16
HASH_BYTES = 32
# The name of the operation in I/O events.
HASH = "hash password"

_PHC = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,2}),p=([0-9])\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)
# Limits on the parameters of stored hashes. Altered parameters must not exhaust the memory.
MAX_MEMORY_KIB = 256 * 1024
MAX_ITERATIONS = 10


class Argon2Hasher:
    """Hashes passwords in its own threads, so that reads and saves do not wait for them.

    The function is Argon2id (RFC 9106). The parameters follow OWASP and NIST SP 800-63B: m = 46 MiB, t = 1.
    """

    def __init__(self, *, memory_kib: int = MEMORY_KIB, io: IoLog = NO_IO_LOG) -> None:
        self._memory_kib = memory_kib
        self._io = io
        self._executor = ThreadPoolExecutor(MAX_RUNNING, thread_name_prefix="password")
        self.queue = HashQueue()
        # A hash to verify against if the login is unknown. A thread computes it during the start.
        self._dummy_hash = self._executor.submit(self._compute_hash, secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """Hash a password for an authenticated caller. Raises `Busy` if all places of the queue are taken."""
        with self.queue.take_reserved():
            return await self._run(self._compute_hash, password)

    async def verify(self, password: str, stored_hash: str | None) -> bool:
        """Return whether a password has this hash. The caller holds a place in the queue."""
        dummy = await asyncio.wrap_future(self._dummy_hash)
        is_match = await self._run(_is_match, password, dummy if stored_hash is None else stored_hash)
        return is_match and stored_hash is not None

    def is_outdated(self, stored_hash: str) -> bool:
        """Return whether a hash has other parameters than new hashes."""
        parts = _PHC.fullmatch(stored_hash)
        return parts is None or (int(parts[1]), int(parts[2])) != (self._memory_kib, ITERATIONS)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., T], *args: str) -> T:
        submitted_ns = monotonic_ns()
        try:
            began_ns, result = await asyncio.get_running_loop().run_in_executor(
                self._executor, _run_with_start_time, work, *args
            )
        except BaseException as error:
            record_failure(self._io, HASH, submitted_ns, error)
            raise
        finally:
            # Otherwise a slow hash would be reported as a database that does not respond.
            extend_deadline((monotonic_ns() - submitted_ns) / 1e9)
        self._io.record("wait hash", submitted_ns, ended_ns=began_ns)
        self._io.record(HASH, began_ns)
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


def _run_with_start_time(work: Callable[..., T], *args: str) -> tuple[int, T]:
    """Run on a thread. Return the start time and the result."""
    began_ns = monotonic_ns()
    return began_ns, work(*args)


def _is_match(password: str, stored_hash: str) -> bool:
    parts = _PHC.fullmatch(stored_hash)
    if parts is None or int(parts[1]) > MAX_MEMORY_KIB or int(parts[2]) > MAX_ITERATIONS:
        return False
    try:
        Argon2id.verify_phc_encoded(password.encode(), stored_hash)
    except InvalidKey:
        return False
    return True
