"""One worker: opens its parts, subscribes to changes, and runs background jobs until the server stops."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from confide.errors import Busy, DatabaseUnavailable, describe_error
from confide.server.application import Application
from confide.server.limits import compute_limits, read_file_limit
from confide.server.preparation import build_signing
from confide.server.process import Process
from confide.server.settings import Settings
from confide.server.wiring import open_process, record_io, run_alongside, subscribe
from confide.telemetry.metrics_files import WorkerMetricsFiles
from confide.telemetry.outage import Outage
from confide.web.connections import Connections

JOB_SECONDS = 600
# Between two attempts to start while the database is unavailable.
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.2, 5.0
# Cached objects live long and form no reference cycles, so frequent garbage collections would find nothing.
GARBAGE_THRESHOLDS = (20_000, 50, 100)

_log = logging.getLogger("confide")


def build_application(settings: Settings, setup_token: str, metrics_folder: Path | None) -> Application:
    """Build the application of one worker. Its parts are opened and closed by the server's lifespan.

    In `metrics_folder` the workers of one service share their metrics. None if this is the only worker.
    """
    processes: list[Process] = []
    metrics_files = None if metrics_folder is None else WorkerMetricsFiles(metrics_folder)
    limits = compute_limits(settings, files=read_file_limit()).connections

    def is_proxy(peer: str) -> bool:
        return processes[0].callers.is_proxy(peer)  # exists before the server accepts connections

    connections = Connections(limits, is_proxy=is_proxy)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with record_io(settings) as dispatcher, AsyncExitStack() as stack:
            process = await _open_when_available(
                stack,
                lambda: open_process(
                    settings,
                    setup_token=setup_token,
                    dispatcher=dispatcher,
                    metrics_files=metrics_files,
                    connections=connections,
                ),
            )
            processes[:] = [process]
            # Before the server stops, health reports the end to load balancers.
            stack.enter_context(_calling_on_signals(process.draining.begin, signal.SIGTERM))
            async with (
                subscribe(process),
                run_alongside(_run_jobs(process)),
                run_alongside(process.metrics.run()),
                run_alongside(process.audit.denials.run()),
                run_alongside(process.audit.chain_writer.run()),
                run_alongside(process.reads.statistics.run()),
                run_alongside(process.audit.recorder.record_altered_rows(process.stores.rows.altered)),
            ):
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GARBAGE_THRESHOLDS)
                yield
            await _flush(process)

    return Application(lambda: processes[0], lifespan=lifespan, connections=connections)


async def _open_when_available(
    stack: AsyncExitStack, open_parts: Callable[[], AbstractAsyncContextManager[Process]]
) -> Process:
    """Open the parts of the process. Try again during an outage, until a signal asks to stop.

    The supervisor has reached the database before it starts the first worker. So an outage here is one that began
    later, and the service ends only when it is asked to.
    """
    stop, pause_seconds, outage = asyncio.Event(), MIN_PAUSE_SECONDS, Outage()
    with _calling_on_signals(stop.set, signal.SIGTERM, signal.SIGINT):
        while True:
            try:
                process = await stack.enter_async_context(open_parts())
            except DatabaseUnavailable as error:
                if (reason := outage.find_new_reason(error)) is not None:
                    _log.warning("worker_start_delayed reason=%s", reason)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_seconds):
                        await stop.wait()
                if stop.is_set():
                    raise
            else:
                if (seconds := outage.end()) is not None:
                    _log.info("worker_started outage_seconds=%.1f", seconds)
                return process
            pause_seconds = min(2 * pause_seconds, MAX_PAUSE_SECONDS)


@contextmanager
def _calling_on_signals(callback: Callable[[], object], *numbers: signal.Signals) -> Iterator[None]:
    """Call back in the event loop on these signals, before the handlers that are installed. Leave others alone."""
    loop = asyncio.get_running_loop()
    previous = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}

    def handle(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(callback)
        previous[signal.Signals(number)](number, frame)  # type: ignore[arg-type]

    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


async def _flush(process: Process) -> None:
    """Store access statistics and numbers of denials, append the last entries to the audit chain, and sign it."""
    process.metrics.update()
    await process.reads.statistics.flush()
    await process.audit.denials.flush(is_ending=True)
    try:
        await process.audit.chain_writer.append_entries()
        await process.audit.chain_writer.sign_checkpoint()
    except (DatabaseUnavailable, Busy) as error:
        _log.warning("audit_chain_unsigned reason=%s", describe_error(error))


async def _run_jobs(process: Process) -> None:
    signing = build_signing(process.settings, process.stores)
    while True:
        try:
            await signing.sign_when_due(process.audit.recorder)
            await process.identity.tokens.delete_expired()
            await process.configs.writer.delete_expired_idempotency_records()
            await process.configs.retention.run_due_jobs()
            await process.audit.retention.run_due_job()
        except (DatabaseUnavailable, Busy) as error:
            _log.warning("background_jobs_postponed reason=%s", describe_error(error))
        except Exception:  # noqa: BLE001 - later runs must continue
            _log.exception("background_job_failed")
        await asyncio.sleep(JOB_SECONDS)
