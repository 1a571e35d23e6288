"""The lease: how long cached objects count as fresh without a new read of the change feed."""

from __future__ import annotations

from confide.clock import read_boot_clock

LEASE_SECONDS = 1.0


class Lease:
    """Valid for one second from when the last successful read of the change feed was sent.

    All times are `read_boot_clock` seconds.
    """

    def __init__(self) -> None:
        self.expires_at = 0.0

    def renew(self, sent_at: float) -> None:
        """Renew the lease after all changes of a read are applied. The read was sent at `sent_at`."""
        self.expires_at = sent_at + LEASE_SECONDS

    def is_valid(self) -> bool:
        return read_boot_clock() < self.expires_at

    def compute_age_seconds(self) -> float:
        """Return the seconds since the cache was last known to be current."""
        return read_boot_clock() - (self.expires_at - LEASE_SECONDS)
