"""Server-sent events, parsed without I/O (WHATWG HTML, 9.2)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One event with its data and the position to resume after."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    position: str | None = None


class EventParser:
    """Parser of an event stream, line by line.

    An event without data that moves the position becomes a `heartbeat`.
    """

    def __init__(self) -> None:
        self.position: str | None = None
        self._last_position: str | None = None
        self._name = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """Parse one line without its line break. Return an event if the line completes one."""
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
        if not text and self.position != self._last_position:
            name = "heartbeat"
        is_event = bool(text) or name == "heartbeat"
        self._last_position = self.position
        return Event(name or "message", json.loads(text or "{}"), self.position) if is_event else None
