"""A client of the public API: what is said without I/O in `calls`, and a shell that says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confide.client.calls import ConfideError

if TYPE_CHECKING:
    from confide.client.sync import Client

__all__ = ["Client", "ConfideError"]


def __getattr__(name: str) -> Any:
    """Load the shell with its HTTP library when it is first asked for: a command that serves never does."""
    if name != "Client":
        raise AttributeError(name)
    from confide.client.sync import Client  # noqa: PLC0415 - as said

    return Client
