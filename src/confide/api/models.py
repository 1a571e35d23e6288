"""The shapes of bodies, for checking what comes in and for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from confide.domain import grants
from confide.domain.grants import Grant

MOST_GRANTS = 1_000
DAY_SECONDS = 24 * 60 * 60


class Strict(BaseModel):
    """A body whose members are all known."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class GrantShape(Strict):
    """A role on a tenant pattern and an integration type pattern: an exact name, `prefix*` or `*`."""

    role: str = Field(examples=["editor"], description="viewer, reader, editor or admin")
    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["*"])


Grants = Annotated[list[GrantShape], Field(max_length=MOST_GRANTS)]


class NewUser(Strict):
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


class UserPatch(Strict):
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


class Done(BaseModel):
    message: str


class NewToken(Strict):
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


_FIS = {
    "username": "acme_user",
    "password": "acme12345",
    "wsdl_urls": {
        "session_url": "https://session.manager.svc",
        "booking_url": "https://booking.manager.svc",
    },
}


class ConfigDraft(Strict):
    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["flight-information-system"])
    configuration: dict[str, Any] = Field(examples=[_FIS])
    note: str | None = Field(default=None, description="Why, in one line, for the history; no place for secrets.")


class VersionLineShape(BaseModel):
    """One line of the history."""

    version: int
    position: str = Field(description="Its place in the change log; opaque.")
    kind: Literal["saved", "retired"]
    saved_by: str | None = Field(description="A login; null if that user is gone.", examples=["grace"])
    saved_at: str = Field(examples=["2026-11-24T09:15:00.000Z"])
    note: str | None
    pruned: bool = Field(description="What it held was erased, by retention or with its tenant's key.")


class VersionList(BaseModel):
    versions: list[VersionLineShape]
    next: str | None = Field(description="Pass it as `after` to go on; null at the end.")


class VersionShape(VersionLineShape):
    tenant: str
    integration_type: str
    configuration: dict[str, Any] | None = Field(description="Null if this version is a tombstone.", examples=[_FIS])


class ConfigDiff(BaseModel):
    """What changed, by JSON Pointer (RFC 6901)."""

    added: dict[str, Any] = Field(examples=[{"/wsdl_urls/refund_url": "https://refund.manager.svc"}])
    changed: dict[str, Any] = Field(examples=[{"/password": {"from": "********", "to": "********"}}])
    removed: dict[str, Any]


class DryRunShape(BaseModel):
    """What a save would come to."""

    diff: ConfigDiff
    outcome: Literal["created", "updated", "unchanged"]
    version: int


class RollbackShape(Strict):
    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["flight-information-system"])
    version: int = Field(ge=1, lt=2**63, examples=[1])
    note: str | None = Field(default=None, examples=["the new password was wrong"])


class ConfigShape(BaseModel):
    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["flight-information-system"])
    configuration: dict[str, Any] = Field(examples=[_FIS])


class ConfigSaved(BaseModel):
    message: str = Field(examples=["Config 'acme : flight-information-system' is created"])
    tenant: str
    integration_type: str
    version: int


class ConfigLine(BaseModel):
    tenant: str
    integration_type: str
    version: int
    saved_at: str


class ConfigList(BaseModel):
    configs: list[ConfigLine]
    next: str | None = Field(description="Pass it as `after` to go on; null at the end.")


class TenantDestroyed(BaseModel):
    tenant: str
    retired: int


class Health(BaseModel):
    status: Literal["ok", "degraded", "unavailable"]
    reasons: list[str]


class FaultShape(BaseModel):
    pointer: str = Field(description="A JSON Pointer (RFC 6901) to the place.")
    code: str
    detail: str


class Problem(BaseModel):
    """A refusal (RFC 9457). `code` is stable; nothing that was sent is repeated."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    error: str
    errors: list[FaultShape] | None = None


def grants_of(shapes: list[GrantShape] | None) -> tuple[Grant, ...] | None:
    """Make grants of what was sent; raises `InvalidGrant` naming the place."""
    if shapes is None:
        return None
    return tuple(
        grants.grant(shape.role, shape.tenant, shape.integration_type, place=f"/grants/{index}")
        for index, shape in enumerate(shapes)
    )
