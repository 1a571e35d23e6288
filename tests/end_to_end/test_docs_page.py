"""The documentation page in a real browser needs no other host."""

from __future__ import annotations

import re
from pathlib import Path

from support.browser import render_page
from support.processes import run_service


def test_the_page_shows_every_route_and_loads_only_local_files(tmp_path: Path) -> None:
    with run_service(tmp_path) as service, service.client() as client:
        page = render_page(f"{service.url}/docs", tmp_path / "profile")
        document = client.get("/openapi.json").json()
        log = service.log.read_text()
    for path in document["paths"]:
        assert f'data-path="{path}"' in page.text, path
    assert page.console == []
    loaded = set(re.findall(r'"path": "([^"]+)"', log))
    assert {"/docs", "/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css", "/openapi.json"} <= loaded


def test_no_page_names_another_host(tmp_path: Path) -> None:
    with run_service(tmp_path) as service, service.client() as client:
        for path in ("/docs", "/docs/assets/docs.js", "/docs/errors"):
            reply = client.get(path)
            assert not re.search(rb"(?:src|href|url)\s*[=:(]\s*[\"']?(?:https?:)?//", reply.content), path
            assert reply.headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self'" in client.get("/docs").headers["content-security-policy"]
        assert client.get("/docs/assets/../app.py").status_code == 404
        assert client.get("/docs/assets/README.md").status_code == 404
