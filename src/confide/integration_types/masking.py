"""Find secret members by their names or places, and mask their values."""

from __future__ import annotations

import functools
import re
from typing import Any

from confide.configs.errors import MaskSentBack
from confide.errors import Violation
from confide.strict_json import Json, format_pointer

MASK = "********"

# A member is secret if its name, in lower case and without separators, contains one of these …
SECRET_PARTS = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "credential",
    "privatekey",
    "connectionstring",
)
# … or ends with one of these, in the singular or plural: `access_tokens` is secret, `token_url` is not.
SECRET_ENDINGS = (
    "token",
    "tokenvalue",
    "apikey",
    "accesskey",
    "accountkey",
    "authkey",
    "clientkey",
    "encryptionkey",
    "hmackey",
    "licensekey",
    "masterkey",
    "sessionkey",
    "sharedkey",
    "signingkey",
    "sshkey",
    "subscriptionkey",
    "webhookkey",
    "pass",
    "pw",
    "cred",
    "authorization",
    "bearer",
    "cookie",
    "cvv",
    "jwt",
    "otp",
    "pin",
    "signature",
)
_SEPARATORS = re.compile(r"[^a-z0-9]")


@functools.lru_cache(4_096)
def is_secret(member: str) -> bool:
    """Return whether the built-in list of secret names contains a member's name."""
    plain = _SEPARATORS.sub("", member.lower())
    if plain.endswith(SECRET_ENDINGS) or plain.removesuffix("s").endswith(SECRET_ENDINGS):
        return True
    return any(part in plain for part in SECRET_PARTS)


class SecretPlace:
    """A place in a configuration: whether its value is secret, and the places inside it.

    Without a schema, a member's name decides.
    """

    __slots__ = ("is_secret",)

    def __init__(self, *, is_secret: bool = False) -> None:
        self.is_secret = is_secret

    def member(self, name: str) -> SecretPlace:
        return _SECRET if is_secret(name) else ANYWHERE

    def element(self, _index: int) -> SecretPlace:
        return ANYWHERE

    def kind_of(self, _index: int) -> int:
        """Return the kind of an element; elements of the same kind share a place."""
        return 0

    def mask(self, value: Any) -> Any:
        return mask(value, self)


ANYWHERE = SecretPlace()
_SECRET = SecretPlace(is_secret=True)


def mask(value: Any, place: SecretPlace = ANYWHERE) -> Any:
    """Return a copy of the value in which the mask replaces every secret, whatever its type."""
    if place.is_secret:
        return MASK
    if isinstance(value, dict):
        return {member: mask(inner, place.member(member)) for member, inner in value.items()}
    if isinstance(value, list):
        alike: dict[int, SecretPlace] = {}
        for index in range(len(value)):
            if (kind := place.kind_of(index)) not in alike:
                alike[kind] = place.element(index)
        return [mask(inner, alike[place.kind_of(index)]) for index, inner in enumerate(value)]
    return value


def has_mask(value: Any) -> bool:
    return bool(_find_masks(value, ()))


def require_no_mask(configuration: Json) -> None:
    """Raise `MaskSentBack` if a value is the mask, so that no client overwrites a secret with it."""
    places = tuple(_find_masks(configuration, ("configuration",)))
    if places:
        raise MaskSentBack(violations=tuple(Violation(p, MaskSentBack.code, MaskSentBack.sentence) for p in places))


def _find_masks(value: Any, path: tuple[str | int, ...]) -> list[str]:
    if value == MASK:
        return [format_pointer(path)]
    if isinstance(value, dict):
        return [place for member, inner in value.items() for place in _find_masks(inner, (*path, member))]
    if isinstance(value, list):
        return [place for index, inner in enumerate(value) for place in _find_masks(inner, (*path, index))]
    return []
