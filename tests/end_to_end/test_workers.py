"""Several workers of one service: they answer alike, and count on one page."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import httpx2

from confide.names import Key
from support.app import TYPE
from support.processes import Service, run_service
from support.writers import merge_marker

KEY = Key("acme", TYPE)
PARAMS = {"tenant": KEY.tenant, "integration_type": KEY.integration_type}


def numbers(page: str) -> dict[str, float]:
    """The samples of a page by their name and labels."""
    return {
        found[1]: float(found[2]) for line in page.splitlines() if (found := re.fullmatch(r"(confide_\S+) (\S+)", line))
    }


async def pages(service: Service, token: str, *, count: int = 12) -> list[dict[str, float]]:
    """The metrics page as several connections, and so every worker, show it."""
    found = []
    for _ in range(count):
        async with service.async_client(token) as client:
            reply = await client.get("/metrics")
            assert reply.status_code == 200
            assert reply.headers["content-type"].startswith("text/plain")
            found.append(numbers(reply.text))
    return found


async def reads(client: httpx2.AsyncClient, count: int) -> None:
    for reply in await asyncio.gather(*(client.get("/config", params=PARAMS) for _ in range(count))):
        assert reply.status_code == 200


async def test_all_workers_answer_alike_and_count_on_one_page(tmp_path: Path, database: str | None) -> None:
    with run_service(tmp_path, "--workers", "2", database=database) as service:
        token = service.add_admin()
        async with service.async_client(token) as client:
            await merge_marker(client, KEY, "w", "1")
            before = (await pages(service, token))[-1]
            for _ in range(5):
                await reads(client, 40)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                seen = await pages(service, token)
                if seen[0]["confide_workers"] == 2 and answered(seen[0]) == answered(before) + 200:
                    break
                await asyncio.sleep(0.3)
        # Whoever of the two is asked tells of both, and loses nothing that the other counted.
        assert {page["confide_workers"] for page in seen} == {2}
        assert {answered(page) - answered(before) for page in seen} == {200}
        assert all(page['confide_reads_total{answer="memory"}'] > 150 for page in seen)
        assert all(0 <= page["confide_news_age_seconds"] < 2.5 for page in seen)
        assert all(page['confide_memory_bytes{part="configs"}'] > 0 for page in seen)
        assert "acme" not in str(seen)
        assert (await asyncio.to_thread(service.stop)) == 0
    assert not (service.data / "metrics").exists()


def test_a_worker_that_just_begins_to_count_does_not_break_the_page(tmp_path: Path) -> None:
    with run_service(tmp_path, env={"CONFIDE_METRICS": "open"}) as service, service.client() as client:
        folder = service.data / "metrics" / str(service.port)
        # As the metrics library leaves a file between opening it and giving it its size; and one whose worker is gone.
        (folder / "counter_4194305.db").touch()
        (folder / "gauge_livesum_4194305.db").touch()
        page = client.get("/metrics")
        assert page.status_code == 200
        assert numbers(page.text)["confide_workers"] == 1
        assert not (folder / "gauge_livesum_4194305.db").exists()


def answered(page: dict[str, float]) -> float:
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
        assert numbers(page.text)["confide_workers"] == 1
