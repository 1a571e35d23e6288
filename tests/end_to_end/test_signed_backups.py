"""A backup is authenticated as a whole, and a restore shows who can use what it brings back."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.app import ADMIN, build_settings, start_app
from support.processes import run_confide

Lines = list[bytes]


@pytest.fixture
async def backup(tmp_path: Path, database: str | None) -> Path:
    """Return the backup of a store with an admin, a revoked and a live token, and one config."""
    folder = tmp_path / "original" / "confide-data"
    async with start_app(build_settings(folder, database)) as app:
        admin = await app.create_token("root", *ADMIN, token_grants=ADMIN)
        revoked = await app.create_token("root", token_grants=ADMIN)
        principal = await app.process.identity.tokens.authenticate(revoked)
        await app.process.identity.tokens.revoke(principal.token_id, principal=await app.load_principal("ada", *ADMIN))
        await app.save(admin, {"n": 1})
    run(folder.parent, database, "backup", "../backup")
    return tmp_path / "backup"


def run(folder: Path, database: str | None, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = {"CONFIDE_UNSAFE_DURABILITY": "true", **({} if database is None else {"CONFIDE_DATABASE": database})}
    done = run_confide(*args, cwd=folder, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def prepare_restore(backup: Path) -> Path:
    data = backup.with_name("restored") / "confide-data"
    data.mkdir(parents=True)
    keys = backup.with_name("original") / "confide-data" / "master.keys"
    (data / "master.keys").write_bytes(keys.read_bytes())
    return data


def rewrite(backup: Path, change: Callable[[Lines], None]) -> None:
    """Change the lines of a backup, and compute its checksum again, as an attacker can."""
    lines = gzip.decompress(backup.read_bytes()).splitlines(keepends=True)
    change(lines)
    end = json.loads(lines[-1])
    end.update(rows=len(lines) - 2, sha256=hashlib.sha256(b"".join(lines[1:-1])).hexdigest())
    lines[-1] = format_line(end)
    backup.write_bytes(gzip.compress(b"".join(lines)))


def format_line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def add_config(lines: Lines) -> None:
    """Copy a row of a table that has no signatures of its own."""
    number = next(number for number, line in enumerate(lines) if line.startswith(b'["replays"') or b'["audit"' in line)
    lines.insert(number, lines[number])


def change_header(lines: Lines) -> None:
    lines[0] = format_line({**json.loads(lines[0]), "id": "AAAAAAAAAAAAAAAAAAAAAA=="})


def remove_mac(lines: Lines) -> None:
    end = json.loads(lines[-1])
    del end["mac"]
    lines[-1] = format_line(end)


def pretend_to_be_unsigned(lines: Lines) -> None:
    header = json.loads(lines[0])
    lines[0] = format_line({"confide": "backup", "format": 1, "schema": header["schema"]})
    remove_mac(lines)


@pytest.mark.parametrize(
    ("change", "code"), [(add_config, 8), (remove_mac, 8), (change_header, 5)], ids=["row", "mac", "header"]
)
def test_a_changed_backup_is_refused(backup: Path, change: Callable[[Lines], None], code: int) -> None:
    rewrite(backup, change)
    data = prepare_restore(backup)
    refused = run(data.parent, None, "restore", str(backup), code=code)
    assert "rows restored" not in refused.stdout
    assert not (data / "confide.db").exists()


async def test_a_restore_lists_the_users_and_live_tokens_and_the_service_starts(
    backup: Path, database: str | None
) -> None:
    data = prepare_restore(backup)
    restored = run(data.parent, None, "restore", str(backup)).stdout
    assert "2 users, 2 of them admins; 1 live tokens." in restored
    assert "not signed" not in restored
    async with start_app(build_settings(data, None)) as app:
        assert app.process.stores.rows.is_enforced


async def test_a_backup_whose_mac_was_removed_needs_a_review(backup: Path) -> None:
    rewrite(backup, pretend_to_be_unsigned)
    data = prepare_restore(backup)
    assert "store sign --reviewed" in run(data.parent, None, "restore", str(backup)).stdout
    refused = run(data.parent, None, "serve", "--port", "0", code=11)
    assert "store sign" in refused.stderr
    listed = run(data.parent, None, "store", "sign").stdout
    assert "root" in listed
    assert "Nothing was signed." in listed
    run(data.parent, None, "serve", "--port", "0", code=11)
    assert "The store is signed." in run(data.parent, None, "store", "sign", "--reviewed").stdout
    async with start_app(build_settings(data, None)) as app:
        assert app.process.stores.rows.is_enforced


def test_a_backup_cannot_be_restored_without_the_master_keys_that_verify_it(backup: Path) -> None:
    data = prepare_restore(backup)
    (data / "master.keys").unlink()
    refused = run(data.parent, None, "restore", str(backup), code=5)
    assert "master.keys" in refused.stderr
    assert not (data / "confide.db").exists()
