"""The documentation page in a real browser: drawn from what lies here, without a word to anybody else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.processes import running

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
)


def chromium() -> str:
    """The browser, or a loud skip; in CI it must be there."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing, and CI must have it")
        pytest.skip("Chromium is not installed: apt-get install chromium")
    return found


def test_the_page_draws_every_route_and_asks_nobody_else(tmp_path: Path) -> None:
    program = chromium()
    with running(tmp_path) as service, service.client() as client:
        command = [program, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000"]
        done = subprocess.run(
            [*command, "--dump-dom", f"{service.url}/docs"], capture_output=True, text=True, timeout=100, check=False
        )
        document = client.get("/openapi.json").json()
        log = service.log.read_text()
    for path in document["paths"]:
        assert f'data-path="{path}"' in done.stdout, path
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert console == []
    loaded = set(re.findall(r'"path": "([^"]+)"', log))
    assert {"/docs", "/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css", "/openapi.json"} <= loaded


def test_nothing_that_is_served_names_another_host(tmp_path: Path) -> None:
    with running(tmp_path) as service, service.client() as client:
        for path in ("/docs", "/docs/assets/docs.js", "/docs/errors"):
            reply = client.get(path)
            assert not re.search(rb"(?:src|href|url)\s*[=:(]\s*[\"']?(?:https?:)?//", reply.content), path
            assert reply.headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self'" in client.get("/docs").headers["content-security-policy"]
        assert client.get("/docs/assets/../app.py").status_code == 404
        assert client.get("/docs/assets/README.md").status_code == 404
