"""The search for secrets finds each of them in every encoding, and each deliberate leak."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from confide.identity import token_format
from support import canaries
from support.canaries import SKIPPED_FOLDER, make_canary
from support.postgres import LocalPostgresServer, execute_sql
from support.processes import FAULTY_SERVICE, run_service

WRITTEN: dict[str, Callable[[str], bytes]] = {
    "plain": lambda text: text.encode(),
    "hex": lambda text: text.encode().hex().encode(),
    "HEX": lambda text: text.encode().hex().upper().encode(),
    "utf-16": lambda text: text.encode("utf-16-le"),
    "json": lambda text: json.dumps({"a": [text]}).encode(),
    "url": lambda text: urllib.parse.quote("a b" + text).encode(),
    "every byte in the url": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()).encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64, one byte later": lambda text: base64.b64encode(b"x" + text.encode()),
    "base64, two bytes later": lambda text: base64.b64encode(b"xy" + text.encode()),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(text.encode()),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_secret_in_a_file_is_found(tmp_path: Path, how: str) -> None:
    folder = tmp_path / SKIPPED_FOLDER
    folder.mkdir()
    (folder / "service.log").write_bytes(b"before " + WRITTEN[how](make_canary("value")) + b" after")
    size, found = canaries.search(folder.iterdir())
    assert size > 0
    assert len(found) == 1


def test_a_token_in_a_file_is_found_and_ordinary_bytes_are_not(tmp_path: Path) -> None:
    folder = tmp_path / SKIPPED_FOLDER
    folder.mkdir()
    (folder / "one.log").write_text(f"token={token_format.generate_token()}&x")
    (folder / "two.log").write_text("nothing here but a config, a password and a token by name")
    assert len(canaries.search(folder.iterdir())[1]) == 1


def test_a_service_that_logs_a_body_is_caught(tmp_path: Path) -> None:
    """A deliberate fault of the whole search: one real process logs request bodies."""
    with run_service(tmp_path / SKIPPED_FOLDER, program=FAULTY_SERVICE, env={"FAULT": "log-bodies"}) as service:
        token = service.add_admin()
        with service.client(token) as client:
            document = {
                "tenant": "acme",
                "integration_type": "crm",
                "configuration": {"password": make_canary("value")},
            }
            assert client.post("/config", json=document).status_code == 200
    _, found = canaries.search([service.log])
    assert found
    _, elsewhere = canaries.search(service.data.iterdir())
    assert elsewhere == []


def test_a_secret_in_a_database_is_found_before_it_is_dropped() -> None:
    server = LocalPostgresServer()
    server.start()
    try:
        for row in ("nothing to see", canaries.make_canary("row")):
            url = server.new_database()
            asyncio.run(execute_sql(url, f"CREATE TABLE kept AS SELECT '{row}' AS body"))
        server.drop_databases(above=2)
        assert any("/base/" in place for place in server.leaks)
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            asyncio.run(execute_sql(url, "SELECT 1"))
    finally:
        server.remove()
