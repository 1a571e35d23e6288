"""The sinks `file` and `stdout`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from confide.telemetry.events import Batch, build_documents
from confide.telemetry.sinks.sink import IncompleteWrite, SinkOptions

STDOUT = 1


class JsonLinesSink:
    """JSON lines in a file or on standard output, one per event. Log rotation may move the file at any time."""

    def __init__(self, options: SinkOptions) -> None:
        address = urlsplit(options.address)
        self._path = Path(address.path) if address.scheme == "file" else None
        self.name = "stdout" if self._path is None else "file"
        # A full disk cut the last line. The next write starts a new one.
        self._is_line_cut = False

    def write(self, batch: Batch) -> None:
        lines = "".join(json.dumps(document) + "\n" for document in build_documents(batch)).encode()
        if self._path is None:
            self._write(STDOUT, lines, batch)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._write(file, lines, batch)
        finally:
            os.close(file)

    def close(self) -> None:
        """Do nothing: no file stays open between two batches."""

    def _write(self, file: int, lines: bytes, batch: Batch) -> None:
        if self._is_line_cut:
            os.write(file, b"\n")
            self._is_line_cut = False
        done = 0
        try:
            while done < len(lines):
                done += os.write(file, lines[done:])
        except OSError as error:
            self._is_line_cut = done > 0 and lines[done - 1] != ord("\n")
            written = lines.count(b"\n", 0, done)
            raise IncompleteWrite(batch.events[written:], reason=type(error).__name__) from error
