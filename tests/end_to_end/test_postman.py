"""The Postman collection matches the OpenAPI document, and newman runs it against a real service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import run_service

ROOT = Path(__file__).parents[2]
FILE = ROOT / "confide.postman_collection.json"


def find_newman() -> str:
    """Find the program. Without it, skip the test, or fail in CI."""
    local = ROOT / ".make" / "npm" / "node_modules" / ".bin" / "newman"
    found = str(local) if local.exists() else shutil.which("newman")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("newman is missing, and CI must have it")
        pytest.skip("newman is not installed: npm install --prefix .make/npm newman")
    return found


def test_the_collection_matches_the_openapi_document() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from make_postman import build_collection  # noqa: PLC0415 - a tool, not a package
    finally:
        sys.path.pop(0)
    assert json.loads(FILE.read_text()) == build_collection()


def test_newman_passes(tmp_path: Path, database: str | None) -> None:
    program = find_newman()
    with run_service(tmp_path, database=database) as service:
        command = [program, "run", str(FILE), "--env-var", f"base_url={service.url}", "--bail", "--color", "off"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr
    assert "21" in done.stdout


def test_newman_fails_for_an_unexpected_response(tmp_path: Path) -> None:
    program = find_newman()
    broken = FILE.read_text().replace("is updated", "is reversed")
    collection = tmp_path / "broken.json"
    collection.write_text(broken)
    with run_service(tmp_path / "service") as service:
        command = [program, "run", str(collection), "--env-var", f"base_url={service.url}", "--color", "off"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 1
