"""Server-sent events, parsed without I/O (WHATWG HTML, 9.2)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

# A line ends with CR, LF or both. Other characters, such as U+2028, are part of a line.
_LINE_END = re.compile(rb"\r\n|\r|\n")


class InvalidEvent(Exception):
    """The data of an event is not a JSON object, so the stream does not come from Confide."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event with its data and the position to resume after."""

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    position: str | None = None


class LineSplitter:
    """Splits the bytes of an event stream into lines, as they arrive."""

    def __init__(self) -> None:
        self._begin: list[bytes] = []
        self._has_ended_with_cr = False

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that the bytes complete, without their line breaks."""
        if self._has_ended_with_cr and data:
            data = data.removeprefix(b"\n")
            self._has_ended_with_cr = False
        if not data:
            return []
        self._has_ended_with_cr = data.endswith(b"\r")
        *complete, rest = _LINE_END.split(data)
        if complete:
            complete[0] = b"".join([*self._begin, complete[0]])
            self._begin = []
        self._begin.append(rest)
        return [line.decode(errors="replace") for line in complete]


class EventParser:
    """Parser of an event stream, line by line.

    An event without data that moves the position becomes a `heartbeat`. Raises `InvalidEvent`.
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
        return Event(name or "message", _parse_data(text), self.position) if is_event else None


def _parse_data(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise InvalidEvent from None
    if not isinstance(data, dict):
        raise InvalidEvent
    return data
