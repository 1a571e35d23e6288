"""The ASGI application for other servers: `uvicorn --factory confide.serving:application`."""

from __future__ import annotations

from confide.server.supervisor import application

__all__ = ["application"]
