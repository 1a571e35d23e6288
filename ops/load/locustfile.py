"""The mix of `confide load` for Locust: 95 reads, 4 merges and 1 list of 100, at a constant rate.

CONFIDE_TOKEN=… RATE=200 locust -f ops/load/locustfile.py --headless -u 20 -r 20 -t 30s --host http://127.0.0.1:8080

RATE is the rate of all users together. Locust waits for each response (a closed model): while the service stalls, it
sends less and reports a lower latency. Create the configs load-* with `confide load` first.
"""

from __future__ import annotations

import os
import random
from itertools import count

from locust import FastHttpUser, constant_throughput, task

TENANTS, TYPES = 100, 3
NUMBERS = count()


class Caller(FastHttpUser):
    """A user that sends its share of the rate."""

    def on_start(self) -> None:
        users = self.environment.parsed_options.num_users or 1
        self.wait_time = constant_throughput(float(os.environ.get("RATE", "200")) / users).__get__(self)
        self.headers = {"Authorization": f"Bearer {os.environ['CONFIDE_TOKEN']}"}

    @task(95)
    def get(self) -> None:
        tenant, type_ = _choose_key()
        self.client.get(f"/config?tenant={tenant}&integration_type={type_}", headers=self.headers, name="get")

    @task(4)
    def merge(self) -> None:
        tenant, type_ = _choose_key()
        configuration = {"load": {"counter": next(NUMBERS)}}
        document = {"tenant": tenant, "integration_type": type_, "configuration": configuration}
        self.client.post("/config", json=document, headers=self.headers, name="merge")

    @task(1)
    def list(self) -> None:
        tenant, _ = _choose_key()
        self.client.get(f"/configs?tenant={tenant}&integration_type=*&limit=100", headers=self.headers, name="list")


def _choose_key() -> tuple[str, str]:
    # A few tenants get most requests, as with the default skew of `confide load`.
    rank = int(TENANTS ** random.random()) - 1
    return f"load-{rank:06d}", f"load-type-{random.randrange(TYPES)}"
