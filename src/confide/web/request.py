"""One HTTP request, parsed strictly: its framing, headers, query parameters and body."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_to_bytes

from confide import strict_json
from confide.context import RESPONSE_TIMEOUT_SECONDS, set_deadline, set_principal
from confide.errors import ServiceError
from confide.identity.errors import InvalidToken, NoToken, TwoCredentials
from confide.identity.model import Principal
from confide.strict_json import MAX_BODY_BYTES, Json
from confide.web.asgi import AsgiScope, Receive
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

if TYPE_CHECKING:
    from confide.fair_scheduler import FairScheduler
    from confide.web.route import Body

B = TypeVar("B", bound="Body")
T = TypeVar("T")

MAX_URI_BYTES = 8 * 1024
MAX_HEADERS_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_BODY_SECONDS = 30.0
# Of a caller without credentials.
MAX_UNKNOWN_BODY_BYTES = 4 * 1024

# Parameters can be empty (RFC 9110, section 5.6.6). `utf8` is a label of UTF-8 in the WHATWG Encoding Standard.
_JSON_TYPE = re.compile(
    r'application/(?:json|merge-patch\+json)\s*(?:;\s*(?:charset\s*=\s*(?:utf-?8|"utf-?8")\s*)?)*', re.IGNORECASE
)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BEARER = re.compile(r"bearer +([\x21-\x7e]+) *", re.IGNORECASE)


class Disconnected(Exception):
    """The client disconnected before the request was complete. The request has no effect."""


class Request:
    """One request. Methods raise a `ServiceError` if the request is invalid."""

    def __init__(self, scope: AsgiScope, receive: Receive, *, scheduler: FairScheduler) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        # The path template of the matched route, such as `/users/{login}`.
        self.route_path: str | None = None
        # A load balancer calls the route every few seconds.
        self.is_probe = False
        # The response is a stream, which lasts until the client disconnects.
        self.is_stream = False
        # The router sets these: declared query parameters, values of the path template, and the parsed body.
        self.query: Mapping[str, str] = {}
        self.path_values: Mapping[str, str] = {}
        self.parsed_body: Body | None = None
        # Authentication used a cached token, because the database was unavailable.
        self.is_database_unavailable = False
        # The body has a member `token` that is not part of the document.
        self.has_token_in_body = False
        self._scheduler = scheduler
        self._principal: Principal | None = None
        self._body: bytes | None = None
        self._values = _group(scope["headers"])

    @property
    def principal(self) -> Principal:
        """The authenticated caller; raises `NoToken` before authentication."""
        if self._principal is None:
            raise NoToken
        return self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        self._principal = principal
        set_principal(principal)

    @property
    def is_authenticated(self) -> bool:
        return self._principal is not None

    def get_body(self, shape: type[B]) -> B:
        """Return the body that the router has parsed as the shape that the route declares."""
        if not isinstance(self.parsed_body, shape):
            raise TypeError(f"the route of {self.path} does not declare the body {shape.__name__}")
        return self.parsed_body

    def require_valid_framing(self) -> None:
        """Reject what uvicorn accepts: oversized parts, a missing or second `Host`, two credentials.

        A probe in HTTP/1.0 can leave out `Host` (RFC 9112, section 3.2).
        """
        headers = self.scope["headers"]
        if len(self.scope["query_string"]) + len(self.scope["raw_path"]) > MAX_URI_BYTES:
            raise UriTooLong
        if len(headers) > MAX_HEADERS or sum(len(n) + len(v) for n, v in headers) > MAX_HEADERS_BYTES:
            raise HeadersTooLarge
        hosts = len(self._values.get(b"host", ()))
        if hosts > 1 or (hosts == 0 and self.scope.get("http_version") != "1.0"):
            raise MalformedRequest("Send exactly one Host header.")
        if len(self._values.get(b"authorization", ())) > 1:
            raise TwoCredentials

    def has_header(self, name: bytes) -> bool:
        return name in self._values

    def find_header(self, name: bytes) -> str | None:
        """Return the value of a header. Raises `MalformedRequest` if it is sent more than once."""
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise MalformedRequest(f"Send the header {name.decode()} only once.")
        return values[0].decode("latin-1")

    def find_list_header(self, name: bytes) -> str | None:
        """Return the joined values of a list header (RFC 9110, section 5.3)."""
        values = self._values.get(name)
        return None if values is None else b", ".join(values).decode("latin-1")

    def decode_path_values(self) -> None:
        """Percent-decode the values of the path template, once. Raises `MalformedParameter`."""
        self.path_values = {
            name: _decode_escapes(value.encode("latin-1"), "path") for name, value in self.path_values.items()
        }

    def parse_parameters(self, *, required: Collection[str] = (), known: Collection[str] = ()) -> dict[str, str]:
        """Parse the query. Unknown, repeated and missing parameters are errors."""
        parameters: dict[str, str] = {}
        if not self.scope["query_string"] and not required:
            return parameters
        for part in self.scope["query_string"].split(b"&"):
            if not part:
                continue
            name, _, value = part.partition(b"=")
            text = _decode(name)
            if text not in required and text not in known:
                raise UnknownParameter
            if text in parameters:
                raise DuplicateParameter(f"Send the parameter {text} only once.")
            parameters[text] = _decode(value)
        for name in required:
            if name not in parameters:
                raise MissingParameter(f"Add the parameter {name}.")
        return parameters

    def find_token(self) -> str | None:
        """Return the bearer token, or None if the request has no credentials."""
        value = self.find_header(b"authorization")
        if value is None:
            return None
        parts = _BEARER.fullmatch(value)
        if parts is None:
            raise InvalidToken if value.lower().startswith("bearer") else NoToken
        return parts[1]

    def require_token(self) -> str:
        """Return the bearer token. Raises `NoToken`, or `InvalidToken` if it is malformed."""
        token = self.find_token()
        if token is None:
            raise NoToken
        return token

    async def read_document(self) -> Json:
        """Read the body as one strict JSON object. Before authentication, a body has lower limits."""
        self._require_json()
        if self._principal is None:
            body = await self.read_body(max_bytes=MAX_UNKNOWN_BODY_BYTES)
            return strict_json.read_object_of_unknown(body)
        body = await self.read_body()
        document = await self.run(lambda: strict_json.read_object(body), size_bytes=len(body))
        if self.has_token_in_body:
            document.pop("token", None)
            self._body = await self.run(lambda: strict_json.write(document))
        return document

    async def find_member(self, name: str) -> Any:
        """Return a member of the body before authentication. None if it has none, or is not JSON."""
        try:
            self._require_json()
        except ServiceError:
            return None
        body = await self.read_body()
        return await self.run(lambda: strict_json.find_member(body, name))

    async def run(self, function: Callable[[], T], *, size_bytes: int | None = None) -> T:
        """Run a function that can take long, in slices that the caller shares with other callers.

        `size_bytes` is the size of its JSON, if its time depends on nothing else.
        """
        caller = None if self._principal is None else self._principal.user_id
        return await self._scheduler.run(function, caller=caller, size_bytes=size_bytes)

    def replace_body(self, body: bytes) -> None:
        """Replace the body with another JSON body."""
        others = [(n, v) for n, v in self.scope["headers"] if n not in (b"content-type", b"content-length")]
        content = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        self._set_headers([*others, *content])
        self._body = body

    def add_header(self, name: bytes, value: bytes) -> None:
        self._set_headers([*self.scope["headers"], (name, value)])

    def require_no_body(self) -> None:
        length = self.find_header(b"content-length")
        if length not in (None, "0") or self.find_header(b"transfer-encoding") is not None:
            raise BodyNotExpected

    def has_unread_body(self) -> bool:
        if self._body is not None:
            return False
        return self._values.get(b"content-length", [b"0"]) != [b"0"] or b"transfer-encoding" in self._values

    def can_receive_events(self) -> bool:
        """Return whether the client accepts server-sent events."""
        return "text/event-stream" in (self.find_list_header(b"accept") or "")

    def begin_stream(self) -> None:
        """Remove the deadline of the request. Each database query then has a time limit of its own."""
        set_deadline(None)
        self.is_stream = True

    @property
    def body(self) -> bytes:
        """The body that the router has read, empty if the route has none."""
        return self._body or b""

    async def read_body(self, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
        """Read the body once. Only a body that its framing marks as complete counts."""
        if self._body is None:
            length = self.find_header(b"content-length")
            if length is not None and length.isdigit() and int(length) > max_bytes:
                raise _build_size_error(max_bytes)
            try:
                async with asyncio.timeout(MAX_BODY_SECONDS):
                    self._body = await self._receive_body(max_bytes)
            except TimeoutError:
                raise RequestTimeout from None
            # The time limit of the response starts after the body.
            set_deadline(time.monotonic() + RESPONSE_TIMEOUT_SECONDS)
        if len(self._body) > max_bytes:
            raise _build_size_error(max_bytes)
        return self._body

    def _require_json(self) -> None:
        if self.find_header(b"content-encoding") not in (None, "", "identity"):
            raise ContentEncodingUnsupported
        if not _JSON_TYPE.fullmatch(self._find_content_type()):
            raise ContentTypeUnsupported

    async def _receive_body(self, max_bytes: int) -> bytes:
        parts = bytearray()
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            parts += message.get("body", b"")
            if len(parts) > max_bytes:
                raise _build_size_error(max_bytes)
            if not message.get("more_body", False):
                return bytes(parts)

    def _find_content_type(self) -> str:
        values = self._values.get(b"content-type", ())
        return values[0].decode("latin-1") if len(values) == 1 else ""

    def _set_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.scope["headers"] = headers
        self._values = _group(headers)


def _build_size_error(max_bytes: int) -> BodyTooLarge:
    if max_bytes == MAX_BODY_BYTES:
        return BodyTooLarge()
    return BodyTooLarge("Without a valid token, a body can have at most 4 KiB. Log in first.")


def _group(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """Group the values of each header, in order."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in values:
            values[name].append(value)
        else:
            values[name] = [value]
    return values


def _decode(part: bytes) -> str:
    return _decode_escapes(part.replace(b"+", b" "), "query")


def _decode_escapes(part: bytes, place: str) -> str:
    if _BAD_ESCAPE.search(part):
        raise MalformedParameter(f"Write a percent sign in the {place} as %25.")
    try:
        return unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise MalformedParameter(f"Encode the {place} as UTF-8.") from None
