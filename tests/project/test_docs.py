"""What is written beside the code, held against it: README, settings, compose files, images, lock files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from confide.server.settings import Settings
from support.ports import free_port
from support.processes import environment, running

ROOT = Path(__file__).parents[2]
MAX_GLOSSARY_WORDS = 15


def texts() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_every_link_of_the_papers_leads_somewhere() -> None:
    for path in texts():
        for target in re.findall(r"\]\(([\w./-]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_glossary_has_at_most_fifteen_words() -> None:
    table = (ROOT / "docs" / "reference" / "glossary.md").read_text().split("| --- | --- |\n")[1]
    assert 0 < len(re.findall(r"^\| ", table, re.MULTILINE)) <= MAX_GLOSSARY_WORDS


def placeholders(text: str) -> list[str]:
    """Lines that stand for something that was to be filled in."""
    return re.findall(r"^[ |*]*([A-Z][A-Z_]{3,}|TODO.*|FIXME.*|XXX.*)[ |*]*$", text, re.MULTILINE)


def test_nothing_in_the_papers_waits_to_be_filled_in() -> None:
    for path in texts():
        assert placeholders(path.read_text()) == [], path.name
    assert placeholders("what it says:\n\nREPORT\n") == ["REPORT"]


def test_the_readme_shows_both_commands_on_its_first_screen() -> None:
    first = (ROOT / "README.md").read_text().splitlines()[:16]
    assert any("make serve" in line for line in first)
    assert any("make test" in line for line in first)


def test_the_first_session_of_the_readme_gives_what_the_readme_shows(tmp_path: Path) -> None:
    """Each command is run by a shell as it stands there; its answer must be the one printed below it."""
    block = (ROOT / "README.md").read_text().split("In a second terminal")[1].split("The API describes itself")[0]
    lines = [line[4:] for line in block.splitlines() if line.startswith("    ")]
    commands: list[list[str]] = []
    for line in lines:
        if line.startswith("$ "):
            commands.append([line[2:]])
        else:
            commands[-1].append(line)
    with running(tmp_path) as service:
        said = ""
        shown = []
        script = []
        for command in commands:
            until = next((n for n, line in enumerate(command) if line.startswith('{"')), len(command))
            script.append("\n".join(command[:until]))
            shown += command[until:]
        text = "; echo\n".join(script).replace("localhost:8080", f"127.0.0.1:{service.port}")
        said = subprocess.run(["bash", "-ec", text], capture_output=True, text=True, check=True).stdout
    assert [line for line in said.splitlines() if line] == shown
    assert len(shown) == 4


def test_every_setting_is_told_and_none_that_is_not() -> None:
    told = set(re.findall(r"`CONFIDE_([A-Z_]+)`", (ROOT / "docs" / "reference" / "settings.md").read_text()))
    known = {name.upper() for name in Settings.model_fields} - {"APP_ENV"}
    assert told - {"URL", "TOKEN"} == known


def test_no_setting_switches_sealing_or_audit_off() -> None:
    for name, field in Settings.model_fields.items():
        assert not re.search(r"seal|audit|encrypt", name), name
        if field.annotation is bool and "unsafe" in name:
            assert field.default is False


def compose(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())["services"]


def test_the_compose_file_names_what_exists_and_waits_for_health() -> None:
    services = compose("docker-compose.yml")
    app, database = services["app"], services["database"]
    assert app["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert database["healthcheck"]["test"][1].startswith("pg_isready")
    known = {f"CONFIDE_{name.upper()}" for name in Settings.model_fields} | {"APP_ENV", "APP_PORT"}
    assert app["environment"].keys() <= known
    assert re.fullmatch(r"postgres:1[5-8]\.[0-9]+-bookworm", database["image"])
    assert (ROOT / app["build"] / "Dockerfile").exists()
    tests = compose("docker-compose_tests.yml")["tests"]
    assert (ROOT / tests["build"]["dockerfile"]).exists()


def test_the_environment_of_the_compose_file_is_one_that_serves(tmp_path: Path) -> None:
    """As the container would start it, but with SQLite: the settings are accepted and the health check passes."""
    port = free_port()
    variables = {
        name: re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", str(value))
        for name, value in compose("docker-compose.yml")["app"]["environment"].items()
    }
    del variables["CONFIDE_DATABASE"]
    variables |= {"APP_PORT": str(port), "CONFIDE_DATA": str(tmp_path / "data"), "CONFIDE_UNSAFE_DURABILITY": "true"}
    check = (ROOT / "Dockerfile").read_text().split('CMD ["python", "-c", "')[1].split('"]')[0].replace('\\"', '"')
    process = subprocess.Popen(
        [sys.executable, "-m", "confide", "serve"],
        cwd=tmp_path,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert f"at http://0.0.0.0:{port} (2 workers, APP_ENV=production)" in process.stdout.readline()
        for _ in range(100):
            done = subprocess.run([sys.executable, "-c", check], env=environment(APP_PORT=str(port)), check=False)
            if done.returncode == 0:
                break
        assert done.returncode == 0
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
    assert subprocess.run(
        [sys.executable, "-c", check], env=environment(APP_PORT=str(port)), capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.tests"])
def test_what_an_image_copies_exists_and_its_base_is_pinned(name: str) -> None:
    text = (ROOT / name).read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    assert all(
        re.fullmatch(r"python:3\.[0-9]+\.[0-9]+-slim-bookworm.*", image) for image in re.findall(r"FROM (\S+)", text)
    )
    if name == "Dockerfile":
        assert re.search(r"^USER confide$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_a_lock_file_has_a_hash_for_everything_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|file:|--index|--find-links|--extra-index", text)
    entries = re.findall(r"^([a-z0-9][^ \n]*==[^\n]*)", text, re.MULTILINE)
    assert len(entries) > 20
    assert all(entry.endswith("\\") for entry in entries)
    assert text.count("--hash=sha256:") >= len(entries)


def test_nothing_committed_names_a_machine_or_a_registry() -> None:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout: nothing is committed here")
    folders = "work|farm|root"
    private = re.compile(rf"/(?:{folders})/|[.]pyenv/|\b(?:10|192\.168)\.[0-9]+\.[0-9]+\.[0-9]+\b")
    for name in filter(None, done.stdout.split("\0")):
        if "vendor/" in name or name.endswith((".lock", "bad_inputs.yaml")) or name == "tests/project/test_docs.py":
            continue
        assert not private.search((ROOT / name).read_text(errors="replace")), name


def logged_events() -> set[str]:
    """The names of all log events of the source."""
    calls = re.compile(r'_log\.(?:debug|info|warning|error|exception)\(\s*"([^"]+)"')
    return {
        found[1].split(" ")[0] for path in (ROOT / "src").rglob("*.py") for found in calls.finditer(path.read_text())
    }


def test_every_log_event_has_a_stable_name_and_is_explained() -> None:
    events = logged_events()
    assert len(events) > 20
    assert [event for event in events if not re.fullmatch(r"[a-z]+(?:_[a-z]+)+", event)] == []
    explained = set(
        re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs" / "reference" / "log-events.md").read_text(), re.MULTILINE)
    )
    assert explained == events
