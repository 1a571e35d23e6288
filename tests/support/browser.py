"""Render pages in a headless Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

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


class RenderedPage(NamedTuple):
    """A page after its scripts ran, and their console messages."""

    text: str
    console: list[str]


def find_chromium() -> str:
    """Find the browser. Without it, skip the test, or fail in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing, and CI must have it")
        pytest.skip("Chromium is not installed: apt-get install chromium")
    return found


def render_page(address: str, profile: Path) -> RenderedPage:
    command = [
        find_chromium(),
        *FLAGS,
        f"--user-data-dir={profile}",
        "--virtual-time-budget=10000",
        "--dump-dom",
        address,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    return RenderedPage(done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line])
