"""Users and their tokens, as the store holds them and as they are shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from confide.domain.grants import Grant, has_admin


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may ask. Without a password it is a service account, which has tokens only."""

    id: int
    login: str
    grants: tuple[Grant, ...]
    is_disabled: bool
    added_at: int
    password: str | None = field(default=None, repr=False)

    @property
    def keeps_admin(self) -> bool:
        """Whether this user alone would be enough to administer the store."""
        return has_admin(self.grants) and not self.is_disabled and self.password is not None


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be added; the password is already a hash."""

    login: str
    grants: tuple[Grant, ...]
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class UserChange:
    """What of a user is to be changed; None leaves it."""

    grants: tuple[Grant, ...] | None = None
    is_disabled: bool | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret: a session that a login began, or a service token."""

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
    """A token to be kept: only the hash of its secret. A session names the password hash that it was begun with."""

    hash: bytes = field(repr=False)
    user_id: int
    is_session: bool
    label: str
    grants: tuple[Grant, ...] | None
    expires_at: int
    begun_with: str | None = field(default=None, repr=False)
