"""Concurrent saves over HTTP into real processes: no save is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from confide.names import ConfigKey
from support.app import TYPE
from support.histories import adds_one_marker_per_version, find_lost_saves, load_histories
from support.processes import run_service
from support.writers import merge_marker, merge_markers

WRITERS = 16
TIMES = 200

# The cache of a worker may be a second old when another worker handled the saves.
BYPASS_CACHE = {"Cache-Control": "no-cache"}


async def test_3200_merges_of_16_writers_are_all_stored(tmp_path: Path, database: str | None) -> None:
    key = ConfigKey("acme", TYPE)
    with run_service(tmp_path, "--workers", "2", database=database) as service:
        async with service.async_client(service.add_admin()) as client:
            writers = [merge_markers(client, key, f"w{number}", times=TIMES) for number in range(WRITERS)]
            saved = [one for writer in await asyncio.gather(*writers) for one in writer]
    assert len(saved) == WRITERS * TIMES
    histories = await load_histories(service.data, database)
    assert find_lost_saves(saved, histories) == []
    assert sorted(one.version for one in saved) == list(range(1, WRITERS * TIMES + 1))
    assert adds_one_marker_per_version(histories[key])
    last = histories[key][-1] or {}
    assert sum(len(markers) for markers in last.values()) == WRITERS * TIMES


async def test_32_first_saves_of_one_key_are_all_stored(tmp_path: Path, database: str | None) -> None:
    with run_service(tmp_path, "--workers", "2", database=database) as service:
        async with service.async_client(service.add_admin()) as client:
            for number in range(5):
                key = ConfigKey("acme", f"type{number}")
                replies = await asyncio.gather(*(merge_marker(client, key, f"w{n}", "m") for n in range(32)))
                assert {reply.status_code for reply in replies} == {200}
                created = [reply for reply in replies if reply.json()["message"].endswith("is created")]
                assert len(created) == 1
                params = {"tenant": key.tenant, "integration_type": key.integration_type}
                document = (await client.get("/config", params=params, headers=BYPASS_CACHE)).json()
                assert len(document["configuration"]) == 32


async def test_one_of_32_writers_with_the_same_tag_succeeds_at_any_worker(tmp_path: Path, database: str | None) -> None:
    key = ConfigKey("acme", TYPE)
    with run_service(tmp_path, "--workers", "2", database=database) as service:
        async with service.async_client(service.add_admin()) as client:
            await merge_marker(client, key, "first", "m")
            for version in range(1, 11):
                tag = f'"{version}"'
                tries = (merge_marker(client, key, f"w{n}", f"m{version}", tag=tag) for n in range(32))
                statuses = sorted(reply.status_code for reply in await asyncio.gather(*tries))
                assert statuses == [200] + [412] * 31
