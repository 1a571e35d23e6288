"""Bounds in seconds that the service promises, and the mode of a busy machine, which only reports them."""

from __future__ import annotations

import os

# `make test-busy` sets it: other processes take the processor that the promises count on.
BUSY = "CONFIDE_TEST_BUSY"


def is_busy() -> bool:
    return BUSY in os.environ


def assert_within(seconds: float, promised_seconds: float, what: str) -> None:
    """Assert that something took at most the promised time. On a busy machine, report a broken bound instead."""
    if seconds <= promised_seconds:
        return
    sentence = f"{what} took {seconds:.3f} s, and {promised_seconds:.3f} s are promised"
    assert is_busy(), sentence
    print(f"Busy machine: {sentence}.")
