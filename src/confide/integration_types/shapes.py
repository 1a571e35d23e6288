"""Request and response shapes of integration types."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from confide.web.shapes import FaultShape, Strict

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
