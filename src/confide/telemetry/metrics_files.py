"""Files through which the workers of one service share their metrics: a folder per service, a file per worker."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from confide.file_locks import try_lock, try_lock_folder
from confide.telemetry.metrics_page import MetricValues, merge_values

PREFIX = "confide-metrics-"
# systemd names a folder in memory for the run-time files of a service.
RUNTIME_VARIABLE = "RUNTIME_DIRECTORY"
MEMORY = Path("/dev/shm")  # noqa: S108 - each service creates a folder with an unpredictable name in it


class _ClaimedFile(NamedTuple):
    # The descriptor of the lock file. Closing it releases the name.
    lock: int
    path: Path


class WorkerMetricsFiles:
    """The files of all workers of a service. This worker writes one, which it claims at its first write.

    Writes replace the file, because an incomplete file must not break the page. They do not map it into memory, because
    a full file system would then kill the process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: _ClaimedFile | None = None
        # The counts of ended workers whose files this worker claimed.
        self._inherited = MetricValues({}, {})

    def write(self, values: MetricValues) -> None:
        """Replace the values of this worker."""
        path = self._claim()
        partial = path.with_suffix(".partial")
        document = [
            [[list(key), value] for key, value in part.items()] for part in merge_values([values, self._inherited])
        ]
        partial.write_text(json.dumps(document, separators=(",", ":")))
        partial.replace(path)

    def read_others(self) -> Iterator[MetricValues]:
        """Read the values of the other workers. Those that ended have no gauges."""
        yield self._inherited
        for path in self._folder.glob("*.json"):
            if self._file is not None and path == self._file.path:
                continue
            values = _read_values(path)
            yield values if _is_locked(path.with_suffix(".lock")) else values._replace(gauges={})

    def _claim(self) -> Path:
        """Return the claimed file, or claim the first one that no worker holds."""
        if self._file is not None:
            if self._file.path.with_suffix(".lock").exists():
                return self._file.path
            # The folder was cleared. The claim below must not inherit the values of this worker.
            self._file.path.unlink(missing_ok=True)
            os.close(self._file.lock)
            self._file = None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = 0
        while (lock := try_lock(self._folder / f"{number}.lock")) is None:
            number += 1
        self._file = _ClaimedFile(lock, self._folder / f"{number}.json")
        self._inherited = merge_values([self._inherited, _read_values(self._file.path)._replace(gauges={})])
        return self._file.path


def _is_locked(path: Path) -> bool:
    try:
        # Do not create the file: its worker would take it for its own.
        lock = try_lock(path, flags=os.O_RDWR)
    except FileNotFoundError:
        return False
    if lock is not None:
        os.close(lock)
    return lock is None


def _read_values(path: Path) -> MetricValues:
    try:
        counters, gauges = json.loads(path.read_text())
    except FileNotFoundError:
        return MetricValues({}, {})
    return MetricValues(*({tuple(key): value for key, value in part} for part in (counters, gauges)))


@contextmanager
def create_metrics_folder(fallback: Path) -> Iterator[Path]:
    """Create a folder for the metrics files of one service, and delete it at the end.

    It is in memory if possible, else in the folder of temporary files, else in `fallback`. Folders that killed services
    left are deleted. Raises `OSError` if no folder is writable.
    """
    folder, lock = _create_locked_folder(fallback)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _create_locked_folder(fallback: Path) -> tuple[Path, int]:
    for place in _list_places(fallback):
        with suppress(OSError):
            _delete_abandoned_folders(place)
            while True:
                folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
                with suppress(FileNotFoundError):
                    lock = try_lock_folder(folder)
                    # Before the lock, the start of another service can take the folder for abandoned and delete it.
                    if lock is not None and folder.exists():
                        return folder, lock
    raise OSError(f"Cannot create a folder for metrics in {', '.join(map(str, _list_places(fallback)))}.")


def _list_places(fallback: Path) -> list[Path]:
    runtime = os.environ.get(RUNTIME_VARIABLE, "").partition(":")[0]
    places = [Path(runtime), MEMORY] if runtime else [MEMORY]
    with suppress(FileNotFoundError):  # there is no writable folder for temporary files
        places.append(Path(tempfile.gettempdir()))
    return [*places, fallback]


def _delete_abandoned_folders(place: Path) -> None:
    """Delete the folders of services that ended without deleting them. A running service locks its folder."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # of another user, or deleted at the same time
            lock = try_lock_folder(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
