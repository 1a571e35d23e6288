"""A client of the public API: what is said without I/O in `calls`, and a shell that says it."""

from confide.client.calls import ConfideError
from confide.client.sync import Client

__all__ = ["Client", "ConfideError"]
