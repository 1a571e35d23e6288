"""Which sinks a list of addresses names, and the simplest of them: JSON lines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from confide.telemetry.events import Batch, documents
from confide.telemetry.sink_workers import RetryLater, Sink

# The part before a plus chooses the sink, the part after it how it is spoken to.
FORMS = (
    "sqlite", "stdout", "file:///PATH", "postgresql://USER:PASSWORD@HOST/NAME",
    "elasticsearch+http(s)://HOST/INDEX", "opensearch+http(s)://HOST/INDEX", "otlp+http(s)://HOST:4318/v1/traces",
)  # fmt: skip
DAY_SECONDS = 86_400


class UnknownSink(ValueError):
    """An address that names no sink of ours, in a sentence without the address."""


def require_known_sinks(text: str) -> None:
    """Raises `UnknownSink` if one of the addresses names none of ours."""
    for address in _addresses(text):
        _kind(address)


def sinks_of(text: str, *, folder: Path, most_bytes: int, days: int) -> list[Sink]:
    """Make the sinks that a comma-separated list names, not yet connected; raises `UnknownSink`.

    `folder` is where `sqlite` keeps its files, for at most so many bytes a worker and so many days.
    """
    return [_sink(address, folder=folder, most_bytes=most_bytes, days=days) for address in _addresses(text)]


def _addresses(text: str) -> list[str]:
    return [address.strip() for address in text.split(",") if address.strip()]


def _kind(address: str) -> str:
    parts = urlsplit(address)
    kind, _, transport = parts.scheme.partition("+")
    if address in ("sqlite", "stdout"):
        return address
    if (parts.scheme == "file" and parts.path) or parts.scheme in ("postgresql", "postgres"):
        return parts.scheme
    if kind in ("elasticsearch", "opensearch", "otlp") and transport in ("http", "https") and parts.hostname:
        return kind
    raise UnknownSink(f"an I/O sink is one of {', '.join(FORMS)}, or off alone")


def _sink(address: str, *, folder: Path, most_bytes: int, days: int) -> Sink:
    # Imported when asked for: some of them are extras.
    kind = _kind(address)
    url = address.removeprefix(kind + "+")
    if kind == "sqlite":
        from confide.telemetry.sqlite_sink import SqliteSink  # noqa: PLC0415 - as above

        return SqliteSink(folder, most_bytes=most_bytes, most_seconds=days * DAY_SECONDS)
    if kind == "stdout":
        return JsonLines(None)
    if kind == "file":
        return JsonLines(Path(urlsplit(address).path))
    if kind in ("postgresql", "postgres"):
        from confide.telemetry.postgres_sink import PostgresSink  # noqa: PLC0415 - as above

        return PostgresSink(address, most_seconds=days * DAY_SECONDS)
    if kind in ("elasticsearch", "opensearch"):
        from confide.telemetry.search_sink import SearchSink  # noqa: PLC0415 - as above

        return SearchSink(kind, url)
    from confide.telemetry.otlp_sink import OtlpSink  # noqa: PLC0415 - as above

    return OtlpSink(url)


class JsonLines:
    """One line of JSON an event, to a file that may be moved away at any time, or to standard output."""

    def __init__(self, path: Path | None) -> None:
        self.name = "stdout" if path is None else "file"
        self._path = path
        # A disk was full in the middle of a line: what comes next begins another.
        self._is_torn = False

    def write(self, batch: Batch) -> None:
        lines = "".join(json.dumps(document) + "\n" for document in documents(batch)).encode()
        if self._path is None:
            self._write(1, lines, batch)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._write(file, lines, batch)
        finally:
            os.close(file)

    def close(self) -> None:
        """Nothing stays open between two batches."""

    def _write(self, file: int, lines: bytes, batch: Batch) -> None:
        if self._is_torn:
            os.write(file, b"\n")
            self._is_torn = False
        done = 0
        try:
            while done < len(lines):
                done += os.write(file, lines[done:])
        except OSError as error:
            self._is_torn = done > 0 and lines[done - 1] != ord("\n")
            raise RetryLater(batch.events[lines.count(b"\n", 0, done) :], why=type(error).__name__) from error
