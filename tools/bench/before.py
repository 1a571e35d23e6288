"""The same service as it was at an earlier commit, beside the one of now: what a change costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running import free_port, running
from seeds import Seeded

from confide.server.settings import Settings

ROOT = Path(__file__).parents[2]
# Run by the code of then, whose schema is its own.
SEED = """
import asyncio, json, sys
sys.path[:0] = [f"{sys.argv[1]}/{part}" for part in ("src", "tests", "tools/bench")]
from pathlib import Path
try:
    from confide.server.settings import Settings
except ImportError:  # before the packages were named for features
    from confide.settings import Settings
from seeds import seed
settings = Settings(data=Path(sys.argv[2]), database=sys.argv[3] or None, unsafe_durability=True)
made = asyncio.run(seed(settings, int(sys.argv[4])))
print(json.dumps([made.reader, made.admin, made.login, made.password]))
"""


def checked_out(commit: str, folder: Path) -> Path:
    """Return the tree of a commit, beside an environment with the requirements of that commit."""
    tree = folder / f"tree-{commit}"
    tree.mkdir()
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], input=packed, check=True)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tree / ".venv"], check=True)
    install: list[str | Path] = [
        uv,
        "pip",
        "install",
        "-q",
        "--python",
        _python(tree),
        "--no-deps",
        "-r",
        tree / "requirements.txt",
    ]
    subprocess.run(install, check=True)
    return tree


def _python(tree: Path) -> str:
    """Return the interpreter of a tree; that of this run is its own."""
    return sys.executable if tree == ROOT else str(tree / ".venv" / "bin" / "python")


def filled(tree: Path, data: Path, database: str | None, count: int) -> Seeded:
    """A store filled by the code of a tree."""
    command = [_python(tree), "-c", SEED, str(tree), str(data), database or "", str(count)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    reader, admin, login, password = json.loads(said.splitlines()[-1])
    settings = Settings(data=data, database=database, unsafe_durability=True)
    return Seeded(settings, reader, admin, login, password)


@contextmanager
def serving(tree: Path, folder: Path, seeded: Seeded) -> Iterator[tuple[int, int]]:
    """The service of a tree on a store that it filled, waiting for the disk; yields process id and port."""
    port = free_port()
    command = [_python(tree), "-m", "confide", "serve", "--port", str(port), "--data", str(seeded.settings.data)]
    env = {"PYTHONPATH": str(tree / "src")}
    if seeded.settings.database is not None:
        env["CONFIDE_DATABASE"] = seeded.settings.database.get_secret_value()
    with running(command, port=port, log=folder / f"{tree.name}.log", env=env) as pid:
        yield pid, port
