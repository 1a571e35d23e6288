"""Response shapes of health checks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    status: Literal["ok", "degraded", "unavailable"]
    reasons: list[str]
