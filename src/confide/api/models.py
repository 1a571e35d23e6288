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


class FaultShape(BaseModel):
    pointer: str = Field(description="A JSON Pointer (RFC 6901) to the place.")
    code: str
    detail: str


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
    warnings: list[FaultShape] | None = Field(default=None, description="What breaks the schema; left out if nothing.")


class RollbackShape(Strict):
    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["flight-information-system"])
    version: int = Field(ge=1, lt=2**63, examples=[1])
    note: str | None = Field(default=None, examples=["the new password was wrong"])


_SCHEMA = {
    "type": "object",
    "required": ["username", "password"],
    "properties": {"password": {"type": "string", "writeOnly": True}, "timeout_seconds": {"default": 30}},
}


class TypePut(Strict):
    """What a type shall be. `schema` is JSON Schema 2020-12; null if there is none."""

    json_schema: dict[str, Any] | None = Field(default=None, alias="schema", examples=[_SCHEMA])
    mode: Literal["warn", "enforce"] = Field(default="warn", description="What a fault means for a save.")
    keep: int = Field(default=100, description="Versions of each config that are kept, 1 to 100,000.")
    note: str | None = Field(default=None, description="Why, in one line.")


class TypeSaved(BaseModel):
    message: str = Field(examples=["Integration type 'flight-information-system' is created"])
    name: str
    version: int


class TypeLine(BaseModel):
    name: str
    version: int
    mode: Literal["warn", "enforce"]
    keep: int
    saved_at: str
    note: str | None


class TypeShape(TypeLine):
    json_schema: dict[str, Any] | None = Field(alias="schema", examples=[_SCHEMA])


class TypeList(BaseModel):
    types: list[TypeLine]


class ConfigShape(BaseModel):
    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["flight-information-system"])
    configuration: dict[str, Any] = Field(examples=[_FIS])


class ConfigSaved(BaseModel):
    message: str = Field(examples=["Config 'acme : flight-information-system' is created"])
    tenant: str
    integration_type: str
    version: int
    warnings: list[FaultShape] | None = Field(default=None, description="What breaks the schema; left out if nothing.")


class ConfigLine(BaseModel):
    tenant: str
    integration_type: str
    version: int
    saved_at: str
    last_read_at: str | None = Field(default=None, description="By whatever token; to ten seconds.")
    errors: list[FaultShape] | None = Field(default=None, description="With `conforms=false`: what breaks the schema.")


class ExportedLine(BaseModel):
    tenant: str
    integration_type: str
    version: int
    saved_at: str
    masked: bool
    configuration: dict[str, Any] | None = Field(description="Null if what is stored does not open.")


class ConfigExport(BaseModel):
    configs: list[ExportedLine]
    next: str | None = Field(description="Pass it as `after` to go on; null at the end.")


class UsageShape(BaseModel):
    token_id: int
    login: str | None
    label: str | None
    last_read_at: str
    reads: int


class UsageList(BaseModel):
    usage: list[UsageShape] = Field(description="The latest first, at most 1,000.")


class ConfigList(BaseModel):
    configs: list[ConfigLine]
    next: str | None = Field(description="Pass it as `after` to go on; null at the end.")


class ChangeShape(BaseModel):
    event: Literal["saved", "retired", "type-changed"]
    tenant: str | None = Field(description="Null where an integration type was changed.")
    integration_type: str
    version: int
    position: str


class ChangeList(BaseModel):
    events: list[ChangeShape]
    position: str = Field(description="Pass it as `after` to go on.")


class AuditEntryShape(BaseModel):
    number: int = Field(description="Its place in the chain.")
    at: str
    action: str = Field(examples=["save"])
    outcome: str = Field(examples=["updated"])
    actor: str | None = Field(description="A login, if that user is still there.")
    actor_id: int | None
    token_id: int | None
    address: str | None
    request_id: str | None
    tenant: str | None
    integration_type: str | None
    version: int | None
    subject: str | None
    position: str | None = Field(description="Of the change that it explains.")


class AuditList(BaseModel):
    entries: list[AuditEntryShape]
    next: str | None = Field(description="Pass it as `after` to go on; null at the end.")


class CheckpointShape(BaseModel):
    checkpoint: int = Field(description="How many entries it covers.")
    link: str
    at: int = Field(description="Microseconds since 1970.")
    public_key: str
    signature: str = Field(description="Ed25519 (RFC 8032), hexadecimal.")


class CheckpointList(BaseModel):
    public_key: str
    checkpoints: list[CheckpointShape]
    next: str | None


class BadShape(BaseModel):
    number: int
    why: str


class ProofShape(BaseModel):
    """How far the chain was checked, and the first entry that is not as it was."""

    checked: int
    ok: bool
    first_bad: BadShape | None
    unlinked: int = Field(description="Entries older than a minute that are not in the chain: somebody put them there.")
    next: str | None


class TenantDestroyed(BaseModel):
    tenant: str
    retired: int


class Health(BaseModel):
    status: Literal["ok", "degraded", "unavailable"]
    reasons: list[str]


class Problem(BaseModel):
    """A refusal (RFC 9457). `code` is stable; nothing that was sent is repeated."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    error: str
    errors: list[FaultShape] | None = None


class BrokenShape(BaseModel):
    tenant: str
    integration_type: str
    version: int
    errors: list[FaultShape]


class ConformityShape(BaseModel):
    """Which configs break a schema."""

    checked: int
    broken: int
    configs: list[BrokenShape] = Field(description="The first 1,000 of them.")
    next: str | None = Field(description="Pass it as `after` to go on; null once all were checked.")


def grants_of(shapes: list[GrantShape] | None) -> tuple[Grant, ...] | None:
    """Make grants of what was sent; raises `InvalidGrant` naming the place."""
    if shapes is None:
        return None
    return tuple(
        grants.grant(shape.role, shape.tenant, shape.integration_type, place=f"/grants/{index}")
        for index, shape in enumerate(shapes)
    )
