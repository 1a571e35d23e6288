"""Users, tokens, roles, grants and principals."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NewType

from confide.errors import InvalidName, Violation
from confide.identity import token_format
from confide.identity.errors import InvalidGrant, InvalidLogin
from confide.names import ConfigKey
from confide.slices import pause_if_due


@dataclass(frozen=True, slots=True)
class User:
    """A user. A user without a password is a service account, which can only use tokens."""

    id: int
    login: str
    grants: tuple[Grant, ...]
    is_disabled: bool
    added_at: int
    password: str | None = field(default=None, repr=False)

    @property
    def can_administer(self) -> bool:
        """Whether this user can log in and administer the server."""
        return has_admin(self.grants) and not self.is_disabled and self.password is not None


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to add, with the hash of its password."""

    login: str
    grants: tuple[Grant, ...]
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class UserChange:
    """Changes to a user, with the hash of a new password. None keeps a field."""

    grants: tuple[Grant, ...] | None = None
    is_disabled: bool | None = None
    password: str | None = field(default=None, repr=False)
    # Whether the service tokens of the user stay valid after a new password. Sessions never do.
    is_keeping_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A session or a service token, without its secret."""

    id: int
    user_id: int
    login: str
    is_session: bool
    label: str
    grants: tuple[Grant, ...] | None
    made_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to store by its hash."""

    hash: bytes = field(repr=False)
    user_id: int
    is_session: bool
    label: str
    grants: tuple[Grant, ...] | None
    expires_at: int
    # The password hash that the login of a session was verified with.
    password_hash: str | None = field(default=None, repr=False)
    # The token of the request that makes this one. It must still exist when this one is stored.
    maker_id: int | None = None


# Identifies a token in the cache and in the database. Only this package knows that it is a hash.
Credential = NewType("Credential", bytes)

_LOGIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
# A valid e-mail address of the HTML standard, with the length limits of RFC 5321, section 4.5.3.1.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_EMAIL = re.compile(rf"[a-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")
MAX_LOGIN_CHARACTERS = 254
_NOT_IN_LOGINS = re.compile(r"[^a-z0-9.!#$%&'*+/=?^_`{|}~@-]")
_PATTERN = re.compile(r"\*|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9]|[A-Za-z0-9._-]{0,126}\*)?")
# Names are ASCII below this character, so that prefix and character sort after every name with the prefix.
_AFTER_NAMES = "\x7f"


class ScopeBounds(NamedTuple):
    """The first and last tenant and integration type that a scope covers, inclusive."""

    first_tenant: str
    last_tenant: str
    first_type: str
    last_type: str


class Role(enum.IntEnum):
    """Roles in order: each role includes those before it."""

    VIEWER = 1
    READER = 2
    EDITOR = 3
    ADMIN = 4


class SecretsMode(enum.StrEnum):
    """What a request asks for. Without a mode, the role of the caller decides."""

    MASKED = "masked"
    OPENED = "opened"


@dataclass(frozen=True, slots=True)
class Scope:
    """Two patterns, on tenants and on integration types: an exact name, `prefix*` or `*`."""

    tenant: str
    integration_type: str

    def is_covering(self, key: ConfigKey) -> bool:
        return _is_match(self.tenant, key.tenant) and _is_match(self.integration_type, key.integration_type)

    def is_covering_type(self, name: str) -> bool:
        return _is_match(self.integration_type, name)

    def is_overlapping(self, other: Scope) -> bool:
        """Return whether both can cover the same key."""
        mine, theirs = self.find_bounds(), other.find_bounds()
        return (
            mine.first_tenant <= theirs.last_tenant
            and theirs.first_tenant <= mine.last_tenant
            and mine.first_type <= theirs.last_type
            and theirs.first_type <= mine.last_type
        )

    def intersect(self, other: Scope) -> Scope | None:
        """Return the scope of the keys that both cover, or None if there are none."""
        tenant = _intersect(self.tenant, other.tenant)
        integration_type = _intersect(self.integration_type, other.integration_type)
        return None if tenant is None or integration_type is None else Scope(tenant, integration_type)

    def find_bounds(self) -> ScopeBounds:
        """Return the range of names that the patterns cover, in byte order."""
        return ScopeBounds(*_find_bounds(self.tenant), *_find_bounds(self.integration_type))


