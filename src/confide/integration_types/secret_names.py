"""Decide by the name of a member whether its value is secret."""

from __future__ import annotations

import functools
import re
import unicodedata

# A member is secret if its name contains one of these. Case and separators do not matter.
SECRET_PARTS_BEFORE = (
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
SECRET_PARTS = (*SECRET_PARTS_BEFORE, "privkey")
# A member is also secret if its name ends with one of these, in the singular or plural: `access_tokens` is secret,
# `token_url` is not.
SECRET_ENDINGS_BEFORE = (
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
SECRET_ENDINGS = (
    *SECRET_ENDINGS_BEFORE,
    "passkey",
    "pem",
    "iddsa",
    "idecdsa",
    "ided25519",
    "idrsa",
    "jaasconfig",
    "keyfilejson",
    "serviceaccountinfo",
    "serviceaccountjson",
    # `httpHeaderValue1` holds the value of the header that `httpHeaderName1` names.
    "headervalue",
    "basicauth",
    "httpauth",
    "proxyauth",
)
# Words that only end like a secret.
ORDINARY_WORDS = frozenset(
    {"bypass", "compass", "encompass", "overpass", "surpass", "trespass", "underpass"}
    | {"hairpin", "kingpin", "linchpin", "spin", "tailspin", "topspin", "sacred"}
)
# A name with one of these as its last word holds a rule about secrets: `password_policy`.
DESCRIPTIONS = frozenset({"attempts", "expiration", "expiry", "length", "policies", "policy", "timeout", "ttl"})
# A name with one of these before a plural holds a number: `max_tokens`.
QUANTITIES = frozenset({"max", "maximum", "min", "minimum", "num", "number", "total"})
COUNTS = frozenset({"maxtokens", "mintokens", "numtokens"})
# A name with one of these before `auth` holds a switch: `use_auth`.
SWITCHES = frozenset(
    {"disable", "enable", "has", "needs", "no", "require", "requires", "skip", "use", "with", "without"}
)
# A name can have these after its last word: `token1`, `apiKeyProd`, `password_old`.
_QUALIFIERS = (
    r"v?[0-9]+|base64|b64|value|raw|plain|plaintext|prod|production|preprod|stage|staging|test|testing|sandbox|live|demo"
    r"|primary|secondary|backup|fallback"
)
_WHOLE_QUALIFIERS = r"dev|development|qa|uat|int|local|main|default|old|new|previous|current|next|eu|us"
_LAST_QUALIFIER = re.compile(rf"(?:{_QUALIFIERS})$|^(?:{_WHOLE_QUALIFIERS})$")

_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[a-z0-9]+")
_SEPARATORS = re.compile(r"[^a-z0-9]")


@functools.lru_cache(4_096)
def is_secret_name(name: str) -> bool:
    """Return whether the built-in lists make a member secret."""
    words = _split_into_words(name)
    joined = ["".join(words)]
    while words and (stem := _LAST_QUALIFIER.sub("", words[-1])) != words[-1]:
        words[-1:] = [stem] if stem else []
        joined.append("".join(words))
    if not words:
        return joined[0].endswith(SECRET_ENDINGS)
    *before, last = words
    if last in DESCRIPTIONS or last in COUNTS or (last.endswith("s") and not QUANTITIES.isdisjoint(before)):
        return False
    if any(part in joined[0] for part in SECRET_PARTS):
        return True
    if last in ORDINARY_WORDS or last.removesuffix("s") in ORDINARY_WORDS:
        return False
    if any(one.endswith(SECRET_ENDINGS) or one.removesuffix("s").endswith(SECRET_ENDINGS) for one in joined):
        return True
    return last == "auth" and SWITCHES.isdisjoint(before)


@functools.lru_cache(4_096)
def was_secret_name(name: str) -> bool:
    """Return whether the lists of the previous release made a member secret."""
    joined = _SEPARATORS.sub("", name.lower())
    if joined.endswith(SECRET_ENDINGS_BEFORE) or joined.removesuffix("s").endswith(SECRET_ENDINGS_BEFORE):
        return True
    return any(part in joined for part in SECRET_PARTS_BEFORE)


def _split_into_words(name: str) -> list[str]:
    # Full-width letters and ligatures are the letters that they stand for. `OAuth` is one word.
    text = unicodedata.normalize("NFKC", name).replace("OAuth", "Oauth").replace("oAuth", "oauth")
    return _WORD.findall(_CAMEL_CASE.sub("_", text).lower())
