"""Heads of requests that were seen before: what they ask for is known by their digest and not read again."""

from __future__ import annotations

from confide.service.memory import Memory
from confide.service.reading import WantedConfig

# A head is remembered when it comes a second time: one that carries a number of its own never does.
PLACES = 1 << 16


class Heads(Memory[WantedConfig]):
    """A part of the memory of its own: heads that are all unlike each other push nothing else out."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._seen_once = bytearray(PLACES)

    def known(self, digest: bytes) -> WantedConfig | None:
        """What a head asks for. Its first use since the reads were last added up tells that it is in use."""
        wanted = self._held.get(digest)
        if wanted is not None and not wanted.reads:
            self._held.move_to_end(digest)
        return wanted

    def note(self, digest: bytes, wanted: WantedConfig) -> None:
        """Remember it, if it was seen before: a byte of its digest stands in the place that two others name."""
        place, sign = digest[0] << 8 | digest[1], digest[2] or 1
        if self._seen_once[place] == sign:
            self.put(digest, wanted)
        else:
            self._seen_once[place] = sign
