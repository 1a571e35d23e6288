"""Processes that save, read and confirm one config by the protocol of the stamps, one atomic step at a time."""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from confide.caching.stamps import IN_DOUBT, LATEST, SlotChange, Stamps, TakenStamps
from support.cache_simulation import run_without_waiting
from support.interleavings import Pause, Task

SLOT = 3
FREE = -1
FIRST_STAMP = 10_000
_STAMP = re.compile(r"\b\d{5,}\b")


@dataclass(frozen=True)
class Scenario:
    """The engine, where writers and readers run, which processes have version 1 in memory, and a deliberate fault."""

    engine: str
    readers: tuple[int, ...]
    cached: tuple[int, ...]
    writers: tuple[int, ...] = (0, 1)
    # A writer that confirms the current version instead of saving: its save changes nothing.
    confirmers: tuple[int, ...] = ()
    # After which step the first writer dies, and whether its commit fails.
    dies_after: str = ""
    fails: bool = False
    fault: str = ""


@dataclass
class Process:
    """The cache of one process, and its queries in progress."""

    cached: tuple[int, TakenStamps] | None = None
    # The latest change of any slot when the stamps of `cached` were compared.
    compared_at: int | None = None
    running: dict[TakenStamps, list[int]] = field(default_factory=dict)


class Machine:
    """The processes of one machine, the store, and the newest versions that clients know."""

    def __init__(self, scenario: Scenario) -> None:
        numbers = itertools.count(FIRST_STAMP + 2, 2)
        self.scenario = scenario
        self.fault = scenario.fault
        self.stamps = Stamps([0, 0, 0, FIRST_STAMP], create_stamp=lambda: next(numbers))
        self.processes = [Process() for _ in range(3)]
        for number in scenario.cached:
            self.processes[number].cached = (1, self.stamps.take(SLOT))
        self.version = 1
        self.lock = FREE
        # The oldest version that a new read may return: the newest one that an answer to a save contained. On SQLite,
        # an answer to a read counts too.
        self.known = 1
        self.violations: list[str] = []

    def start_tasks(self) -> Sequence[Task]:
        save = self.save_on_sqlite if self.scenario.engine == "sqlite" else self.save_on_postgresql
        writers = [save(number, process) for number, process in enumerate(self.scenario.writers)]
        confirmers = [self.confirm() for _ in self.scenario.confirmers]
        readers = [self.read(process) for process in self.scenario.readers]
        return [*writers, *confirmers, *readers]

    def describe(self, local: tuple[Hashable, ...]) -> Hashable:
        """Describe the state. Of a stamp only one thing matters: a stamp that a slot no longer holds never returns."""
        now = self.stamps.words[SLOT]
        processes = [(one.cached, one.running, one.compared_at == self.stamps.words[LATEST]) for one in self.processes]
        text = repr((local, processes, self.version, self.lock, self.known, now))
        return _STAMP.sub(lambda found: "now" if int(found[0]) == now else "old", text) + f" {now & IN_DOUBT}"

    def save_on_sqlite(self, number: int, place: int) -> Task:
        stamps, dies_after = self.stamps, self.scenario.dies_after if number == 0 else ""
        yield Pause("start", is_ready=lambda: self.lock == FREE)
        self.lock = number
        stamps.clear_marks(must_search=False)
        change, version = SlotChange(SLOT), self.version + 1
        if self.fault == "stamp-before-commit":
            stamps.stamp_marked([change])
        elif self.fault not in ("no-mark", "stamp-after-answer"):
            stamps.mark_in_doubt([change])
        yield Pause(("marked", change.own_stamp))
        if dies_after == "mark":
            self.lock = FREE
            return
        must_fail = self.scenario.fails and number == 0
        if not must_fail:
            self.version = version
        yield Pause(("committed", change.own_stamp))
        if dies_after == "commit":
            self.lock = FREE
            return
        if self.fault not in ("stamp-before-commit", "stamp-after-answer"):
            stamps.stamp_marked([change])
        self.lock = FREE
        if must_fail:
            return
        yield Pause(("stamped", version, change.own_stamp))
        self.keep_saved(place, version, TakenStamps((SLOT,), (IN_DOUBT,)), change)
        yield Pause(("kept", version))
        self.known = max(self.known, version)
        if self.fault == "stamp-after-answer":
            yield Pause(("answered", version), is_ready=lambda: self.lock == FREE)
            stamps.stamp_marked([change])

    def save_on_postgresql(self, number: int, place: int) -> Task:
        stamps = self.stamps
        yield Pause("start")
        taken = stamps.take(SLOT)
        change = SlotChange(SLOT, taken.stamps[0])
        if self.fault == "stamp-before-commit":
            run_without_waiting(stamps.compare_and_stamp([change]))
        yield Pause(("taken", taken, change.own_stamp))
        self.version = version = self.version + 1
        yield Pause(("committed", taken, version, change.own_stamp))
        if number == 0 and self.scenario.dies_after == "commit":
            return
        if self.fault not in ("stamp-before-commit", "stamp-after-answer"):
            if self.fault == "keep-without-compare":
                change.before = stamps.words[SLOT]
            run_without_waiting(stamps.compare_and_stamp([change]))
        yield Pause(("stamped", taken, version, change.own_stamp))
        self.keep_saved(place, version, taken, change)
        yield Pause(("kept", version))
        self.known = max(self.known, version)
        if self.fault == "stamp-after-answer":
            yield Pause(("answered", version))
            run_without_waiting(stamps.compare_and_stamp([change]))

    def confirm(self) -> Task:
        """Answer a save that changes nothing: it confirms the version that the store has."""
        yield Pause("start")
        version = self.version
        yield Pause(("read", version))
        if self.scenario.engine == "postgresql" and self.fault != "confirm-without-stamp":
            run_without_waiting(self.stamps.compare_and_stamp([SlotChange(SLOT)]))
        yield Pause(("stamped", version))
        self.known = max(self.known, version)

    def read(self, place: int) -> Task:
        process, stamps = self.processes[place], self.stamps
        yield Pause("start")
        known = self.known
        latest = stamps.words[LATEST]
        if process.cached is not None and (process.compared_at == latest or stamps.is_unchanged(process.cached[1])):
            process.compared_at = latest
            self.answer_read(process.cached[0], known)
            return
        taken = stamps.take(SLOT)
        name, is_shared = taken, not taken.is_in_doubt
        if self.fault == "share-regardless-of-stamps":
            name, is_shared = TakenStamps((), ()), True
        running = process.running.get(name) if is_shared else None
        if running is not None:
            yield Pause(("shares", known), is_ready=running.__len__)
            self.answer_read(running[0], known)
            return
        result: list[int] = []
        if is_shared:
            process.running[name] = result
        yield Pause(("taken", taken, known))
        version = self.version
        yield Pause(("selected", taken, known, version))
        self.keep(process, version, taken)
        result.append(version)
        if is_shared:
            del process.running[name]
        self.answer_read(version, known)

    def keep_saved(self, place: int, version: int, taken: TakenStamps, change: SlotChange) -> None:
        if change.own_stamp is not None:
            self.keep(self.processes[place], version, taken.replace_first(change.own_stamp))

    def keep(self, process: Process, version: int, taken: TakenStamps) -> None:
        if self.stamps.is_current(taken) and (process.cached is None or process.cached[0] <= version):
            process.cached, process.compared_at = (version, taken), None

    def answer_read(self, version: int, known: int) -> None:
        if version < known:
            self.violations.append(f"a read returned {version} although a client knew {known}")
        if self.scenario.engine == "sqlite":
            self.known = max(self.known, version)
