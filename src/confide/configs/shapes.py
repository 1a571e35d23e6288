"""Request and response shapes of configs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from confide.web.shapes import FaultShape, Strict

_FIS = {
    "username": "acme_user",
    "password": "acme12345",
    "wsdl_urls": {
        "session_url": "https://session.manager.svc",
        "booking_url": "https://booking.manager.svc",
    },
}


class ConfigBody(Strict):
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


class ConfigListItem(BaseModel):
    tenant: str
    integration_type: str
    version: int
    saved_at: str
    last_read_at: str | None = Field(default=None, description="By whatever token; to ten seconds.")
    errors: list[FaultShape] | None = Field(default=None, description="With `conforms=false`: what breaks the schema.")


class ExportedItem(BaseModel):
    tenant: str
    integration_type: str
    version: int
    saved_at: str
    masked: bool
    configuration: dict[str, Any] | None = Field(description="Null if what is stored does not open.")


class ConfigExport(BaseModel):
    configs: list[ExportedItem]
    next: str | None = Field(description="Pass it as `after` to go on; null at the end.")


class ConfigList(BaseModel):
    configs: list[ConfigListItem]
    next: str | None = Field(description="Pass it as `after` to go on; null at the end.")


class TenantDestroyed(BaseModel):
    tenant: str
    retired: int
