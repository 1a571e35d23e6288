"""A new master key while reads and saves go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2

from support.app import TYPE
from support.processes import run_confide, run_service


async def busy(client: httpx2.AsyncClient, number: int, stop: asyncio.Event) -> list[int]:
    """Save into ever new tenants, which need new keys, and read them back."""
    statuses = []
    turn = 0
    while not stop.is_set():
        tenant = f"tenant{number}-{turn}"
        document = {"tenant": tenant, "integration_type": TYPE, "configuration": {"turn": turn}}
        statuses.append((await client.post("/config", json=document)).status_code)
        params = {"tenant": f"tenant{number}-{turn // 2}", "integration_type": TYPE}
        statuses.append((await client.get("/config", params=params)).status_code)
        turn += 1
        await asyncio.sleep(0.01)
    return statuses


async def test_rotating_the_master_key_fails_no_read_and_no_save(tmp_path: Path, database: str | None) -> None:
    env = {} if database is None else {"CONFIDE_DATABASE": database}
    with run_service(tmp_path, "--workers", "2", database=database) as service:
        token = service.add_admin()
        stop = asyncio.Event()
        async with service.async_client(token) as client:
            working = [asyncio.create_task(busy(client, number, stop)) for number in range(4)]
            await asyncio.sleep(0.5)
            for _ in range(2):
                done = await asyncio.to_thread(run_confide, "keys", "rotate", cwd=tmp_path, env=env)
                assert done.returncode == 0, done.stderr
            await asyncio.sleep(0.3)
            stop.set()
            statuses = [status for task in working for status in await task]
        assert set(statuses) == {200}
        assert len(statuses) > 100
        path = service.data / "master.keys"
        lines = path.read_text().splitlines()
        assert len(lines) == 3
        assert path.stat().st_mode & 0o777 == 0o600
        service.stop()
        # The earlier ones open nothing any more.
        path.write_text(lines[-1] + "\n")
        service.start()
        with service.client(token) as http:
            seen: Any = http.get("/configs", params={"limit": "1000"}).json()["configs"]
            for line in seen[:50]:
                params = {"tenant": line["tenant"], "integration_type": TYPE}
                assert http.get("/config", params=params).status_code == 200


def test_a_key_is_prepared_for_other_machines_before_it_wraps_anything(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        service.add_admin()
        prepared = run_confide("keys", "rotate", "--prepare", cwd=tmp_path)
        assert "Copy the file to every machine" in prepared.stdout
        assert "has a prepared" in run_confide("keys", "rotate", "--prepare", cwd=tmp_path).stdout
        path = service.data / "master.keys"
        old, _ = path.read_text().splitlines()
        # A tenant that comes in between is sealed under the key that every machine has.
        with service.client(service.login()) as client:
            document = {"tenant": "new", "integration_type": "crm", "configuration": {}}
            assert client.post("/config", json=document).status_code == 200
        elsewhere = run_confide("migrate", cwd=tmp_path, env={"CONFIDE_MASTER_KEYS": old})
        assert elsewhere.returncode == 0
        with (
            run_service(
                tmp_path / "other", database=f"sqlite:///{service.data / 'confide.db'}", env=other_ring(old)
            ) as other,
            other.client(other.login()) as client,
        ):
            params = {"tenant": "new", "integration_type": "crm"}
            assert client.get("/config", params=params).status_code == 200
        done = run_confide("keys", "rotate", cwd=tmp_path)
        assert done.stdout.startswith("4 keys are now wrapped")
        assert len(path.read_text().splitlines()) == 2


def other_ring(ring: str) -> dict[str, str]:
    return {"CONFIDE_MASTER_KEYS": ring}


async def test_rotations_at_once_lose_no_key(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        service.add_admin()
        first = (service.data / "master.keys").read_text()
        commands = [asyncio.to_thread(run_confide, "keys", "rotate", cwd=tmp_path) for _ in range(3)]
        assert [done.returncode for done in await asyncio.gather(*commands)] == [0, 0, 0]
        text = (service.data / "master.keys").read_text()
        assert text.startswith(first)
        assert len(text.splitlines()) == 4
        assert not list(service.data.glob("*.new"))


def test_a_ring_in_a_variable_is_used_as_it_is(tmp_path: Path) -> None:
    old, new = f"{'11' * 16} {'A' * 43}=", f"{'22' * 16} {'B' * 42}A="
    with run_service(tmp_path, env={"CONFIDE_MASTER_KEYS": old}) as service:
        service.add_admin()
        assert not (service.data / "master.keys").exists()
    done = run_confide("keys", "rotate", cwd=tmp_path, env={"CONFIDE_MASTER_KEYS": f"{old},{new}"})
    assert done.stdout.startswith("3 keys are now wrapped"), done.stderr
    with run_service(tmp_path, env={"CONFIDE_MASTER_KEYS": new}) as service:
        service.login()
