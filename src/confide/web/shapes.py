"""The shapes of bodies, for checking what comes in and for the OpenAPI document."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """A body whose members are all known."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class FaultShape(BaseModel):
    pointer: str = Field(description="A JSON Pointer (RFC 6901) to the place.")
    code: str
    detail: str


class Done(BaseModel):
    message: str


class Problem(BaseModel):
    """A refusal (RFC 9457). `code` is stable; nothing that was sent is repeated."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    error: str
    errors: list[FaultShape] | None = None
