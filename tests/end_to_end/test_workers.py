"""Several workers of one service give the same answers and share one metrics page."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import httpx2

from confide.names import ConfigKey
from support.app import TYPE
from support.bounds import assert_within
from support.processes import Service, find_workers, run_service, send_to_group
from support.waiting import MAX_WAIT_SECONDS, build_stop_condition, wait_until
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


async def wait_for_workers(service: Service, token: str, count: int) -> list[dict[str, float]]:
    """Return several pages once each counts so many workers."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    seen: list[dict[str, float]] = []
    while time.monotonic() < deadline:
        with suppress(httpx2.TransportError):  # of a killed worker
            seen = await load_pages(service, token, count=4)
            if {page["confide_workers"] for page in seen} == {count}:
                return seen
        await asyncio.sleep(0.3)
    raise AssertionError(f"the pages do not count {count} workers: {[page['confide_workers'] for page in seen]}")


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


async def test_two_services_on_one_data_folder_and_port_keep_their_own_metrics(tmp_path: Path) -> None:
    with run_service(tmp_path, "--workers", "2") as old:
        token = old.add_admin()
        new = Service(tmp_path, "--workers", "2", host="127.0.0.2", port=old.port)
        new.start()
        try:
            await wait_for_workers(new, token, 2)
            await wait_for_workers(old, token, 2)
            assert (await asyncio.to_thread(old.stop)) == 0
            assert {page["confide_workers"] for page in await load_pages(new, token)} == {2}
        finally:
            new.end()


async def test_the_counts_of_a_killed_worker_stay_on_the_page(tmp_path: Path) -> None:
    with run_service(tmp_path, "--workers", "2") as service:
        token = service.add_admin()
        async with service.async_client(token) as client:
            await merge_marker(client, KEY, "w", "1")
            await read_many(client, 40)
            before = await load_pages(service, token, count=4)
            assert service.process is not None
            os.kill(find_workers(service.process.pid)[0], signal.SIGKILL)
            after = await wait_for_workers(service, token, 2)
        assert count_reads(after[0]) >= max(map(count_reads, before)) >= 40


def test_a_slow_worker_is_not_replaced(tmp_path: Path) -> None:
    """A worker that does not run for longer than the five seconds of uvicorn, as on a busy machine."""
    with run_service(tmp_path, "--workers", "2") as service, service.client() as client:
        assert service.process is not None
        supervisor = service.process.pid
        workers = find_workers(supervisor)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGSTOP)
        try:
            is_over = build_stop_condition(min_seconds=8)
            while not is_over():
                with suppress(httpx2.TimeoutException):  # the stopped worker may hold the connection
                    client.get("/health/live", timeout=1)
            assert find_workers(supervisor) == workers
        finally:
            os.kill(workers[0], signal.SIGCONT)
        assert "worker_replaced" not in service.log.read_text()


def test_workers_that_end_with_the_service_are_not_replaced(tmp_path: Path) -> None:
    """Ctrl+C reaches all processes at once, and the workers can be the first to end."""
    with run_service(tmp_path, "--workers", "2") as service:
        assert service.process is not None
        supervisor = service.process.pid
        os.kill(supervisor, signal.SIGSTOP)
        send_to_group(supervisor, signal.SIGINT)
        wait_until(lambda: not find_workers(supervisor), "the workers have ended")
        os.kill(supervisor, signal.SIGCONT)
        assert service.process.wait(MAX_WAIT_SECONDS) == 0
        assert "worker_replaced" not in service.log.read_text()


def test_no_worker_maps_a_metrics_file_into_memory(tmp_path: Path) -> None:
    """A full file system kills a process that writes to mapped memory. SQLite and the stamps allocate theirs."""
    with (
        run_service(tmp_path, "--workers", "2", env={"CONFIDE_METRICS": "open"}) as service,
        service.client() as client,
    ):
        assert client.get("/metrics").status_code == 200
        assert service.process is not None
        workers = find_workers(service.process.pid)
        assert len(workers) == 2
        for pid in workers:
            assert all(re.fullmatch(r"(confide|\d)\.db-shm|stamps", path.name) for path in list_written_maps(pid))


def list_written_maps(pid: int) -> list[Path]:
    """List the files that a process maps into its memory to write to them."""
    maps = [line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    files = [Path(parts[5]) for parts in maps if parts[1] == "rw-s" and len(parts) == 6]
    return [path for path in files if path.is_file()]


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
