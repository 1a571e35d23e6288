"""Run the terminal sessions that the documentation shows, and compare what they print."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.processes import build_environment

MAX_SECONDS = 60
# What differs from run to run: times, epochs, token values and paths of the reader's home.
_VARYING = (
    (r"\b\d{4}-\d{2}-\d{2}T[\d:.]+Z", "TIME"),
    (r"\b[0-9a-f]{16}(?=\.\d)", "EPOCH"),
    (r"\bcfd_\S+", "TOKEN"),
    (r"/\S+/token\.json", "TOKEN_FILE"),
    (r"\b[0-9a-f]{64}\b", "PUBLIC_KEY"),
)
_PROMPT = re.compile(r"(?:New password of|Password of|Repeat the password)[^:]*:$")
_INTERRUPT = "^C"
# The shell variables between two steps.
_STATE = ".session-state"
# Lists that the server completes within seconds of the change that they show.
_EVENTUAL = re.compile(r"\bconfide (?:audit list|config usage|config list)\b")


@dataclass(frozen=True)
class Step:
    """One command of a session, and the lines that the page prints below it."""

    command: str
    printed: tuple[str, ...]

    @property
    def is_interrupted(self) -> bool:
        return _INTERRUPT in self.printed


def read_session(page: str) -> list[Step]:
    """Return the steps of the indented blocks of a page: lines after `$` and their output."""
    commands: list[str] = []
    outputs: list[list[str]] = []
    is_in_session = False
    for line in page.splitlines():
        text = line[4:].rstrip()
        if line and not line.startswith("    "):
            is_in_session = False
        elif text.startswith("$ "):
            is_in_session = True
            commands.append(text[2:])
            outputs.append([])
        elif is_in_session and not _is_complete(commands[-1]):
            commands[-1] += "\n" + text
        elif is_in_session and text:
            outputs[-1].append(text)
    return [Step(command, tuple(output)) for command, output in zip(commands, outputs, strict=True)]


def _is_complete(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:  # an open quote
        return False
    return True


def normalize(lines: Sequence[str]) -> list[str]:
    """Replace what differs from run to run; drop prompts, which a pipe does not show, and empty lines."""
    found = []
    for line in lines:
        for pattern, name in _VARYING:
            line = re.sub(pattern, name, line)  # noqa: PLW2901 - one replacement after the other
        if line.strip() and line != _INTERRUPT and not _PROMPT.fullmatch(line):
            found.append(line.rstrip())
    return found


def run_session(steps: Sequence[Step], *, folder: Path, password: str, port: int) -> Iterator[tuple[Step, list[str]]]:
    """Run each step in a shell that keeps variables from step to step; yield it with the lines that it printed."""
    variables = build_environment(HOME=str(folder / "home"), CONFIDE_URL=f"http://127.0.0.1:{port}")
    variables.pop("XDG_CONFIG_HOME", None)
    try:
        for step in steps:
            yield step, _run_until_expected(step, folder=folder, password=password, port=port, variables=variables)
    finally:
        (folder / _STATE).unlink(missing_ok=True)  # it holds the tokens of the session


def _run_until_expected(step: Step, *, folder: Path, password: str, port: int, variables: dict[str, str]) -> list[str]:
    """Run a step; repeat a list that is not complete yet."""
    until = time.monotonic() + MAX_SECONDS
    while True:
        printed = _run(step, folder=folder, password=password, port=port, variables=variables)
        if not _EVENTUAL.search(step.command) or time.monotonic() > until:
            return printed
        if normalize(printed) == normalize(step.printed):
            return printed
        time.sleep(0.3)


def _run(step: Step, *, folder: Path, password: str, port: int, variables: dict[str, str]) -> list[str]:
    command = step.command.replace("localhost:8080", f"127.0.0.1:{port}")
    restored = f"set -a; [ ! -e {_STATE} ] || . ./{_STATE}"
    script = f"exec {command}" if step.is_interrupted else f"{command}\nexport -p > {_STATE}"
    # Commands that read standard input bring their own; the others may ask for a password, twice.
    process = subprocess.Popen(
        ["bash", "-c", f"{restored}; {script}"],
        cwd=folder,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if not step.is_interrupted:
        return process.communicate(f"{password}\n{password}\n", timeout=MAX_SECONDS)[0].splitlines()
    assert process.stdout is not None
    printed = [process.stdout.readline() for _ in normalize(step.printed)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=MAX_SECONDS)
    return [line.rstrip("\n") for line in printed]
