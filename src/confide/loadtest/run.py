"""Run of a plan: its configs, its worker processes and its result."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from confide.client import Client
from confide.loadtest.graceful_stop import GracefulStop, block_interrupts
from confide.loadtest.plan import PREFIX, Plan
from confide.loadtest.recorder import create_histogram, merge_histograms
from confide.loadtest.results import Result, build_result
from confide.loadtest.worker import run_worker
from confide.loadtest.workload import build_initial_configuration
from confide.names import ConfigKey

# Time for all workers to start. A worker that needs longer starts its first requests late and reports it.
STARTUP_SECONDS = 1.5
# Time for workers to exit after they have sent their measurements.
EXIT_SECONDS = 1.0
MAX_CONCURRENT_SAVES = 8
BATCH_SIZE = 100


class RunFailed(Exception):
    """A worker process of the load generator ended early."""


class RunStopped(Exception):
    """A run was interrupted. Its result covers the complete seconds and is None if there are none."""

    def __init__(self, result: Result | None) -> None:
        super().__init__("stopped")
        self.result = result


class RunProgress(NamedTuple):
    """Measurements of all workers in about the last half second."""

    second: float
    rate: float
    p50_ms: float
    p99_ms: float
    errors: int
    in_flight: int


def find_missing_configs(client: Client, plan: Plan) -> list[ConfigKey]:
    """Return the key of each config that the plan needs and the service lacks."""
    existing: set[ConfigKey] = set()
    after = None
    while True:
        page = client.list(f"{PREFIX}*", f"{PREFIX}*", after=after)
        existing.update(ConfigKey(config["tenant"], config["integration_type"]) for config in page["configs"])
        after = page["next"]
        if after is None:
            break
    needed = (
        ConfigKey(plan.format_tenant(tenant), plan.format_integration_type(type_))
        for tenant in range(plan.tenants)
        for type_ in range(plan.types)
    )
    return [key for key in needed if key not in existing]


def create_configs(keys: Sequence[ConfigKey], *, url: str, token: str, on_progress: Callable[[int], None]) -> None:
    """Save the first version of each config. Raises `ConfideError` at the first error."""

    def save(batch: Iterable[ConfigKey]) -> None:
        with Client(url, token=token) as client:
            for key in batch:
                client.save(key.tenant, key.integration_type, build_initial_configuration(key.tenant))

    with ThreadPoolExecutor(MAX_CONCURRENT_SAVES) as pool:
        batches = [keys[at : at + BATCH_SIZE] for at in range(0, len(keys), BATCH_SIZE)]
        for done, _ in enumerate(pool.map(save, batches), 1):
            on_progress(min(done * BATCH_SIZE, len(keys)))


def run_plan(
    plan: Plan, tokens: Sequence[str], *, on_progress: Callable[[RunProgress], None], stop: GracefulStop | None = None
) -> Result:
    """Run a plan whose configs exist. Raises `RunFailed`, and `RunStopped` if a stop is requested."""
    stop = stop or GracefulStop()
    context = multiprocessing.get_context("spawn")
    began_at = time.time() + STARTUP_SECONDS
    begin = time.monotonic() + STARTUP_SECONDS
    pipes: dict[Connection, int] = {}
    processes: list[BaseProcess] = []
    measurements = None
    try:
        with block_interrupts():
            for worker in range(plan.processes):
                ours, theirs = context.Pipe()
                process = context.Process(target=run_worker, args=(plan, tokens, worker, begin, theirs), daemon=True)
                process.start()
                theirs.close()
                pipes[ours] = worker
                processes.append(process)
            stop.forward_to(pipes)
        measurements = _receive_measurements(pipes, plan, begin=begin, on_progress=on_progress)
    finally:
        stop.forward_to(())
        _end_processes(processes, seconds=0.0 if measurements is None else EXIT_SECONDS)
    if len(measurements) < plan.processes:
        raise RunFailed("A worker process of the load generator ended early.")
    if not stop.is_requested:
        return build_result(plan, measurements, began_at=began_at)
    seconds = plan.find_second(min(measurement["ran_seconds"] for measurement in measurements))
    if seconds <= 0:
        raise RunStopped(None)
    raise RunStopped(build_result(plan.truncate(seconds), measurements, began_at=began_at, is_stopped=True))


def _end_processes(processes: Sequence[BaseProcess], *, seconds: float) -> None:
    """Wait for processes to exit, all together for at most this long. Terminate the others."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join()


def _receive_measurements(
    pipes: dict[Connection, int], plan: Plan, *, begin: float, on_progress: Callable[[RunProgress], None]
) -> list[dict[str, Any]]:
    """Receive messages until every worker has closed its pipe. Return the measurements that arrived."""
    measurements: list[dict[str, Any]] = []
    intervals: dict[int, dict[str, Any]] = {}
    reported_at = begin
    open_pipes = dict(pipes)
    while open_pipes:
        pipe: Any
        for pipe in wait(list(open_pipes)):
            try:
                kind, value = pipe.recv()
            except (EOFError, ConnectionError):  # the process has ended
                del open_pipes[pipe]
                continue
            if kind == "done":
                measurements.append(value)
            else:
                intervals[open_pipes[pipe]] = value
        if len(intervals) == plan.processes:
            now = time.monotonic()
            seconds = max(now - reported_at, 0.001)
            on_progress(_merge_intervals(list(intervals.values()), second=now - begin, seconds=seconds))
            reported_at = now
            intervals.clear()
    return measurements


def _merge_intervals(intervals: Sequence[dict[str, Any]], *, second: float, seconds: float) -> RunProgress:
    histogram = merge_histograms(interval["histogram"] for interval in intervals) if intervals else create_histogram()
    return RunProgress(
        second,
        sum(interval["answered"] for interval in intervals) / seconds,
        histogram.get_value_at_percentile(50) / 1e3,
        histogram.get_value_at_percentile(99) / 1e3,
        sum(interval["errors"] for interval in intervals),
        sum(interval["in_flight"] for interval in intervals),
    )
