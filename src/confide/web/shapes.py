"""Shapes of requests and responses that several features share."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ViolationShape(BaseModel, title="FaultShape"):
    """One invalid place in a body."""

    pointer: str = Field(description="A JSON Pointer (RFC 6901) to the place.")
    code: str
    detail: str


class Done(BaseModel):
    """Confirmation of a request in one sentence."""

    message: str


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable. An error never repeats what the client sent."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    error: str
    errors: list[ViolationShape] | None = None
