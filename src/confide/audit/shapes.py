"""Response shapes of the audit log."""

from __future__ import annotations

from pydantic import BaseModel, Field


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
