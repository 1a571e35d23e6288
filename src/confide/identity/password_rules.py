"""Check passwords and normalize them for hashing."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib.resources import files

from confide.identity.errors import PasswordCommon, PasswordTooLong, PasswordTooShort

MAX_CHARACTERS = 256

_KEYBOARD_ROWS = (
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "1q2w3e4r5t6y7u8i9o0p",
)
_AROUND_A_WORD = re.compile(r"^[^a-z]+|[^a-z]+$")
_LEET = str.maketrans("0134578@$!", "oleastbasi")


def require_acceptable(password: str, *, login: str, min_characters: int) -> str:
    """Return the normalized password. Raises `PasswordTooShort`, `PasswordTooLong` or `PasswordCommon`.

    There are no composition rules (NIST SP 800-63B, section 3.1.1.2).
    """
    if len(password) > MAX_CHARACTERS:
        raise PasswordTooLong
    plain = normalize(password)
    if len(plain) < min_characters:
        raise PasswordTooShort(f"The password has fewer than {min_characters} characters. Choose a longer one.")
    if is_common(plain, login=login):
        raise PasswordCommon
    return plain


def normalize(password: str) -> str:
    """Normalize a password (NFKC), so that equal characters have equal bytes."""
    return unicodedata.normalize("NFKC", password)


@cache
def load_common_words() -> frozenset[str]:
    """Load the common passwords. Digits and signs around each word are left out."""
    return frozenset(files("confide.identity").joinpath("common_passwords.txt").read_text().split())


def is_common(password: str, *, login: str) -> bool:
    """Return whether a password is the login, a common word with digits or signs, a row of keys, or a repetition."""
    lowered = password.lower()
    words = {lowered, lowered.translate(_LEET)}
    words |= {_AROUND_A_WORD.sub("", word) for word in words}
    if words & (load_common_words() | {login}) or lowered in (login, login[::-1]):
        return True
    return any(_is_sequence(part) for part in (lowered, _find_repeated_part(lowered)))


def _find_repeated_part(text: str) -> str:
    """Return the shortest text whose repetition is the whole text."""
    length = (text + text).find(text, 1)
    return text[:length] if length < len(text) else text


def _is_sequence(text: str) -> bool:
    if len(set(text)) <= 1:
        return True
    return any(text in row or text in row[::-1] for row in _KEYBOARD_ROWS) or text in load_common_words()
