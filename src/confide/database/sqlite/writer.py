"""The writer thread: group commit of the waiting transactions of a process, with a savepoint for each."""

from __future__ import annotations

import asyncio
import contextvars
import fcntl
import os
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic_ns
from typing import Any, TypeAlias

import apsw

from confide.caching.stamps import SlotChange, Stamps
from confide.database.engine import (
    SCRIPT,
    AppendChange,
    Lock,
    Many,
    Script,
    Statement,
    Step,
    TableLock,
    Transaction,
    find_operation,
)
from confide.database.model import Rows
from confide.database.sqlite.errors import translate_error
from confide.database.storage import StorageState
from confide.errors import Busy, DatabaseFull, DatabaseUnavailable, describe_error
from confide.telemetry.io_log import OK, IoLog

# Name, start, end, outcome and number of rows of one step of a job.
_Operation: TypeAlias = tuple[str, int, int, str, int]

WRITER = "wait writer"
MAX_WAITING = 2_000
MAX_BATCH = 256
CLOSE_SECONDS = 3.0


@dataclass(slots=True)
class _Job:
    work: Transaction[Any]
    future: asyncio.Future[Any]
    # The request that submitted the job. Its operations are recorded there on delivery.
    context: contextvars.Context
    submitted_at: int
    operations: list[_Operation] = field(default_factory=list)
    # The slots that the transaction changes.
    changes: list[SlotChange] = field(default_factory=list)
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs transactions on a thread, several in one commit. Results are delivered after the commit."""

    def __init__(
        self,
        connection: apsw.Connection,
        lock_file: Path,
        *,
        stamps: Stamps,
        loop: asyncio.AbstractEventLoop,
        storage: StorageState,
        io: IoLog,
    ) -> None:
        self._connection = connection
        self._stamps = stamps
        self._has_searched_marks = False
        self._storage = storage
        self._io = io
        self._loop = loop
        self._lock = os.open(lock_file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Transaction[Any]) -> asyncio.Future[Any]:
        if self._waiting.qsize() > MAX_WAITING:
            raise Busy(retry_after_seconds=1)
        job = _Job(work, self._loop.create_future(), contextvars.copy_context(), monotonic_ns())
        self._waiting.put(job)
        return job.future

    async def close(self) -> None:
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)
        if self._thread.is_alive():
            return  # another process holds the lock; the thread is a daemon and ends with this process
        self._connection.close()
        os.close(self._lock)

    def _run(self) -> None:
        while True:
            jobs, is_open = self._take_jobs()
            if jobs:
                self._commit_batch(jobs)
                self._loop.call_soon_threadsafe(self._deliver, jobs)
            if not is_open:
                return

    def _take_jobs(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        job = self._waiting.get()
        while job is not None:
            # Skip a job whose caller has given up.
            if not job.future.cancelled():
                jobs.append(job)
            if len(jobs) >= MAX_BATCH:
                return jobs, True
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _commit_batch(self, jobs: list[_Job]) -> None:
        changes: list[SlotChange] = []
        try:
            # A fair lock between processes. SQLite's busy handler is not fair.
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._stamps.clear_marks(must_search=not self._has_searched_marks)
            self._has_searched_marks = True
            self._connection.execute("BEGIN IMMEDIATE")
            began_batch = monotonic_ns()
            for job in jobs:
                job.operations.append((WRITER, job.submitted_at, began_batch, OK, 0))
                self._run_one(job, is_alone=len(jobs) == 1)
            # A single job that failed has already rolled back.
            if self._connection.in_transaction:
                changes = [change for job in jobs for change in job.changes]
                self._stamps.mark_in_doubt(changes)
                self._commit(jobs)
        except Exception as error:  # noqa: BLE001 - the thread must continue; the batch stored nothing
            failure = self._find_failure(jobs, error)
            self._rollback()
            for job in jobs:
                if not job.operations:
                    job.operations.append((WRITER, job.submitted_at, monotonic_ns(), type(error).__name__, 0))
                job.error = job.error or failure
        finally:
            # After a failed commit too: it is rolled back, so the old version remains current.
            self._stamps.stamp_marked(changes)
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        for job in jobs:
            if isinstance(job.error, DatabaseFull):
                self._storage.record(job.error)

    def _find_failure(self, jobs: list[_Job], error: Exception) -> Exception:
        """Return the error of the jobs of a failed batch that have none of their own.

        A failed statement can roll back the whole transaction, so that later statements fail for another reason.
        """
        for job in jobs:
            if isinstance(job.error, DatabaseUnavailable):
                return job.error
        translated = translate_error(error, self._connection)
        return translated if isinstance(translated, DatabaseUnavailable) else DatabaseUnavailable(describe_error(error))

    def _commit(self, jobs: list[_Job]) -> None:
        """Commit the batch, and add the commit to the operations of each job."""
        began, outcome = monotonic_ns(), OK
        try:
            self._connection.execute("COMMIT")
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            ended = monotonic_ns()
            for job in jobs:
                job.operations.append(("commit", began, ended, outcome, 0))

    def _run_one(self, job: _Job, *, is_alone: bool) -> None:
        if is_alone:
            self._run_alone(job)
            return
        self._connection.execute("SAVEPOINT one")
        try:
            job.result = run_steps(job.work, partial(self._run_step, job))
        except Exception as error:  # noqa: BLE001 - delivered to its caller; other jobs continue
            job.error = translate_error(error, self._connection)
            self._connection.execute("ROLLBACK TO one")
            job.changes.clear()
        self._connection.execute("RELEASE one")

    def _run_alone(self, job: _Job) -> None:
        try:
            job.result = run_steps(job.work, partial(self._run_step, job))
        except Exception as error:  # noqa: BLE001 - delivered to its caller
            job.error = translate_error(error, self._connection)
            self._rollback()

    def _run_step(self, job: _Job, step: Step) -> Rows:
        if isinstance(step, Lock | TableLock):
            return []  # there is only one writer at a time
        if isinstance(step, SlotChange):
            job.changes.append(step)
            return []
        operation = SCRIPT if isinstance(step, Script) else find_operation(step.sql)
        began, outcome = monotonic_ns(), OK
        rows: Rows = []
        try:
            rows = self._execute(step)
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            job.operations.append((operation, began, monotonic_ns(), outcome, len(rows)))
        return rows

    def _execute(self, step: Statement | AppendChange | Script | Many) -> Rows:
        match step:
            case Statement(sql, args) | AppendChange(sql, args):
                return self._connection.execute(sql, bind_arguments(args)).fetchall()
            case Script(sql):
                self._connection.execute(sql).fetchall()
            case Many(sql, rows):
                self._connection.executemany(sql, [bind_arguments(row) for row in rows])
        return []

    def _deliver(self, jobs: list[_Job]) -> None:
        for job in jobs:
            if job.future.done():
                continue  # the caller has given up and recorded that
            job.context.run(self._record_operations, job)
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)

    def _record_operations(self, job: _Job) -> None:
        for operation, began, ended, outcome, amount in job.operations:
            self._io.record(operation, began, outcome=outcome, amount=amount, ended_ns=ended)

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def bind_arguments(args: Iterable[Any]) -> dict[str, Any]:
    # apsw binds a sequence by order of appearance, so `$2 … $1` would silently swap.
    return {str(number): value for number, value in enumerate(args, 1)}


def run_steps(work: Transaction[Any], run_step: Callable[[Step], Rows]) -> Any:
    """Drive a transaction to its end, sending it the rows of each step."""
    try:
        step = next(work)
        while True:
            step = work.send(run_step(step))
    except StopIteration as end:
        return end.value
    finally:
        work.close()
