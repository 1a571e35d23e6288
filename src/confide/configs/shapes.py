"""Request and response shapes of configs."""

from __future__ import annotations

from typing import Any, Literal, Self, cast

from pydantic import BaseModel, Field

from confide.errors import UnknownMember
from confide.strict_json import Json
from confide.web.route import Body
from confide.web.shapes import ViolationShape

_EXAMPLE = {
    "username": "acme_user",
    "password": "acme12345",
    "wsdl_urls": {
        "session_url": "https://session.manager.svc",
        "booking_url": "https://booking.manager.svc",
    },
}
_NEXT = "Pass it as `after` to get the next page. Null on the last page."
_WARNINGS = "Violations of the schema. Left out if there are none."


class ConfigBody(Body):
    """A config to save."""

    document_member = "configuration"
    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["flight-information-system"])
    configuration: dict[str, Any] = Field(examples=[_EXAMPLE])
    note: str | None = Field(default=None, description="A one-line reason for the history. Not for secrets.")

    @classmethod
    def parse(cls, document: Json) -> Self:
        """Accept any values: the parsers of names, notes and configurations report more precise errors."""
        if not document.keys() <= cls.model_fields.keys():
            raise UnknownMember
        members: Json = {name: document.get(name) for name in cls.model_fields}
        return cast("Self", cls.model_construct(None, **members))


class VersionSummaryShape(BaseModel, title="VersionLineShape"):
    """One version in the history."""

    version: int
    position: str = Field(description="The position in the change log. Opaque.")
    kind: Literal["saved", "retired"]
    saved_by: str | None = Field(description="A login. Null if the user no longer exists.", examples=["grace"])
    saved_at: str = Field(examples=["2026-11-24T09:15:00.000Z"])
    note: str | None
    pruned: bool = Field(description="The configuration was erased, by retention or with the data key of its tenant.")


class VersionList(BaseModel):
    """One page of the history."""

    versions: list[VersionSummaryShape]
    next: str | None = Field(description=_NEXT)


class VersionShape(VersionSummaryShape, title="VersionShape"):
    """One version with its configuration."""

    tenant: str
    integration_type: str
    configuration: dict[str, Any] | None = Field(description="Null if the version is a tombstone.", examples=[_EXAMPLE])


class ConfigDiff(BaseModel):
    """Changes between two configurations, by JSON Pointer (RFC 6901)."""

    added: dict[str, Any] = Field(examples=[{"/wsdl_urls/refund_url": "https://refund.manager.svc"}])
    changed: dict[str, Any] = Field(examples=[{"/password": {"from": "********", "to": "********"}}])
    removed: dict[str, Any]


class PreviewShape(BaseModel, title="DryRunShape"):
    """The result that a save would have."""

    diff: ConfigDiff
    outcome: Literal["created", "updated", "unchanged"]
    version: int
    warnings: list[ViolationShape] | None = Field(default=None, description=_WARNINGS)


class RollbackBody(Body, title="RollbackShape"):
    """An older version to restore."""

    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["flight-information-system"])
    version: int = Field(ge=1, lt=2**63, examples=[1])
    note: str | None = Field(default=None, examples=["the new password was wrong"])


class ConfigSaved(BaseModel):
    """The result of a save."""

    message: str = Field(examples=["Config 'acme : flight-information-system' is created"])
    tenant: str
    integration_type: str
    version: int
    warnings: list[ViolationShape] | None = Field(default=None, description=_WARNINGS)


class ConfigListItem(BaseModel):
    """One config in a list."""

    tenant: str
    integration_type: str
    version: int
    saved_at: str
    last_read_at: str | None = Field(default=None, description="The last read with any token, accurate to ten seconds.")
    errors: list[ViolationShape] | None = Field(default=None, description="With `conforms=false`: the violations.")


class ConfigList(BaseModel):
    """One page of configs."""

    configs: list[ConfigListItem]
    next: str | None = Field(description=_NEXT)


class TenantListItem(BaseModel):
    """One tenant in a list."""

    tenant: str
    configs: int = Field(description="The number of its configs that the caller may see.")


class TenantList(BaseModel):
    """One page of tenants."""

    tenants: list[TenantListItem]
    next: str | None = Field(description=_NEXT)


class ExportedItem(BaseModel):
    """One config in an export."""

    tenant: str
    integration_type: str
    version: int
    saved_at: str
    masked: bool
    configuration: dict[str, Any] | None = Field(description="Null if the stored data cannot be decrypted.")


class ConfigExport(BaseModel):
    """One page of exported configs."""

    configs: list[ExportedItem]
    next: str | None = Field(description=_NEXT)


class TenantDestroyed(BaseModel):
    """The result of destroying a tenant's data key."""

    tenant: str
    retired: int
