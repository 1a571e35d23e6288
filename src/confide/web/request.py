"""One request as our code sees it: framing guarded, parameters strict, body read once and whole."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from starlette.types import Receive, Scope

from confide import strict_json
from confide.context import ANSWER_SECONDS, deadline
from confide.identity.errors import InvalidToken, NoToken, TwoCredentials
from confide.identity.model import Principal
from confide.strict_json import MAX_BODY_BYTES, Json
from confide.web.errors import (
    BodyNotExpected,
    BodyTooLarge,
    ContentEncodingUnsupported,
    ContentTypeUnsupported,
    DuplicateParameter,
    HeadersTooLarge,
    MalformedParameter,
    MalformedRequest,
    MissingParameter,
    RequestTimeout,
    UnknownParameter,
    UriTooLong,
)
from confide.web.request_scope import is_asked_by

if TYPE_CHECKING:
    from confide.server.services import Services

MAX_URI_BYTES = 8 * 1024
MAX_HEADERS_BYTES = 32 * 1024
MAX_HEADERS = 100
BODY_SECONDS = 30.0

_JSON_TYPE = re.compile(r'application/(?:json|merge-patch\+json)(?:\s*;\s*charset\s*=\s*"?utf-8"?)?\s*', re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BEARER = re.compile(r"bearer +([\x21-\x7e]+) *", re.IGNORECASE)


class Disconnected(Exception):
    """The caller went away before the request was whole; nothing was done."""


class Call:
    """One request. Raises refusals as it is asked; it has no state of the store."""

    def __init__(self, scope: Scope, receive: Receive, services: Services) -> None:
        self.scope = scope
        self.receive = receive
        self.services = services
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self._who: Principal | None = None
        # The answer goes on for as long as the caller stays.
        self.is_stream = False
        self._body: bytes | None = None
        self._given = _gathered(scope["headers"])

    def guard(self) -> None:
        """Refuse what the server lets through: too long, no or two hosts, two credentials."""
        headers = self.scope["headers"]
        if len(self.scope["query_string"]) + len(self.scope["raw_path"]) > MAX_URI_BYTES:
            raise UriTooLong
        if len(headers) > MAX_HEADERS or sum(len(n) + len(v) for n, v in headers) > MAX_HEADERS_BYTES:
            raise HeadersTooLarge
        if len(self._given.get(b"host", ())) != 1:
            raise MalformedRequest("A request names its host once.")
        if len(self._given.get(b"authorization", ())) > 1:
            raise TwoCredentials

    def has(self, name: bytes) -> bool:
        return name in self._given

    def header(self, name: bytes) -> str | None:
        """The value of a header that may be given once only."""
        values = self._given.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise MalformedRequest(f"The header {name.decode()} is given more than once.")
        return values[0].decode("latin-1")

    def listed(self, name: bytes) -> str | None:
        """The value of a header whose lines make one list (RFC 9110, 5.3)."""
        values = self._given.get(name)
        return None if values is None else b", ".join(values).decode("latin-1")

    def parameters(self, *, needed: Collection[str] = (), known: Collection[str] = ()) -> dict[str, str]:
        """Read the query: each parameter known and given once, the needed ones there."""
        found: dict[str, str] = {}
        if not self.scope["query_string"] and not needed:
            return found
        for part in self.scope["query_string"].split(b"&"):
            if not part:
                continue
            name, _, value = part.partition(b"=")
            text = _decoded(name)
            if text not in needed and text not in known:
                raise UnknownParameter
            if text in found:
                raise DuplicateParameter(f"The parameter {text} is given more than once.")
            found[text] = _decoded(value)
        for name in needed:
            if name not in found:
                raise MissingParameter(f"The parameter {name} is missing.")
        return found

    def bearer(self) -> str | None:
        """The token that was sent, if any."""
        value = self.header(b"authorization")
        if value is None:
            return None
        found = _BEARER.fullmatch(value)
        if found is None:
            raise InvalidToken if value.lower().startswith("bearer") else NoToken
        return found[1]

    def token(self) -> str:
        """The token that was sent; raises `NoToken`, or `InvalidToken` if it cannot be one."""
        token = self.bearer()
        if token is None:
            raise NoToken
        return token

    @property
    def who(self) -> Principal | None:
        """Who is asking, once that is known: what is done from then on is done for that user."""
        return self._who

    @who.setter
    def who(self, principal: Principal) -> None:
        self._who = principal
        is_asked_by(principal)

    async def principal(self) -> Principal:
        """Who is asking; raises `NoToken` or `InvalidToken`."""
        if self._who is None:
            self.who = found = await self.services.tokens.principal(self.token())
            return found
        return self._who

    async def document(self) -> Json:
        """The body as one strict JSON object."""
        if self.header(b"content-encoding") not in (None, "", "identity"):
            raise ContentEncodingUnsupported
        if not _JSON_TYPE.fullmatch(self._content_type()):
            raise ContentTypeUnsupported
        return strict_json.read_object(await self.body())

    def replace_body(self, body: bytes) -> None:
        """Put another JSON body in place of what was sent."""
        kept = [(n, v) for n, v in self.scope["headers"] if n not in (b"content-type", b"content-length")]
        described = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        self._take_headers([*kept, *described])
        self._body = body

    def add_header(self, name: bytes, value: bytes) -> None:
        self._take_headers([*self.scope["headers"], (name, value)])

    def require_no_body(self) -> None:
        length = self.header(b"content-length")
        if length not in (None, "0") or self.header(b"transfer-encoding") is not None:
            raise BodyNotExpected

    def has_unread_body(self) -> bool:
        if self._body is not None:
            return False
        return self._given.get(b"content-length", [b"0"]) != [b"0"] or b"transfer-encoding" in self._given

    def accepts_events(self) -> bool:
        """Whether the caller asks for server-sent events."""
        return "text/event-stream" in (self.listed(b"accept") or "")

    def take_time(self) -> None:
        """The answer goes on: each question to the store has a time limit of its own from now on."""
        deadline.set(None)
        self.is_stream = True

    async def body(self) -> bytes:
        """Read the body once; only one that the framing said is complete counts."""
        if self._body is None:
            length = self.header(b"content-length")
            if length is not None and length.isdigit() and int(length) > MAX_BODY_BYTES:
                raise BodyTooLarge
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    self._body = await self._received()
            except TimeoutError:
                raise RequestTimeout from None
            # However long the body took to come: the answer is due from now on.
            deadline.set(time.monotonic() + ANSWER_SECONDS)
        return self._body

    async def _received(self) -> bytes:
        parts = bytearray()
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            parts += message.get("body", b"")
            if len(parts) > MAX_BODY_BYTES:
                raise BodyTooLarge
            if not message.get("more_body", False):
                return bytes(parts)

    def _content_type(self) -> str:
        values = self._given.get(b"content-type", ())
        return values[0].decode("latin-1") if len(values) == 1 else ""

    def _take_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.scope["headers"] = headers
        self._given = _gathered(headers)


def _gathered(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """The values of each header, in their order."""
    given: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in given:
            given[name].append(value)
        else:
            given[name] = [value]
    return given


def _decoded(part: bytes) -> str:
    if _BAD_ESCAPE.search(part):
        raise MalformedParameter("A percent sign in the query is followed by two hexadecimal digits.")
    try:
        return unquote_to_bytes(part.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise MalformedParameter("The query is not UTF-8.") from None
