"""The service conforms to its OpenAPI document: schemathesis generates requests, on both engines."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

from support.processes import run_service

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "ignored_auth,unsupported_method"
)


# The short run has a fixed seed. The long run has a random one.
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize(("examples", "seed"), [(25, ["--seed=4"]), pytest.param(1_000, [], marks=pytest.mark.long)])
def test_no_generated_request_gets_an_undocumented_response(
    tmp_path: Path, database: str | None, examples: int, seed: list[str]
) -> None:
    with run_service(tmp_path, database=database) as service:
        token = service.add_admin()
        command = [
            str(Path(sysconfig.get_path("scripts")) / "schemathesis"),
            "run",
            f"{service.url}/openapi.json",
            f"--header=Authorization: Bearer {token}",
            # These routes would revoke the token of the test.
            "--exclude-path-regex=^/(logout|users/me/password|tokens/|login|watch)",
            f"--max-examples={examples}",
            f"--checks={CHECKS}",
            "--mode=all",
            "--no-color",
            *seed,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2_900, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6_000:].replace(token, "…")
