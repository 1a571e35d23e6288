"""Find passwords in URLs: in the user information (RFC 3986, section 3.2.1) and in parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from confide.integration_types.secret_names import is_secret_name

_SEPARATOR = "://"
_USER = r"[^\s/?#:\"'<>]*"
# The last @ before the path ends the password, because a password can contain an @ that is not encoded.
_PASSWORD = re.compile(rf"{_USER}:(?P<secret>[^\s/?#\"'<>]+)@")
# A password with a character that should be encoded, such as /. A number there is a port.
_UNENCODED_PASSWORD = re.compile(r"[^\s/?#:@\[\"'<>]*:(?![0-9]*(?:[/?#]|$))(?P<secret>[^\s\"'<>]{1,1024})@")
_PARAMETER = re.compile(r"[?&;](?P<name>[^=&;?#\s\"'<>]{1,256})=(?P<secret>\{[^}]{0,1024}\}|[^&;\s\"'<>]+)")


class Span(NamedTuple):
    """The start and the end of a secret in a text."""

    start: int
    end: int


def find_secrets(text: str) -> list[Span]:
    """Return the passwords in the URLs of a text, in order."""
    if _SEPARATOR not in text or ("@" not in text and "=" not in text):
        return []
    return sorted({*_find_passwords(text), *_find_parameters(text)})


def replace_secrets(text: str, mask: str) -> str:
    """Return the text with the mask in place of each password in a URL."""
    parts, position = [], 0
    for start, end in find_secrets(text):
        # Two spans overlap if a password looks like a parameter. They share one mask.
        if start >= position:
            parts += [text[position:start], mask]
        position = max(position, end)
    return "".join([*parts, text[position:]]) if parts else text


def _find_passwords(text: str) -> Iterator[Span]:
    last_at = text.rfind("@")
    position = text.find(_SEPARATOR)
    while 0 <= position < last_at:
        position += len(_SEPARATOR)
        found = _PASSWORD.match(text, position) or _UNENCODED_PASSWORD.match(text, position)
        if found is not None:
            yield Span(*found.span("secret"))
            position = found.end()
        position = text.find(_SEPARATOR, position)


def _find_parameters(text: str) -> Iterator[Span]:
    if "=" in text:
        for found in _PARAMETER.finditer(text):
            if is_secret_name(found["name"]):
                yield Span(*found.span("secret"))
