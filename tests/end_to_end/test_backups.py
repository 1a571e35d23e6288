"""Backups under load can be restored, and each holds a prefix of the history."""

from __future__ import annotations

import asyncio
from pathlib import Path

from confide.clock import MICROSECONDS_PER_SECOND
from confide.names import ConfigKey
from confide.server.wiring import open_process
from support.app import TYPE, build_settings
from support.histories import load_histories
from support.postgres import PostgresServer
from support.processes import Service, run_confide, run_service
from support.writers import merge_markers

BACKUPS = 10
WRITERS = 4


async def make_backups(service: Service, database: str | None) -> list[Path]:
    files = []
    for number in range(BACKUPS):
        file = service.folder / f"backup{number}"
        env = {} if database is None else {"CONFIDE_DATABASE": database}
        done = await asyncio.to_thread(run_confide, "backup", str(file), cwd=service.folder, env=env)
        assert done.returncode == 0, done.stderr
        assert "master keys are not in it" in done.stdout
        files.append(file)
    return files


async def is_prefix(data: Path, database: str | None, other: Path, other_database: str | None) -> bool:
    """Return whether the restored database holds every change from clearly before its last one."""
    whole, part = await load_save_times(data, database), await load_save_times(other, other_database)
    # Workers set the time before they commit. A save takes at most 2 s, so older ones were committed.
    last = max(part.values()) - 2 * MICROSECONDS_PER_SECOND
    return part.keys() <= whole.keys() and all(key in part for key, saved_at in whole.items() if saved_at < last)


async def load_save_times(data: Path, database: str | None) -> dict[tuple[str, str, int], int]:
    async with open_process(build_settings(data, database)) as process:
        rows = [row async for table, row in process.stores.database.dump() if table == "changes" and row[2] is not None]
    return {(row[2], row[3], row[4]): row[9] for row in rows}


async def test_ten_backups_under_load_are_prefixes_of_history(
    tmp_path: Path, database: str | None, engine: str, postgres: PostgresServer
) -> None:
    with run_service(tmp_path / "running", "--workers", "2", database=database) as service:
        token = service.add_admin()
        async with service.async_client(token) as client:
            keys = [ConfigKey("acme", f"{TYPE}{number}") for number in range(WRITERS)]
            writing = [
                asyncio.create_task(merge_markers(client, key, "w", times=1_900, pause_seconds=0.03)) for key in keys
            ]
            files = await make_backups(service, database)
            for task in writing:
                task.cancel()
            await asyncio.gather(*writing, return_exceptions=True)
        whole = await load_histories(service.data, database)
    master_keys = (service.data / "master.keys").read_bytes()
    sizes = []
    for number, file in enumerate(files):
        assert file.stat().st_mode & 0o777 == 0o600
        assert master_keys not in file.read_bytes()
        folder = tmp_path / f"restored{number}"
        (folder / "confide-data").mkdir(parents=True)
        (folder / "confide-data" / "master.keys").write_bytes(master_keys)
        url = postgres.new_database() if engine == "postgresql" else None
        env = {} if url is None else {"CONFIDE_DATABASE": url}
        done = run_confide("restore", str(file), cwd=folder, env=env)
        assert done.returncode == 0, done.stderr
        found = await load_histories(folder / "confide-data", url)
        assert all(whole[key][: len(history)] == history for key, history in found.items())
        assert await is_prefix(service.data, database, folder / "confide-data", url)
        sizes.append(sum(map(len, found.values())))
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]
    assert sum(map(len, whole.values())) >= sizes[-1]
