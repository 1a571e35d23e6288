"""Find the secret members of a configuration and mask their values."""

from __future__ import annotations

import functools
import re
from typing import Any

from confide.errors import Violation
from confide.integration_types.errors import MaskSentBack
from confide.strict_json import Json, format_pointer

MASK = "********"

# A member is secret if its name contains one of these. Case and separators do not matter.
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
# A member is also secret if its name ends with one of these, in the singular or plural: `access_tokens` is secret,
# `token_url` is not.
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
def is_secret_name(member: str) -> bool:
    """Return whether the built-in lists make a member secret."""
    name = _SEPARATORS.sub("", member.lower())
    if name.endswith(SECRET_ENDINGS) or name.removesuffix("s").endswith(SECRET_ENDINGS):
        return True
    return any(part in name for part in SECRET_PARTS)


class SecretPlace:
    """A place in a configuration: whether its value is secret, and the places inside it.

    This class decides by the names of members. `SchemaPlace` also decides by a schema.
    """

    __slots__ = ("is_secret",)

    def __init__(self, *, is_secret: bool = False) -> None:
        self.is_secret = is_secret

    def get_member(self, name: str) -> SecretPlace:
        return _SECRET if is_secret_name(name) else PLACE_WITHOUT_SCHEMA

    def get_element(self, _index: int) -> SecretPlace:
        return PLACE_WITHOUT_SCHEMA

    def get_element_kind(self, _index: int) -> int:
        """Return the kind of an element. Elements of the same kind share a place."""
        return 0

    def mask(self, value: Any) -> Any:
        return mask(value, self)


PLACE_WITHOUT_SCHEMA = SecretPlace()
_SECRET = SecretPlace(is_secret=True)


def mask(value: Any, place: SecretPlace = PLACE_WITHOUT_SCHEMA) -> Any:
    """Return a copy of the value with the mask in place of each secret of any JSON type."""
    if place.is_secret:
        return MASK
    if isinstance(value, dict):
        return {member: mask(inner, place.get_member(member)) for member, inner in value.items()}
    if isinstance(value, list):
        places: dict[int, SecretPlace] = {}
        for index in range(len(value)):
            if (kind := place.get_element_kind(index)) not in places:
                places[kind] = place.get_element(index)
        return [mask(inner, places[place.get_element_kind(index)]) for index, inner in enumerate(value)]
    return value


def has_mask(value: Any) -> bool:
    return bool(_find_masks(value, ()))


def require_no_mask(configuration: Json) -> None:
    """Raise `MaskSentBack` if a value is the mask. A client must not replace a secret by its mask."""
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
