"""Run the service of an earlier commit, to measure the cost of a change."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running import find_free_port, run_program
from seeds import Seeded

from confide.server.settings import Settings

ROOT = Path(__file__).parents[2]
# The code of the earlier commit runs it, with its own schema.
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


def check_out(commit: str, folder: Path) -> Path:
    """Check out a commit with an environment for its requirements. Return the folder."""
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
        _find_python(tree),
        "--no-deps",
        "-r",
        tree / "requirements.txt",
    ]
    subprocess.run(install, check=True)
    return tree


def _find_python(tree: Path) -> str:
    """Return the interpreter of a tree."""
    return sys.executable if tree == ROOT else str(tree / ".venv" / "bin" / "python")


def fill_store(tree: Path, data: Path, database: str | None, count: int) -> Seeded:
    """Fill a database with the code of a tree."""
    command = [_find_python(tree), "-c", SEED, str(tree), str(data), database or "", str(count)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    reader, admin, login, password = json.loads(output.splitlines()[-1])
    settings = Settings(data=data, database=database, unsafe_durability=True)
    return Seeded(settings, reader, admin, login, password)


@contextmanager
def run_tree(tree: Path, folder: Path, seeded: Seeded) -> Iterator[tuple[int, int]]:
    """Run the durable service of a tree on its database. Yield the process ID and the port."""
    port = find_free_port()
    command = [_find_python(tree), "-m", "confide", "serve", "--port", str(port), "--data", str(seeded.settings.data)]
    env = {"PYTHONPATH": str(tree / "src")}
    if seeded.settings.database is not None:
        env["CONFIDE_DATABASE"] = seeded.settings.database.get_secret_value()
    with run_program(command, port=port, log=folder / f"{tree.name}.log", env=env) as pid:
        yield pid, port
