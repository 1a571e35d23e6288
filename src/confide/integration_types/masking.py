"""Which members hold secrets, and what a viewer sees in their place."""

from __future__ import annotations

import functools
import re
from typing import Any

from confide.configs.errors import MaskSentBack
from confide.errors import Violation
from confide.strict_json import Json, pointer

MASK = "********"

# A name is secret if, in lower case and without separators, it contains one of these …
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
# … or ends with one of these, in the singular or plural: `token_url` is no secret, `access_tokens` is.
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
    """Whether a member of this name is on the built-in list of secret names."""
    plain = _SEPARATORS.sub("", member.lower())
    if plain.endswith(SECRET_ENDINGS) or plain.removesuffix("s").endswith(SECRET_ENDINGS):
        return True
    return any(part in plain for part in SECRET_PARTS)


class Place:
    """A place in a configuration: whether what stands there is secret, and the places inside it.

    Where no schema says anything, the name decides.
    """

    __slots__ = ("is_secret",)

    def __init__(self, *, is_secret: bool = False) -> None:
        self.is_secret = is_secret

    def member(self, name: str) -> Place:
        return _SECRET if is_secret(name) else ANYWHERE

    def element(self, _index: int) -> Place:
        return ANYWHERE

    def kind_of(self, _index: int) -> int:
        """Elements of one kind stand at places that are alike."""
        return 0


ANYWHERE = Place()
_SECRET = Place(is_secret=True)


class _Shown(Place):
    """A place for those who may see everything."""

    __slots__ = ()

    def member(self, name: str) -> Place:  # noqa: ARG002 - whatever its name
        return self

    def element(self, _index: int) -> Place:
        return self


SHOWN = _Shown()


def masked(value: Any, place: Place = ANYWHERE) -> Any:
    """Return the value with each secret replaced whole by the mask, whatever its type."""
    if place.is_secret:
        return MASK
    if isinstance(value, dict):
        return {member: masked(inner, place.member(member)) for member, inner in value.items()}
    if isinstance(value, list):
        alike: dict[int, Place] = {}
        for index in range(len(value)):
            if (kind := place.kind_of(index)) not in alike:
                alike[kind] = place.element(index)
        return [masked(inner, alike[place.kind_of(index)]) for index, inner in enumerate(value)]
    return value


def holds_mask(value: Any) -> bool:
    return bool(_places(value, ()))


def require_no_mask(configuration: Json) -> None:
    """Raise `MaskSentBack` if a mask was sent back, so that nobody overwrites a secret with stars."""
    places = tuple(_places(configuration, ("configuration",)))
    if places:
        raise MaskSentBack(violations=tuple(Violation(p, MaskSentBack.code, MaskSentBack.sentence) for p in places))


def _places(value: Any, path: tuple[str | int, ...]) -> list[str]:
    if value == MASK:
        return [pointer(path)]
    if isinstance(value, dict):
        return [place for member, inner in value.items() for place in _places(inner, (*path, member))]
    if isinstance(value, list):
        return [place for index, inner in enumerate(value) for place in _places(inner, (*path, index))]
    return []
