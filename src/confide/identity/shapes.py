"""Request and response shapes of users and tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from confide.identity.model import Grant, grant
from confide.web.shapes import Strict

MAX_GRANTS = 1_000


DAY_SECONDS = 24 * 60 * 60


class GrantShape(Strict):
    """A role on a tenant pattern and an integration type pattern: an exact name, `prefix*` or `*`."""

    role: str = Field(examples=["editor"], description="viewer, reader, editor or admin")
    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["*"])


Grants = Annotated[list[GrantShape], Field(max_length=MAX_GRANTS)]


class UserCreate(Strict):
    login: str = Field(examples=["grace"])
    password: str | None = Field(default=None, examples=["violet kettle on the moon"])
    grants: Grants | None = Field(default=None)


class UserAdded(BaseModel):
    user_id: int = Field(examples=[1])


class UserShape(BaseModel):
    user_id: int
    login: str
    grants: list[GrantShape]
    disabled: bool
    has_password: bool
    added_at: str = Field(examples=["2026-11-24T09:15:00.000Z"])


class UserList(BaseModel):
    users: list[UserShape]


class UserUpdate(Strict):
    grants: Grants | None = None
    disabled: bool | None = None
    password: str | None = None


class Login(Strict):
    login: str = Field(examples=["grace"])
    password: str = Field(examples=["violet kettle on the moon"])


class Session(BaseModel):
    token: str
    expires_at: str = Field(examples=["2026-11-24T21:15:00.000Z"])


class PasswordChange(Strict):
    old: str
    new: str


class TokenCreate(Strict):
    label: str = Field(min_length=1, max_length=128, pattern=r"^[\x20-\x7e]+$", examples=["worker of acme"])
    ttl_seconds: int = Field(default=90 * DAY_SECONDS, ge=60, le=3_650 * DAY_SECONDS)
    grants: Grants | None = Field(default=None, description="Narrower than the user's; left out: all of them.")
    login: str | None = Field(default=None, description="For whom; admins only.")


class TokenShape(BaseModel):
    id: int
    login: str
    label: str
    is_session: bool
    grants: list[GrantShape] | None
    made_at: str
    expires_at: str


class TokenAdded(TokenShape):
    token: str = Field(description="Told only now.")


class TokenList(BaseModel):
    tokens: list[TokenShape]


def grants_of(shapes: list[GrantShape] | None) -> tuple[Grant, ...] | None:
    """Make grants of what was sent; raises `InvalidGrant` naming the place."""
    if shapes is None:
        return None
    return tuple(
        grant(shape.role, shape.tenant, shape.integration_type, place=f"/grants/{index}")
        for index, shape in enumerate(shapes)
    )
