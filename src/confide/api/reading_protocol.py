"""The frame that makes a cached read cheap: plain reads are answered where their bytes arrive, without a task."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import httptools

from confide.api.answers import JSON
from confide.api.door import Door
from confide.api.http_protocol import GuardedProtocol
from confide.api.plain_reads import PATH, PlainRead, plain_read
from confide.api.prepared import COMMON

# A head that was seen before is known by its digest and not parsed again; what it may have is decided anew each time.
MOST_HEAD_BYTES = 2_048
_END = b"\r\n\r\n"
_URL = PATH + b"?"
_KEPT = b"".join(b"%b: %b\r\n" % pair for pair in COMMON)
_DESCRIBED = b"content-type: %b\r\n%b" % (JSON, _KEPT)


class ReadingProtocol(GuardedProtocol):
    """Answers plain reads itself, and steps aside for what is not plain, not proven or not alone.

    It answers only between two requests of a connection that goes on, while nothing is under way, nothing waits
    in the pipeline and the transport takes what is written: so answers keep the order of their requests.
    """

    _is_between = True
    _is_whole = False
    _is_answered = False
    _heads = 0
    _plain: PlainRead | None = None
    _used_at = 0.0
    _headers_of_now: object = None
    _found = _not_modified = b""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        app: Any = self.app
        self._door: Door = getattr(app, "app", app)  # behind a proxy the server's own middleware stands before it

    def data_received(self, data: bytes) -> None:
        is_whole = len(data) <= MOST_HEAD_BYTES and data.endswith(_END) and self._is_between
        if not is_whole or not self._is_free():
            super().data_received(data)
            return
        memory = self._door.memory
        digest = hashlib.sha256(data).digest()
        known: PlainRead | None = memory.get(digest)
        if known is not None and self._answer(known):
            return
        self._heads, self._plain, self._is_whole = 0, None, True
        self._feed(data)
        self._is_whole = False
        if known is None and self._heads == 1 and self._plain is not None:
            memory.put(digest, self._plain, size=_size(digest, self._plain))

    def on_message_begin(self) -> None:
        self._is_between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._heads += 1
        if self.url.startswith(_URL) and self._is_free() and self._goes_on():
            plain = plain_read(self.url[len(_URL) :], self.headers)
            if plain is not None and self._answer(plain):
                self._plain = plain
                self._is_answered = True
                return
        if self._is_whole:
            self._unset_keepalive_if_required()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_between = True
        if self._is_answered:
            self._is_answered = False
            return
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one that was used since waits for the rest of its time."""
        left = self._used_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _await_head(self) -> None:
        if not self._is_whole:  # a head that is there need not be waited for
            super()._await_head()

    def _is_free(self) -> bool:
        """Whether an answer that is written now is the next one that the caller waits for."""
        cycle = self.cycle
        is_done = cycle is None or cycle.response_complete
        return is_done and not self.pipeline and not self.flow.write_paused and not self.transport.is_closing()

    def _goes_on(self) -> bool:
        """Whether it is a GET without a body on a connection that is kept: the rest is read from the headers."""
        parser = self.parser
        return (
            parser.get_method() == b"GET"
            and parser.get_http_version() == "1.1"
            and bool(parser.should_keep_alive())
            and not parser.should_upgrade()
        )

    def _feed(self, data: bytes) -> None:
        # As the server does it, but for the keep-alive timer, which costs more than the answer.
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            self.send_400_response("")

    def _answer(self, plain: PlainRead) -> bool:
        """Write the answer, if memory may give it."""
        at_once = self._door.reads.at_once(plain)
        if at_once is None:
            return False
        if self._headers_of_now is not self.server_state.default_headers:
            self._date()
        prepared, is_known = at_once
        if is_known:
            self.transport.write(self._not_modified + prepared.kept_lines)
        else:
            self.transport.write(self._found + prepared.raw)
        self.server_state.total_requests += 1
        self._used_at = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        self._head_is_complete()
        return True

    def _date(self) -> None:
        """Write the first lines of answers anew; the server makes its headers of each second once."""
        self._headers_of_now = self.server_state.default_headers
        dated = b"".join(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers)
        self._found = b"HTTP/1.1 200 OK\r\n" + dated + _DESCRIBED
        self._not_modified = b"HTTP/1.1 304 Not Modified\r\n" + dated + _KEPT


def _size(digest: bytes, plain: PlainRead) -> int:
    own = (digest, plain, plain.token_hash, plain.key, *plain.key, plain.known)
    return sum(map(sys.getsizeof, own))
