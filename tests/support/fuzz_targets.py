"""Functions that a fuzzer calls with any bytes. Each asserts what must hold for every input of one parser."""

from __future__ import annotations

import json
from collections.abc import Callable

import httptools
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from confide import strict_json
from confide.client.events import Event, EventParser, InvalidEvent, LineSplitter
from confide.crypto import ciphertext
from confide.crypto.errors import DecryptionFailed
from confide.errors import ServiceError
from confide.integration_types.registration import compile_for_registration
from confide.reads.head_cache import RequestHeadCache
from confide.reads.plain_read import parse_plain_read

CIPHER = AESGCM(bytes(32))
KEY_ID, BOUND_TO = bytes(16), ("acme", "crm", "1")


def read_json(data: bytes) -> None:
    """A document that the reader accepts means the same to Python's reader, and can be stored and read again."""
    try:
        document = strict_json.read_object(data)
    except ServiceError:
        return
    assert strict_json.is_equal(json.loads(data), document)
    try:
        stored = strict_json.encode_configuration(document)
    except ServiceError:
        return  # too large, or too deep inside the body of a request
    assert strict_json.is_equal(strict_json.read_stored(stored), document)


def read_schema(data: bytes) -> None:
    """A schema that the reader accepts can check and mask documents."""
    try:
        schema = compile_for_registration(strict_json.read_object(data)).schema
    except ServiceError:
        return
    for configuration in ({}, {"a": 1}, {"a": {"b": ["c", None]}, "password": "p"}):
        schema.check(schema.fill_defaults(configuration))


class _HeadReader:
    """What the server's parser finds in a request head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.requests = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.requests += 1


def read_request_head(data: bytes) -> None:
    """A head that the fast path answers is one request to the server's parser too, with the same meaning."""
    cached = RequestHeadCache(1 << 20).find(data)
    if cached is None:
        return
    reader = _HeadReader()
    parser = httptools.HttpRequestParser(reader)
    parser.feed_data(data)
    path, _, query = reader.url.partition(b"?")
    assert (reader.requests, parser.get_method(), path) == (1, b"GET", b"/config")
    assert parser.get_http_version() == "1.1"
    assert parser.should_keep_alive()
    assert parse_plain_read(query, reader.headers) == cached.request


def _read_events(pieces: list[bytes]) -> list[Event] | None:
    splitter, parser = LineSplitter(), EventParser()
    try:
        found = [parser.feed(line) for piece in pieces for line in splitter.feed(piece)]
    except InvalidEvent:
        return None
    return [event for event in found if event is not None]


def read_events(data: bytes) -> None:
    """The events of a stream do not depend on how the network cuts it."""
    whole = _read_events([data])
    middle = len(data) // 2
    assert _read_events([bytes((byte,)) for byte in data]) == whole
    assert _read_events([data[:middle], b"", data[middle:]]) == whole
    assert all(isinstance(event.data, dict) for event in whole or ())


def read_ciphertext(data: bytes) -> None:
    """Only what was encrypted with the key for the same place is decrypted."""
    try:
        plain = ciphertext.decrypt(data, cipher=CIPHER, bound_to=BOUND_TO)
    except DecryptionFailed:
        plain = None
    # The fuzzer cannot compute a tag.
    assert plain is None
    encrypted = ciphertext.encrypt(data, cipher=CIPHER, key_id=KEY_ID, bound_to=BOUND_TO)
    assert ciphertext.decrypt(encrypted, cipher=CIPHER, bound_to=BOUND_TO) == data
    if data:
        place = data[0] % len(encrypted)
        altered = encrypted[:place] + bytes((encrypted[place] ^ (data[-1] or 1),)) + encrypted[place + 1 :]
        try:
            ciphertext.decrypt(altered, cipher=CIPHER, bound_to=BOUND_TO)
        except DecryptionFailed:
            return
        raise AssertionError("an altered ciphertext was decrypted")


def fail_for_a_short_word(data: bytes) -> None:
    """The deliberate fault, which a coverage-guided fuzzer finds byte by byte."""
    if data[:1] == b"b" and data[1:2] == b"a" and data[2:3] == b"d" and data[3:4] == b"!":
        raise AssertionError("the deliberate fault was found")


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (read_json, read_schema, read_request_head, read_events, read_ciphertext)
}
FAULTY_TARGET = fail_for_a_short_word
