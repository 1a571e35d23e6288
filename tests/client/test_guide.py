"""The programs in the guide for the Python client work as the page says."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from confide.client import Client
from support.processes import build_environment, run_service

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-the-python-client.md"
INDENTED_BLOCK = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)


def find_block(part: str) -> str:
    """Return the indented block of the page that contains a text."""
    (block,) = [block for block in INDENTED_BLOCK.findall(PAGE.read_text()) if part in block]
    return textwrap.dedent(str(block)).strip() + "\n"


def test_the_first_program_prints_what_the_page_shows(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        program = find_block("import os").replace("http://127.0.0.1:8080", service.url)
        env = build_environment(CONFIDE_TOKEN=service.add_admin())
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (find_block("404 not-found"), "")


def test_a_follower_gets_each_change_also_after_a_restart_of_the_service(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(find_block("def follow"), names)  # noqa: S102 - the program of the page
    with run_service(tmp_path) as service, Client(service.url, token=service.add_admin()) as client:
        client.save("acme", "crm", {"n": 0})
        configurations = names["follow"](client, "acme", "crm")
        assert next(configurations) == {"n": 0}
        client.save("acme", "crm", {"n": 1})
        assert next(configurations) == {"n": 1}
        service.end()
        service.start()
        client.save("acme", "crm", {"n": 2})
        assert next(configurations) == {"n": 2}
