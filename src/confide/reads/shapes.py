"""Response shapes of access statistics."""

from __future__ import annotations

from pydantic import BaseModel, Field


class UsageShape(BaseModel):
    token_id: int
    login: str | None
    label: str | None
    last_read_at: str
    reads: int


class UsageList(BaseModel):
    usage: list[UsageShape] = Field(description="The latest first, at most 1,000.")
