"""Reads the catalogue of bad inputs and makes the requests that its entries describe."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from support import wire

FILE = Path(__file__).parents[1] / "bad_inputs.yaml"
# These need what later versions bring: a call to vendors.
NOT_YET = frozenset({"ssrf"})
_PLACE = re.compile(r"\$\{(repeat:(?P<text>.+?):(?P<times>[0-9]+)|(?P<name>[a-z0-9_]+))\}", re.DOTALL)
TYPE = "flight-information-system"


def entries() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())
    return [entry for entry in found if entry["group"] not in NOT_YET]


def filled(text: str, values: Mapping[str, str]) -> str:
    """Put values in the places of a text; a place without a value is a mistake of the catalogue."""

    def value(match: re.Match[str]) -> str:
        if match["times"]:
            return match["text"] * int(match["times"])
        return values[match["name"]]

    return _PLACE.sub(value, text)


def requests(entry: dict[str, Any], values: Mapping[str, str]) -> list[bytes]:
    """The requests of an entry as bytes, in order; the last one's answer is judged."""
    body = entry.get("body") or {}
    if entry["method"] == "RAW":
        return [filled(body["raw"], values).encode("latin-1")]
    headers = [(name, filled(str(value), values)) for name, value in entry["headers"].items()]
    path = filled(entry["path"], values)
    if "gen" in body:
        made = GENERATORS[body["gen"]](**{name: value for name, value in body.items() if name != "gen"})
        return [wire.request(entry["method"], path, [*headers, *more], data) for data, *more in made]
    return [wire.request(entry["method"], path, headers, _bytes(body, values))]


def _bytes(body: dict[str, Any], values: Mapping[str, str]) -> bytes | None:
    if "json" in body:
        return filled(json.dumps(body["json"], ensure_ascii=False), values).encode()
    if "text" in body:
        return filled(body["text"], values).encode()
    if "b64" in body:
        return base64.b64decode(body["b64"])
    return None


def env(inner: str, type: str = TYPE) -> bytes:  # noqa: A002 - the catalogue's own word
    return f'{{"tenant":"acme","integration_type":"{type}","configuration":{inner}}}'.encode()


def pad_to(size: int, type: str) -> bytes:  # noqa: A002 - as above
    """Exactly that many bytes, in strings below their own limit."""
    count = -(-size // 60_000)

    def body(sizes: list[int]) -> bytes:
        return env("{" + ",".join(f'"p{i:02}":"{"x" * size}"' for i, size in enumerate(sizes)) + "}", type)

    free = size - len(body([0] * count))
    return body([free // count + (i < free % count) for i in range(count)])


def gzip_bomb(opens_to: int, layers: int = 1) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(opens_to >> 20)) + packer.flush()
    for _ in range(layers - 1):
        packed = gzip.compress(packed)
    return packed


def _login(login: str, password: str = "a wrong pass phrase") -> bytes:
    return json.dumps({"login": login, "password": password}).encode()


def _nested(depth: int, **_: Any) -> bytes:
    return env('{"a":' * depth + "1" + "}" * depth)


def _patches(patch_bytes: int, times: int, type: str) -> list[bytes]:  # noqa: A002 - as above
    pieces = [
        ",".join(f'"m{n}-{part}":"{"x" * 50_000}"' for part in range(patch_bytes // 50_000)) for n in range(times)
    ]
    return [env("{" + piece + "}", type) for piece in pieces]


Made = list[tuple[Any, ...]]

# Each makes (body, *more headers) for every request that is sent.
GENERATORS: dict[str, Callable[..., Made]] = {
    "nested_objects": lambda **k: [(_nested(**k),)],
    "int_digits": lambda digits: [(env('{"n":' + "9" * digits + "}"),)],
    "long_string": lambda bytes: [(env('{"s":"' + "x" * bytes + '"}'),)],  # noqa: A006 - as above
    "long_key": lambda bytes: [(env('{"' + "k" * bytes + '":1}'),)],  # noqa: A006 - as above
    "many_keys": lambda n: [(env("{" + ",".join(f'"k{i}":1' for i in range(n)) + "}"),)],
    "pad_to": lambda bytes, type: [(pad_to(bytes, type),)],  # noqa: A006 - as above
    "gzip_bomb": lambda **k: [(gzip_bomb(**k),)],
    "user_with_password": lambda bytes: [(_login("u-huge-pass", "x" * bytes),)],  # noqa: A006 - as above
    "repeat_patch": lambda **k: [(patch,) for patch in _patches(**k)],
    "same_key_other_body": lambda: [(env('{"idem":1}'),), (env('{"idem":2}'),)],
    "repeat_login": lambda n, login: [(_login(login),)] * n,
    "repeat_login_xff": lambda n, login: [(_login(login), ("X-Forwarded-For", f"198.51.100.{i}")) for i in range(n)],
    "repeat_login_variants": lambda variants: [(_login(variant),) for variant in variants],
}
