"""Server-sent events as they are read, without I/O (WHATWG HTML, 9.2)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One event: what happened, to what, and the position to go on from."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    position: str | None = None


class EventReader:
    """Takes lines and gives events; a heartbeat that says how far the stream has come is one without data."""

    def __init__(self) -> None:
        self.position: str | None = None
        self._told: str | None = None
        self._name = ""
        self._data: list[str] = []

    def take(self, line: str) -> Event | None:
        """Take one line without its end; an event where the line was the last of one."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                self.position = value
            elif name == "event":
                self._name = value
            elif name == "data":
                self._data.append(value)
            return None
        text, name = "\n".join(self._data), self._name
        self._name, self._data = "", []
        if not text and self.position != self._told:
            name = "heartbeat"
        is_told = bool(text) or name == "heartbeat"
        self._told = self.position
        return Event(name or "message", json.loads(text or "{}"), self.position) if is_told else None
