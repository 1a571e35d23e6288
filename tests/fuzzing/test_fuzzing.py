"""Parsers of what clients, servers and the database send withstand a coverage-guided fuzzer."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.fuzz_targets import FAULTY_TARGET, TARGETS

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
MAX_CORPUS_BYTES = 200 * 1024
# All targets together take ten minutes.
SECONDS = 600 // len(TARGETS)

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None and not os.environ.get("CI"),
    reason="atheris has no wheel for this platform",
)


def list_inputs(target: str) -> list[Path]:
    return sorted((CORPUS / target).iterdir())


def fuzz(target: str, folder: Path, *options: str, timeout_seconds: int) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer on a copy of the corpus. What it finds stays in the folder."""
    kept = CORPUS / target
    corpus = folder / "corpus"
    if kept.exists():
        shutil.copytree(kept, corpus)
    corpus.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "support.fuzzing", target, *options, "-rss_limit_mb=2048", str(corpus)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout_seconds, cwd=folder, env=environment
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_kept_input_is_handled(target: str) -> None:
    inputs = list_inputs(target)
    assert inputs
    for path in inputs:
        TARGETS[target](path.read_bytes())


def test_the_kept_corpus_is_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for target in TARGETS for path in list_inputs(target)) <= MAX_CORPUS_BYTES


@needs_atheris
def test_the_fuzzer_finds_a_deliberate_fault(tmp_path: Path) -> None:
    done = fuzz(FAULTY_TARGET.__name__, tmp_path, "-seed=1", "-max_total_time=100", timeout_seconds=110)
    assert done.returncode != 0
    assert "the deliberate fault was found" in done.stdout + done.stderr
    assert [path for path in tmp_path.iterdir() if path.name.startswith("crash-")]


@needs_atheris
@pytest.mark.long
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("target", TARGETS)
def test_the_fuzzer_finds_no_fault(tmp_path: Path, target: str) -> None:
    done = fuzz(
        target, tmp_path, f"-max_total_time={SECONDS}", "-timeout=30", "-max_len=8192", timeout_seconds=SECONDS + 240
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    # Only a run that covers code has fuzzed the target.
    assert "cov: " in done.stderr
