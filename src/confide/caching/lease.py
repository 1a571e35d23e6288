"""The lease: how long what a process remembers is proven to be true."""

from __future__ import annotations

from confide.clock import boottime

LEASE_SECONDS = 1.0


class Lease:
    """Memory is proven while a read of the change log, sent within the last second, has come back."""

    def __init__(self) -> None:
        self.expires_at = 0.0

    def renew(self, sent_at: float) -> None:
        """A read of the log, sent at that moment, has come back and all it told was heard."""
        self.expires_at = sent_at + LEASE_SECONDS

    def is_valid(self) -> bool:
        return boottime() < self.expires_at

    def age_seconds(self) -> float:
        """Seconds since what is remembered was last known to be true."""
        return boottime() - (self.expires_at - LEASE_SECONDS)