@dataclass(frozen=True, slots=True)
class Grant:
    """A role on a tenant pattern and an integration type pattern."""

    role: Role
    scope: Scope

    def to_json(self) -> dict[str, str]:
        return {
            "role": self.role.name.lower(),
            "tenant": self.scope.tenant,
            "integration_type": self.scope.integration_type,
        }


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller of a request.

    `token_grants` are the grants of the token. None means all grants of its user. `token_expires_at` is in microseconds
    since 1970.
    """

    user_id: int
    login: str
    grants: tuple[Grant, ...]
    token_id: int
    is_session: bool = False
    token_grants: tuple[Grant, ...] | None = None
    is_service_account: bool = False
    token_expires_at: int | None = None

    def find_role(self, key: ConfigKey) -> Role | None:
        """Return the lower one of the roles of the user and of the token on a key, or None."""
        role = find_highest_role(self.grants, key)
        if role is None or self.token_grants is None:
            return role
        token_role = find_highest_role(self.token_grants, key)
        return None if token_role is None else min(role, token_role)

    @property
    def grant_groups(self) -> tuple[tuple[Grant, ...], ...]:
        """The grants of the user, and those of the token if it has its own. Access needs a grant of each group."""
        return (self.grants,) if self.token_grants is None else (self.grants, self.token_grants)

    def can_see_type(self, name: str) -> bool:
        """Return whether the grants cover an integration type for any tenant."""
        return all(any(_is_match(one.scope.integration_type, name) for one in group) for group in self.grant_groups)

    def find_permissions(self) -> list[Grant]:
        """Return what the grants of the user and those of the token allow together, in the order of the user's."""
        highest: dict[Scope, Role] = {}
        for mine in self.grants:
            pause_if_due()
            for limit in (mine,) if self.token_grants is None else self.token_grants:
                scope = mine.scope.intersect(limit.scope)
                if scope is not None:
                    role = min(mine.role, limit.role)
                    highest[scope] = max(role, highest.get(scope, role))
        return [Grant(role, scope) for scope, role in highest.items()]

    @property
    def is_admin(self) -> bool:
        return has_admin(self.grants) and (self.token_grants is None or has_admin(self.token_grants))


def find_highest_role(grants: Iterable[Grant], key: ConfigKey) -> Role | None:
    highest: Role | None = None
    for grant in grants:
        if (highest is None or grant.role > highest) and grant.scope.is_covering(key):
            highest = grant.role
    return highest


def has_admin(grants: Iterable[Grant]) -> bool:
    return any(grant.role is Role.ADMIN for grant in grants)


def parse_grant(role: Any, tenant: Any, integration_type: Any, *, place: str = "") -> Grant:
    """Parse a grant. Raises `InvalidGrant` with `place`, the JSON Pointer to the grant."""
    patterns = (tenant, integration_type)
    is_role = isinstance(role, str) and role.isascii() and role == role.lower() and role.upper() in Role.__members__
    is_valid = is_role and all(isinstance(p, str) and _PATTERN.fullmatch(p) for p in patterns)
    if not is_valid or (role == "admin" and patterns != ("*", "*")):
        raise InvalidGrant(violations=(Violation(place, InvalidGrant.code, InvalidGrant.sentence),))
    return Grant(Role[role.upper()], Scope(tenant, integration_type))


def parse_scope(tenant: str, integration_type: str) -> Scope:
    """Parse a scope. Raises `InvalidName`."""
    if not (_PATTERN.fullmatch(tenant) and _PATTERN.fullmatch(integration_type)):
        raise InvalidName("Invalid pattern. Use an exact name, a prefix followed by *, or *.")
    return Scope(tenant, integration_type)


def _is_match(pattern: str, name: str) -> bool:
    if pattern in ("*", name):
        return True
    return pattern.endswith("*") and name.startswith(pattern[:-1])


def _intersect(one: str, other: str) -> str | None:
    """Return the pattern of the names that both patterns match, or None if there are none."""
    for narrow, wide in ((one, other), (other, one)):
        if _is_match(wide, narrow.removesuffix("*")) and (wide.endswith("*") or wide == narrow):
            return narrow
    return None


def _find_bounds(pattern: str) -> tuple[str, str]:
    if pattern.endswith("*"):
        return pattern[:-1], pattern[:-1] + _AFTER_NAMES
    return pattern, pattern


class CreatedToken(NamedTuple):
    """A new token with its secret, which is not stored."""

    secret: str
    token: Token

    def __repr__(self) -> str:
        return f"CreatedToken({self.token})"


class TokenWithUser(NamedTuple):
    """A token with its user."""

    token: Token
    user: User


def parse_login(value: Any) -> str:
    """Parse a name or an e-mail address and return it in lower case. Raises `InvalidLogin`."""
    if isinstance(value, str) and value.isascii() and len(value) <= MAX_LOGIN_CHARACTERS:
        lowered = value.lower()
        if _LOGIN.fullmatch(lowered) or _EMAIL.fullmatch(lowered):
            return lowered
    raise InvalidLogin


def normalize_attempted_login(value: str) -> str:
    """Reduce a login to the form that the login throttle counts. The login can be invalid."""
    return _NOT_IN_LOGINS.sub("", value.lower())[:MAX_LOGIN_CHARACTERS]


def parse_credential(token: str) -> Credential | None:
    """Return the credential of a token, or None if the token is malformed. Does not use the database."""
    hashed = token_format.hash_token(token)
    return None if hashed is None else Credential(hashed)
