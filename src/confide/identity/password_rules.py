"""Which passwords are accepted, and the one form in which they are hashed."""

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
    """Return the password as it is hashed (NFKC); raise if it is too short, too long or a common one.

    No rules of composition (NIST SP 800-63B, 3.1.1.2): length, and not on everybody's list.
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
    """What everybody guesses first, without the digits and signs that people put around a word."""
    return frozenset(files("confide.identity").joinpath("common_passwords.txt").read_text().split())


def is_common(password: str, *, login: str) -> bool:
    """Whether it is a common word with trimmings, a run of keys, one piece repeated, or the login."""
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
