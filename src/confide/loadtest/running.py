"""A whole run: what it needs is made first, its processes shoot, what they say is added up."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from confide.client import Client
from confide.loadtest.calls import first_configuration
from confide.loadtest.interrupts import Interrupts, held_back
from confide.loadtest.plans import PREFIX, Plan
from confide.loadtest.recording import new_histogram, together
from confide.loadtest.results import Result, result_of
from confide.loadtest.shooting import shoot

# When the first requests are due: by then every process should be there; one that is not, is late and says so.
START_SECONDS = 1.5
SAVED_AT_ONCE = 8


class RunFailed(Exception):
    """A process of the generator ended before it was done."""


class Stopped(Exception):
    """A run was interrupted; its result is of the whole seconds until then, None if there was none."""

    def __init__(self, result: Result | None) -> None:
        super().__init__("stopped")
        self.result = result


class Progress(NamedTuple):
    """What happened in about the last half second, by all processes together."""

    second: float
    rate: float
    p50_ms: float
    p99_ms: float
    errors: int
    under_way: int


def missing_keys(client: Client, plan: Plan) -> list[tuple[str, str]]:
    """The configs that the plan asks for and the service does not have yet."""
    there: set[tuple[str, str]] = set()
    after = None
    while True:
        page = client.list(f"{PREFIX}*", f"{PREFIX}*", after=after)
        there.update((config["tenant"], config["integration_type"]) for config in page["configs"])
        after = page["next"]
        if after is None:
            break
    wanted = (
        (plan.tenant(tenant), plan.integration_type(type_))
        for tenant in range(plan.tenants)
        for type_ in range(plan.types)
    )
    return [key for key in wanted if key not in there]


def save_missing(keys: Sequence[tuple[str, str]], *, url: str, token: str, tell: Callable[[int], None]) -> None:
    """Save a first version of each; raises `ConfideError` at the first refusal."""

    def save(portion: Iterable[tuple[str, str]]) -> None:
        with Client(url, token=token) as client:
            for tenant, type_ in portion:
                client.save(tenant, type_, first_configuration(tenant))

    with ThreadPoolExecutor(SAVED_AT_ONCE) as pool:
        portions = [keys[at : at + 100] for at in range(0, len(keys), 100)]
        for done, _ in enumerate(pool.map(save, portions), 1):
            tell(min(done * 100, len(keys)))


def run(
    plan: Plan, tokens: Sequence[str], *, tell: Callable[[Progress], None], interrupts: Interrupts | None = None
) -> Result:
    """Run a plan whose configs are there; raises `RunFailed`, and `Stopped` where an interrupt is heard."""
    interrupts = interrupts or Interrupts()
    context = multiprocessing.get_context("spawn")
    began_at = time.time() + START_SECONDS
    begin = time.monotonic() + START_SECONDS
    pipes: dict[Connection, int] = {}
    processes: list[BaseProcess] = []
    done = None
    try:
        with held_back():
            for share in range(plan.processes):
                here, there = context.Pipe()
                process = context.Process(target=shoot, args=(plan, tokens, share, begin, there), daemon=True)
                process.start()
                there.close()
                pipes[here] = share
                processes.append(process)
            interrupts.pass_on(pipes)
        done = _listen(pipes, plan, begin=begin, tell=tell)
    finally:
        interrupts.pass_on(())
        _end(processes, seconds=0.0 if done is None else 1.0)
    if len(done) < plan.processes:
        raise RunFailed("A process of the load generator ended before it was done.")
    if not interrupts.is_heard:
        return result_of(plan, done, began_at=began_at)
    whole = plan.second_of(min(share["ran_seconds"] for share in done))
    raise Stopped(result_of(plan.cut(whole), done, began_at=began_at, is_stopped=True) if whole > 0 else None)


def _end(processes: Sequence[BaseProcess], *, seconds: float) -> None:
    """Give all of them so long to end by themselves, then end them."""
    until = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join()


def _listen(
    pipes: dict[Connection, int], plan: Plan, *, begin: float, tell: Callable[[Progress], None]
) -> list[dict[str, Any]]:
    """Hear what the processes tell until each has ended; returns what they are done with."""
    done: list[dict[str, Any]] = []
    lately: dict[int, dict[str, Any]] = {}
    told_at = begin
    open_pipes = dict(pipes)
    while open_pipes:
        heard: Any
        for heard in wait(list(open_pipes)):
            try:
                kind, value = heard.recv()
            except (EOFError, ConnectionError):  # ended, or killed
                del open_pipes[heard]
                continue
            if kind == "done":
                done.append(value)
            else:
                lately[open_pipes[heard]] = value
        if len(lately) == plan.processes:
            now = time.monotonic()
            tell(_progress(list(lately.values()), second=now - begin, seconds=max(now - told_at, 0.001)))
            told_at = now
            lately.clear()
    return done


def _progress(told: Sequence[dict[str, Any]], *, second: float, seconds: float) -> Progress:
    histogram = together(share["histogram"] for share in told) if told else new_histogram()
    return Progress(
        second,
        sum(share["answered"] for share in told) / seconds,
        histogram.get_value_at_percentile(50) / 1e3,
        histogram.get_value_at_percentile(99) / 1e3,
        sum(share["errors"] for share in told),
        sum(share["under_way"] for share in told),
    )
