"""Rotation of the master key while reads and saves continue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from support.app import TYPE
from support.processes import run_confide, run_service
from support.waiting import wait_until_async


async def save_and_read(
    client: httpx2.AsyncClient, number: int, statuses: list[int], *, until: Callable[[], bool]
) -> None:
    """Save into new tenants, which need new data keys, and read them back."""
    turn = 0
    while not until():
        tenant = f"tenant{number}-{turn}"
        document = {"tenant": tenant, "integration_type": TYPE, "configuration": {"turn": turn}}
        statuses.append((await client.post("/config", json=document)).status_code)
        params = {"tenant": f"tenant{number}-{turn // 2}", "integration_type": TYPE}
        statuses.append((await client.get("/config", params=params)).status_code)
        turn += 1
        await asyncio.sleep(0.01)


async def wait_for_statuses(statuses: list[int], count: int) -> None:
    """Wait for that many more responses."""
    enough = len(statuses) + count
    await wait_until_async(lambda: len(statuses) >= enough, f"{count} responses")


async def test_rotating_the_master_key_fails_no_read_and_no_save(tmp_path: Path, database: str | None) -> None:
    env = {} if database is None else {"CONFIDE_DATABASE": database}
    with run_service(tmp_path, "--workers", "2", database=database) as service:
        token = service.add_admin()
        stop = asyncio.Event()
        async with service.async_client(token) as client:
            statuses: list[int] = []
            working = [
                asyncio.create_task(save_and_read(client, number, statuses, until=stop.is_set)) for number in range(4)
            ]
            for _ in range(2):
                await wait_for_statuses(statuses, 40)
                done = await asyncio.to_thread(run_confide, "keys", "rotate", cwd=tmp_path, env=env)
                assert done.returncode == 0, done.stderr
            await wait_for_statuses(statuses, 40)
            stop.set()
            await asyncio.gather(*working)
        assert set(statuses) == {200}
        path = service.data / "master.keys"
        lines = path.read_text().splitlines()
        assert len(lines) == 3
        assert path.stat().st_mode & 0o777 == 0o600
        service.stop()
        # No data key is wrapped with the earlier keys any more.
        path.write_text(lines[-1] + "\n")
        service.start()
        with service.client(token) as http:
            seen: Any = http.get("/configs", params={"limit": "1000"}).json()["configs"]
            for line in seen[:50]:
                params = {"tenant": line["tenant"], "integration_type": TYPE}
                assert http.get("/config", params=params).status_code == 200


def test_a_prepared_key_wraps_nothing_until_it_is_on_every_machine(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        service.add_admin()
        prepared = run_confide("keys", "rotate", "--prepare", cwd=tmp_path)
        assert "Copy the file to every machine" in prepared.stdout
        assert "has a prepared" in run_confide("keys", "rotate", "--prepare", cwd=tmp_path).stdout
        path = service.data / "master.keys"
        old, _ = path.read_text().splitlines()
        # The data key of a new tenant is still wrapped with the key that every machine has.
        with service.client(service.login()) as client:
            document = {"tenant": "new", "integration_type": "crm", "configuration": {}}
            assert client.post("/config", json=document).status_code == 200
        elsewhere = run_confide("migrate", cwd=tmp_path, env={"CONFIDE_MASTER_KEYS": old})
        assert elsewhere.returncode == 0
        with (
            run_service(
                tmp_path / "other",
                database=f"sqlite:///{service.data / 'confide.db'}",
                env={"CONFIDE_MASTER_KEYS": old},
            ) as other,
            other.client(other.login()) as client,
        ):
            params = {"tenant": "new", "integration_type": "crm"}
            assert client.get("/config", params=params).status_code == 200
        done = run_confide("keys", "rotate", cwd=tmp_path)
        assert done.stdout.startswith("5 keys are now wrapped")
        assert len(path.read_text().splitlines()) == 2


async def test_concurrent_rotations_lose_no_key(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        service.add_admin()
        first = (service.data / "master.keys").read_text()
        commands = [asyncio.to_thread(run_confide, "keys", "rotate", cwd=tmp_path) for _ in range(3)]
        assert [done.returncode for done in await asyncio.gather(*commands)] == [0, 0, 0]
        text = (service.data / "master.keys").read_text()
        assert text.startswith(first)
        assert len(text.splitlines()) == 4
        assert not list(service.data.glob("*.new"))


def test_master_keys_in_a_variable_are_used_without_a_file(tmp_path: Path) -> None:
    old, new = f"{'11' * 16} {'A' * 43}=", f"{'22' * 16} {'B' * 42}A="
    with run_service(tmp_path, env={"CONFIDE_MASTER_KEYS": old}) as service:
        service.add_admin()
        assert not (service.data / "master.keys").exists()
    done = run_confide("keys", "rotate", cwd=tmp_path, env={"CONFIDE_MASTER_KEYS": f"{old},{new}"})
    assert done.stdout.startswith("4 keys are now wrapped"), done.stderr
    with run_service(tmp_path, env={"CONFIDE_MASTER_KEYS": new}) as service:
        service.login()
