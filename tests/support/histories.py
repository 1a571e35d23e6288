"""Load the decrypted history of configs from a database, and check it against acknowledged saves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confide.crypto.model import EncryptionContext
from confide.names import ConfigKey
from confide.server.wiring import open_process
from support.app import build_settings


@dataclass(frozen=True)
class AcknowledgedSave:
    """A save with a 200 response: its marker, version, and start and end on the monotonic clock."""

    key: ConfigKey
    writer: str
    marker: str
    version: int
    start: float
    end: float


async def load_histories(data: Path, database: str | None) -> dict[ConfigKey, list[dict[str, Any] | None]]:
    """Load the decrypted versions of every config in order; None is a tombstone. Raises AssertionError for a gap."""
    found: dict[ConfigKey, list[dict[str, Any] | None]] = {}
    async with open_process(build_settings(data, database)) as process:
        rows = [row async for table, row in process.stores.database.dump() if table == "changes" and row[2] is not None]
        for row in sorted(rows, key=lambda one: (one[2], one[3], one[4])):
            _, kind, tenant, type_, version, _, _, body, *_ = row
            key = ConfigKey(tenant, type_)
            history = found.setdefault(key, [])
            assert version == len(history) + 1, f"{key}: version {version} after {len(history)}"
            if body is None:
                history.append(None)
                continue
            plain = await process.encryption.decrypt(bytes(body), EncryptionContext(key, version, kind))
            history.append(json.loads(plain))
    return found


Histories = dict[ConfigKey, list[dict[str, Any] | None]]


def find_lost_saves(saved: list[AcknowledgedSave], histories: Histories) -> list[str]:
    """Find acknowledged saves that are missing or are stored as another version."""
    found = []
    for one in saved:
        history = histories.get(one.key, [])
        if len(history) < one.version:
            found.append(f"{one} is lost")
        elif (one.writer, one.marker) not in list_markers(history[one.version - 1]):
            found.append(f"{one} is missing in that version")
        elif one.version > 1 and (one.writer, one.marker) in list_markers(history[one.version - 2]):
            found.append(f"{one} is already in the version before")
    return found


def adds_one_marker_per_version(history: list[dict[str, Any] | None]) -> bool:
    """Return whether each version adds exactly one marker to the one before."""
    before: set[tuple[str, str]] = set()
    for document in history:
        now = list_markers(document)
        if len(now) != len(before) + 1 or not before <= now:
            return False
        before = now
    return True


def list_markers(document: dict[str, Any] | None) -> set[tuple[str, str]]:
    return {(writer, marker) for writer, inner in (document or {}).items() for marker in inner}
