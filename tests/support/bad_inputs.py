"""Load the cases of `bad_inputs.yaml` and build the requests that they describe."""

from __future__ import annotations

import base64
import gzip
import json
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from support import raw_http

FILE = Path(__file__).parents[1] / "bad_inputs.yaml"
# These need a later feature: calls to vendors.
NOT_YET = frozenset({"ssrf"})
_PLACEHOLDER = re.compile(r"\$\{(repeat:(?P<text>.+?):(?P<times>[0-9]+)|(?P<name>[a-z0-9_]+))\}", re.DOTALL)
TYPE = "flight-information-system"


def load_cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())
    return [entry for entry in found if entry["group"] not in NOT_YET]


def fill_placeholders(text: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders of a text. Raises KeyError for an unknown name."""

    def value(match: re.Match[str]) -> str:
        if match["times"]:
            return match["text"] * int(match["times"])
        return values[match["name"]]

    return _PLACEHOLDER.sub(value, text)


def build_requests(entry: dict[str, Any], values: Mapping[str, str]) -> list[bytes]:
    """Build the requests of a case as bytes, in order. The checks look at the last response."""
    body = entry.get("body") or {}
    if entry["method"] == "RAW":
        return [fill_placeholders(body["raw"], values).encode("latin-1")]
    headers = [(name, fill_placeholders(str(value), values)) for name, value in entry["headers"].items()]
    path = fill_placeholders(entry["path"], values)
    if "gen" in body:
        made = GENERATORS[body["gen"]](**{name: value for name, value in body.items() if name != "gen"})
        return [raw_http.build_request(entry["method"], path, [*headers, *more], data) for data, *more in made]
    return [raw_http.build_request(entry["method"], path, headers, _encode_body(body, values))]


def _encode_body(body: dict[str, Any], values: Mapping[str, str]) -> bytes | None:
    if "json" in body:
        return fill_placeholders(json.dumps(body["json"], ensure_ascii=False), values).encode()
    if "text" in body:
        return fill_placeholders(body["text"], values).encode()
    if "b64" in body:
        return base64.b64decode(body["b64"])
    return None


def wrap_configuration(inner: str, type: str = TYPE) -> bytes:  # noqa: A002 - the word in bad_inputs.yaml
    return f'{{"tenant":"acme","integration_type":"{type}","configuration":{inner}}}'.encode()


def build_padded_body(size: int, type: str) -> bytes:  # noqa: A002 - as above
    """Build a body of exactly that many bytes from strings below the string limit."""
    count = -(-size // 60_000)

    def body(sizes: list[int]) -> bytes:
        return wrap_configuration(
            "{" + ",".join(f'"p{i:02}":"{"x" * size}"' for i, size in enumerate(sizes)) + "}", type
        )

    free = size - len(body([0] * count))
    return body([free // count + (i < free % count) for i in range(count)])


def build_gzip_bomb(opens_to: int, layers: int = 1) -> bytes:
    """Build a gzip file (RFC 1952) of zeros. Its blocks are equal, so that one is compressed and repeated."""
    zeros, count, checksum = bytes(1 << 20), opens_to >> 20, 0
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(count):
        checksum = zlib.crc32(zeros, checksum)
    header, trailer = gzip.compress(b"")[:10], struct.pack("<II", checksum, opens_to % 2**32)
    packed = header + block * count + packer.flush() + trailer
    for _ in range(layers - 1):
        packed = gzip.compress(packed)
    return packed


def _build_login(login: str, password: str = "a wrong pass phrase") -> bytes:
    return json.dumps({"login": login, "password": password}).encode()


def _build_nested(depth: int, **_: Any) -> bytes:
    return wrap_configuration('{"a":' * depth + "1" + "}" * depth)


def _build_patches(patch_bytes: int, times: int, type: str) -> list[bytes]:  # noqa: A002 - as above
    pieces = [
        ",".join(f'"m{n}-{part}":"{"x" * 50_000}"' for part in range(patch_bytes // 50_000)) for n in range(times)
    ]
    return [wrap_configuration("{" + piece + "}", type) for piece in pieces]


Bodies = list[tuple[Any, ...]]

# Each generator returns (body, *headers) for every request.
GENERATORS: dict[str, Callable[..., Bodies]] = {
    "nested_objects": lambda **k: [(_build_nested(**k),)],
    "int_digits": lambda digits: [(wrap_configuration('{"n":' + "9" * digits + "}"),)],
    "long_string": lambda bytes: [(wrap_configuration('{"s":"' + "x" * bytes + '"}'),)],  # noqa: A006 - as above
    "long_key": lambda bytes: [(wrap_configuration('{"' + "k" * bytes + '":1}'),)],  # noqa: A006 - as above
    "many_keys": lambda n: [(wrap_configuration("{" + ",".join(f'"k{i}":1' for i in range(n)) + "}"),)],
    "pad_to": lambda bytes, type: [(build_padded_body(bytes, type),)],  # noqa: A006 - as above
    "gzip_bomb": lambda **k: [(build_gzip_bomb(**k),)],
    "user_with_password": lambda bytes: [(_build_login("u-huge-pass", "x" * bytes),)],  # noqa: A006 - as above
    "repeat_patch": lambda **k: [(patch,) for patch in _build_patches(**k)],
    "same_key_other_body": lambda: [(wrap_configuration('{"idem":1}'),), (wrap_configuration('{"idem":2}'),)],
    "repeat_login": lambda n, login: [(_build_login(login),)] * n,
    "repeat_login_xff": lambda n, login: [
        (_build_login(login), ("X-Forwarded-For", f"198.51.100.{i}")) for i in range(n)
    ],
    "repeat_login_variants": lambda variants: [(_build_login(variant),) for variant in variants],
}
