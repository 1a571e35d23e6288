"""The code of the release before: the newest commit with an earlier schema."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIGRATIONS = "src/confide/database/migrations/sqlite"


def check_out_earlier_source(folder: Path) -> Path:
    """Unpack the source of the newest commit whose schema is earlier than the current one. Return its folder.

    The caller runs it with the dependencies of today. Fails the test if the repository has no such commit, because CI
    and developers have its history.
    """
    newest = max(path.name for path in (ROOT / MIGRATIONS).glob("*.sql"))
    added = _run_git("log", "--diff-filter=A", "--format=%H", "--", f"{MIGRATIONS}/{newest}").decode().split()
    # A migration that is not committed yet: the earlier schema is that of the last commit.
    commit = f"{added[-1]}^" if added else "HEAD"
    packed = _run_git("archive", commit, "src")
    folder.mkdir()
    subprocess.run(["tar", "--extract", "--directory", folder], input=packed, check=True)
    assert not (folder / MIGRATIONS / newest).exists()
    return folder / "src"


def _run_git(*args: str) -> bytes:
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.fail(f"The earlier release needs the history of the repository: {done.stderr.decode()}")
    return done.stdout
