"""Planted faults: `confide serve` whose memory is wrong in a way that `PLANTED` names. The tests must find each."""

from __future__ import annotations

import os
import sys
from typing import Any

from confide.ports import Change
from confide.service.lease import Lease
from confide.service.listening import Listener


def without_lease() -> None:
    """What is remembered is believed however long the log could not be read."""
    Lease.renew = lambda self, _: setattr(self, "until", sys.float_info.max)  # type: ignore[method-assign]


def without_news() -> None:
    """What others changed is not heard: entries end only with their time."""

    def tell_of(self: Any, change: Change) -> None:
        """Nothing."""

    Listener._tell_of = tell_of  # type: ignore[method-assign]


FAULTS = {"lease": without_lease, "news": without_news}

if __name__ == "__main__":
    from confide.cli import main

    for name in os.environ["PLANTED"].split(","):
        FAULTS[name]()
    main()
