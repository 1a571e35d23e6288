"""Which members hold secrets, and what a viewer sees in their place."""

from __future__ import annotations

import re
from typing import Any

from confide.domain.bodies import Json, pointer
from confide.domain.errors import Fault, MaskSentBack

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


def is_secret(member: str) -> bool:
    """Whether a member of this name is on the built-in list of secret names."""
    plain = _SEPARATORS.sub("", member.lower())
    if plain.endswith(SECRET_ENDINGS) or plain.removesuffix("s").endswith(SECRET_ENDINGS):
        return True
    return any(part in plain for part in SECRET_PARTS)


def masked(value: Any) -> Any:
    """Return the value with each secret member replaced whole by the mask, whatever its type."""
    if isinstance(value, dict):
        return {member: MASK if is_secret(member) else masked(inner) for member, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return value


def must_hold_no_mask(configuration: Json) -> None:
    """Raise `MaskSentBack` if a mask was sent back, so that nobody overwrites a secret with stars."""
    places = tuple(_places(configuration, ("configuration",)))
    if places:
        raise MaskSentBack(faults=tuple(Fault(p, MaskSentBack.code, MaskSentBack.sentence) for p in places))


def _places(value: Any, path: tuple[str | int, ...]) -> list[str]:
    if value == MASK:
        return [pointer(path)]
    if isinstance(value, dict):
        return [place for member, inner in value.items() for place in _places(inner, (*path, member))]
    if isinstance(value, list):
        return [place for index, inner in enumerate(value) for place in _places(inner, (*path, index))]
    return []
