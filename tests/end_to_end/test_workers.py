"""Several workers of one service give the same answers and share one metrics page."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import httpx2

from confide.names import ConfigKey
from support.app import TYPE
from support.bounds import assert_within
from support.processes import Service, run_service
from support.waiting import MAX_WAIT_SECONDS
from support.writers import merge_marker

KEY = ConfigKey("acme", TYPE)
PARAMS = {"tenant": KEY.tenant, "integration_type": KEY.integration_type}


def parse_samples(page: str) -> dict[str, float]:
    """Parse the samples of a page by name and labels."""
    return {
        found[1]: float(found[2]) for line in page.splitlines() if (found := re.fullmatch(r"(confide_\S+) (\S+)", line))
    }


async def load_pages(service: Service, token: str, *, count: int = 12) -> list[dict[str, float]]:
    """Load the metrics page over several connections, and so from every worker."""
    found = []
    for _ in range(count):
        async with service.async_client(token) as client:
            reply = await client.get("/metrics")
            assert reply.status_code == 200
            assert reply.headers["content-type"].startswith("text/plain")
            found.append(parse_samples(reply.text))
    return found


async def read_many(client: httpx2.AsyncClient, count: int) -> None:
    for reply in await asyncio.gather(*(client.get("/config", params=PARAMS) for _ in range(count))):
        assert reply.status_code == 200


async def test_all_workers_give_the_same_answers_and_share_one_metrics_page(
    tmp_path: Path, database: str | None
) -> None:
    with run_service(tmp_path, "--workers", "2", database=database) as service:
        token = service.add_admin()
        async with service.async_client(token) as client:
            await merge_marker(client, KEY, "w", "1")
            before = (await load_pages(service, token))[-1]
            for _ in range(5):
                await read_many(client, 40)
            deadline = time.monotonic() + MAX_WAIT_SECONDS
            while time.monotonic() < deadline:
                seen = await load_pages(service, token)
                if seen[0]["confide_workers"] == 2 and count_reads(seen[0]) == count_reads(before) + 200:
                    break
                await asyncio.sleep(0.3)
        # Each worker reports the counts of both.
        assert {page["confide_workers"] for page in seen} == {2}
        assert {count_reads(page) - count_reads(before) for page in seen} == {200}
        assert all(page['confide_reads_total{answer="memory"}'] > 150 for page in seen)
        assert all(page["confide_news_age_seconds"] >= 0 for page in seen)
        assert_within(max(page["confide_news_age_seconds"] for page in seen), 2.5, "the last read of the change feed")
        assert all(page['confide_memory_bytes{part="configs"}'] > 0 for page in seen)
        assert "acme" not in str(seen)
        assert (await asyncio.to_thread(service.stop)) == 0
    assert not (service.data / "metrics").exists()


def test_an_empty_metrics_file_of_a_starting_worker_does_not_break_the_page(tmp_path: Path) -> None:
    with run_service(tmp_path, env={"CONFIDE_METRICS": "open"}) as service, service.client() as client:
        folder = service.data / "metrics" / str(service.port)
        # The metrics library creates a file before it sets its size. The second file belongs to no living worker.
        (folder / "counter_4194305.db").touch()
        (folder / "gauge_livesum_4194305.db").touch()
        page = client.get("/metrics")
        assert page.status_code == 200
        assert parse_samples(page.text)["confide_workers"] == 1
        assert not (folder / "gauge_livesum_4194305.db").exists()


def count_reads(page: dict[str, float]) -> float:
    return sum(value for name, value in page.items() if name.startswith("confide_reads_total"))


async def test_the_page_needs_the_token_of_an_admin_or_a_service_account_unless_it_is_open(tmp_path: Path) -> None:
    with run_service(tmp_path / "closed") as service:
        admin = service.add_admin()
        with service.client(admin) as client:
            client.post("/user", json={"login": "scraper"}).raise_for_status()
            scraper = client.post("/tokens", json={"label": "prometheus", "login": "scraper"}).json()["token"]
            client.post("/user", json={"login": "ada", "password": "violet kettle on the moon"}).raise_for_status()
        ada = service.login("ada", "violet kettle on the moon")
        for token, status in ((admin, 200), (scraper, 200), (ada, 403), (None, 401)):
            with service.client(token) as client:
                assert client.get("/metrics").status_code == status
    with run_service(tmp_path / "open", env={"CONFIDE_METRICS": "open"}) as service, service.client() as client:
        page = client.get("/metrics")
        assert page.status_code == 200
        assert parse_samples(page.text)["confide_workers"] == 1
