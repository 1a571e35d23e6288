"""Response shapes of changes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ChangeShape(BaseModel):
    event: Literal["saved", "retired", "type-changed"]
    tenant: str | None = Field(description="Null where an integration type was changed.")
    integration_type: str
    version: int
    position: str


class ChangeList(BaseModel):
    events: list[ChangeShape]
    position: str = Field(description="Pass it as `after` to go on.")
