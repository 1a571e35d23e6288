"""Python client of the HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confide.client.protocol import ConfideError

if TYPE_CHECKING:
    from confide.client.sync import Client

__all__ = ["Client", "ConfideError"]


def __getattr__(name: str) -> Any:
    """Import `Client` on first use, because `confide serve` must not load an HTTP client."""
    if name != "Client":
        raise AttributeError(name)
    from confide.client.sync import Client  # noqa: PLC0415 - see the docstring

    return Client
