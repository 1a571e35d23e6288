"""Check passwords and normalize them for hashing."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib.resources import files

from confide.identity.errors import PasswordCommon, PasswordTooLong, PasswordTooShort

MAX_CHARACTERS = 256

_ROWS = (
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "1q2w3e4r5t6y7u8i9o0p",
)
_AROUND_A_WORD = re.compile(r"^[^a-z]+|[^a-z]+$")
_LEET = str.maketrans("0134578@$!", "oleastbasi")


def check(password: str, *, login: str, min_characters: int) -> str:
    """Return the normalized password (NFKC); raise an error if it is too short, too long or common.

    There are no composition rules (NIST SP 800-63B, section 3.1.1.2).
    """
    if len(password) > MAX_CHARACTERS:
        raise PasswordTooLong
    plain = normal(password)
    if len(plain) < min_characters:
        raise PasswordTooShort(f"The password has fewer than {min_characters} characters. Choose a longer one.")
    if is_common(plain, login=login):
        raise PasswordCommon
    return plain


def normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


@cache
def common_words() -> frozenset[str]:
    """Load the common passwords, without digits and signs around the word."""
    return frozenset(files("confide.identity").joinpath("common_passwords.txt").read_text().split())


def is_common(password: str, *, login: str) -> bool:
    """Return whether a password is a decorated common word, a run of keys, a repeated piece or the login."""
    lowered = password.lower()
    words = {lowered, lowered.translate(_LEET)}
    words |= {_AROUND_A_WORD.sub("", word) for word in words}
    if words & (common_words() | {login}) or lowered in (login, login[::-1]):
        return True
    return any(_is_run(piece) for piece in (lowered, _repeated_piece(lowered)))


def _repeated_piece(text: str) -> str:
    where = (text + text).find(text, 1)
    return text[:where] if where < len(text) else text


def _is_run(text: str) -> bool:
    if len(set(text)) <= 1:
        return True
    return any(text in row or text in row[::-1] for row in _ROWS) or text in common_words()
