"""Compare the documentation with the code: links, sessions, settings, compose files, images and lock files."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from confide.cli.commands import EXIT_CODES
from confide.cli.output import EXIT_CHECK_FAILED, EXIT_INTERRUPTED
from confide.server.metrics import COUNTERS, GAUGES
from confide.server.settings import Settings
from support.ports import find_free_port
from support.processes import build_environment, run_confide, run_service
from support.sessions import normalize, read_session, run_session
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
MAX_GLOSSARY_WORDS = 15
SHARED_MODULE_NAMES = {"__init__", "errors", "model", "routes", "store"}
PASSWORD = "violet kettle on the moon"  # as the pages show it


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "ops").rglob("*.md")])
_CODE = re.compile(r"(?ms)^```.*?^```|^    .*?$|`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def find_anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", page)):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        copies = (f"{slug}-{number}" for number in range(1, 100))
        found.add(slug if slug not in found else next(copy for copy in copies if copy not in found))
    return found


def find_broken_links(pages: Iterable[Path]) -> list[str]:
    """Return the relative links of pages whose file or anchor does not exist."""
    broken = []
    for page in pages:
        for link in _LINK.findall(_CODE.sub("", page.read_text())):
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            path = (page.parent / target).resolve() if target else page
            if not path.exists() or (anchor and anchor not in find_anchors(path.read_text())):
                broken.append(f"{page.name}: {link}")
    return broken


def test_every_relative_link_and_anchor_in_the_documentation_resolves() -> None:
    assert sum(len(_LINK.findall(page.read_text())) for page in PAGES) > 50
    assert find_broken_links(PAGES) == []


@pytest.mark.parametrize("link", ["missing.md", "b.md#missing", "#missing", "../b.md"])
def test_a_deliberately_broken_link_is_found(tmp_path: Path, link: str) -> None:
    page = tmp_path / "a.md"
    (tmp_path / "b.md").write_text("# B\n\n## Two words: yes\n\n## Two words, yes\n")
    good = (
        "[b](b.md) [two](b.md#two-words-yes) [three](b.md#two-words-yes-1) [a](#a) [x](https://example.com) `](c.md)`"
    )
    page.write_text(f"# A\n\n{good}\n")
    assert find_broken_links([page]) == []
    page.write_text(f"# A\n\n{good} [broken]({link})\n")
    assert find_broken_links([page]) == [f"a.md: {link}"]


def find_missing_pages(root: Path, files: Iterable[Path]) -> list[str]:
    """Return the pages and figures under `docs/` that files name and that do not exist."""
    named = re.compile(r"(?<![/\w.])docs/[\w./-]+\.(?:md|json|svg)\b")
    return [
        f"{path.name}: {name}"
        for path in files
        for name in named.findall(path.read_text(errors="replace"))
        if not (root / name).exists()
    ]


def list_tracked_files() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    names = (name for name in done.stdout.split("\0") if name and "vendor/" not in name)
    return [ROOT / name for name in names if (ROOT / name).exists()]


def test_code_messages_and_comments_name_pages_that_exist() -> None:
    assert find_missing_pages(ROOT, list_tracked_files()) == []


def test_a_deliberate_mention_of_a_missing_page_is_found(tmp_path: Path) -> None:
    source = tmp_path / "serving.py"
    source.write_text('"see docs/" "missing.md"')
    assert find_missing_pages(tmp_path, [source]) == []
    source.write_text('"see docs/' + 'missing.md"; "/docs/errors.md"')
    assert find_missing_pages(tmp_path, [source]) == ["serving.py: docs/" + "missing.md"]


def find_missing_paths(root: Path, pages: Iterable[Path]) -> list[str]:
    """Return the files and folders of the repository that pages quote as code and that do not exist."""
    quoted = re.compile(r"`((?:src|tests|tools|ops)/[\w./-]+)`")
    found = [(page.name, path) for page in pages for path in quoted.findall(page.read_text())]
    return [f"{page}: {path}" for page, path in found if not (root / path).exists()]


def test_pages_quote_paths_that_exist() -> None:
    assert find_missing_paths(ROOT, PAGES) == []


def test_a_deliberate_quote_of_a_missing_path_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("`tests/gone.py`, `a/tests/x`, `/tests/y`")
    assert find_missing_paths(tmp_path, [page]) == ["a.md: tests/gone.py"]


def test_every_page_stands_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*/*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert f"]({name})" in index or page.parent.name == "decisions", name


def find_unlisted_records(index: str, folder: Path) -> list[str]:
    """Return the decision records that the index lacks, or lists with another number or title."""
    unlisted = []
    for record in sorted(folder.glob("[0-9]*.md")):
        number, title = record.read_text().splitlines()[0].removeprefix("# ").split(". ", 1)
        if f"\n| {number} | [{title}]({record.name}) |" not in index:
            unlisted.append(record.name)
    return unlisted


def test_every_decision_record_stands_in_the_index_of_records() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    assert find_unlisted_records(index, folder) == []
    assert find_missing_modules(index) == []


def test_a_deliberately_unlisted_record_is_found(tmp_path: Path) -> None:
    (tmp_path / "0001-one.md").write_text("# 1. One\n")
    (tmp_path / "0002-two.md").write_text("# 2. Two\n")
    assert find_unlisted_records("\n| 1 | [One](0001-one.md) | a |\n", tmp_path) == ["0002-two.md"]
    assert find_unlisted_records("\n| 1 | [Uno](0001-one.md) | a |\n", tmp_path) == ["0001-one.md", "0002-two.md"]


def find_missing_modules(page: str) -> list[str]:
    """Return the modules that the page names and the source tree does not have.

    A module is a path such as `configs/save`, or, in a table of packages, a name in the row of its package.
    """
    source = ROOT / "src" / "confide"

    def exists(name: str) -> bool:
        path = source / name.rstrip("/")
        return path.is_dir() or path.with_suffix(".py").exists() or path.is_file()

    packages = "|".join(sorted(path.name for path in source.iterdir() if path.is_dir()))
    named = set(re.findall(rf"(?<![\w/])((?:{packages})/\w[\w/]*)", page))
    for row in re.findall(r"(?m)^\| `[a-z_]+/`.*$", page):
        first, contents = row.strip("|").split("|", 1)
        owners = re.findall(r"`(\w+)/`", first)
        for name in re.findall(r"`(\w+(?:/\w+)*/?)`", contents):
            if not any(exists(f"{owner}/{name}") for owner in owners):
                named.add(f"{owners[0]}/{name}")
    return sorted(name for name in named if not exists(name))


def test_the_architecture_page_names_modules_that_exist() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    assert find_missing_modules(page) == []
    packages = {path.name for path in (ROOT / "src" / "confide").iterdir() if (path / "__init__.py").exists()}
    assert packages - set(re.findall(r"`(\w+)/`", page)) == set()


def find_unlisted_modules(page: str) -> list[str]:
    """Return the modules that the row of their package does not name, if the row names any.

    Modules that several features have, such as `store`, are explained once for all packages.
    """
    found = []
    for row in re.findall(r"(?m)^\| `[a-z_]+/`.*$", page):
        first, contents = row.strip("|").split("|", 1)
        listed = set(re.findall(r"`(\w+)", contents))
        for owner in re.findall(r"`(\w+)/`", first) if listed else ():
            modules = {path.stem for path in (ROOT / "src" / "confide" / owner).glob("*.py")}
            found += [f"{owner}/{name}" for name in sorted(modules - listed - SHARED_MODULE_NAMES)]
    return found


def test_the_architecture_page_lists_every_module_of_a_feature() -> None:
    assert find_unlisted_modules((ROOT / "docs" / "explanation" / "architecture.md").read_text()) == []


def test_a_deliberately_unlisted_module_is_found() -> None:
    listed = "| `caching/` | `lease`, `single_flight`, `stamp_file`, `stamps` |\n"
    assert find_unlisted_modules(listed) == ["caching/lru_cache"]


def test_a_deliberately_wrong_module_is_found() -> None:
    assert find_missing_modules("`configs/save` and configs/missing\n") == ["configs/missing"]
    assert find_missing_modules("| `configs/` | `save`, `gone` |\n") == ["configs/gone"]


def load_measurements_tool() -> Any:
    path = ROOT / "tools" / "make_measurements.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_measurements_and_failovers_are_those_of_the_recorded_runs() -> None:
    tool, folder = load_measurements_tool(), ROOT / "docs" / "reference"
    assert (folder / "measurements.md").read_text() == tool.write_page(), "run make measurements"
    assert (folder / "failover.md").read_text() == tool.write_failover_page(), "run make measurements"


def test_the_table_of_failovers_marks_what_misses_a_promise() -> None:
    write_row = load_measurements_tool()._write_failover
    promised = {
        "title": "leader killed",
        "may_lose": False,
        "has_two_leaders": False,
        "unsaved_seconds": 9.04,
        "unsaved_after_path_seconds": 0.98,
        "unproven_seconds": 10.0,
        "unproven_after_path_seconds": 2.0,
        "saves": 1234,
        **dict.fromkeys(("saves_lost", "reads_refused", "reads_stale_unmarked", "revoked_tokens_accepted"), 0),
        **dict.fromkeys(("watcher_violations", "unexpected_statuses", "has_restarted"), 0),
        "audit": "ok",
        "patroni": "4.1.5",
        "load_average": 1.0,
    }
    row = "| leader killed | 9.0 (0.98) | 10.0 (2.00) | 1,234 | 0 | 0 | 0 | 0 | 0 | ok | 4.1.5 | 1.0 |\n"
    assert write_row(promised) == row
    late = {"unsaved_after_path_seconds": 1.2, "unproven_after_path_seconds": 2.1}
    assert "**9.0 (1.20)** | **10.0 (2.10)**" in write_row(promised | late)
    assert "**" not in write_row(promised | late | {"has_two_leaders": True})
    assert "| **3** |" in write_row(promised | {"saves_lost": 3})
    assert "| 3 |" in write_row(promised | {"saves_lost": 3, "may_lose": True})
    for name in ("reads_refused", "reads_stale_unmarked", "revoked_tokens_accepted", "watcher_violations"):
        assert "| **1** |" in write_row(promised | {name: 1})
    assert "| **1** |" in write_row(promised | {"has_restarted": True})
    assert "| **bad link** |" in write_row(promised | {"audit": "bad link"})
    assert "not measured" in write_row({"title": "leader killed", "error": "the cluster is not whole"})


def test_the_glossary_has_at_most_fifteen_words() -> None:
    table = (ROOT / "docs" / "reference" / "glossary.md").read_text().split("| --- | --- |\n")[1]
    assert 0 < len(re.findall(r"^\| ", table, re.MULTILINE)) <= MAX_GLOSSARY_WORDS


def find_placeholders(text: str) -> list[str]:
    """Return lines that still wait for their content."""
    return re.findall(r"^[ |*]*([A-Z][A-Z_]{3,}|TODO.*|FIXME.*|XXX.*)[ |*]*$", text, re.MULTILINE)


def test_no_page_has_a_placeholder() -> None:
    for path in PAGES:
        assert find_placeholders(path.read_text()) == [], path.name
    assert find_placeholders("The report:\n\nREPORT\n") == ["REPORT"]


def test_the_readme_shows_both_commands_on_its_first_screen() -> None:
    first = (ROOT / "README.md").read_text().splitlines()[:16]
    assert any("make serve" in line for line in first)
    assert any("make test" in line for line in first)


def test_make_serve_starts_the_service_in_a_prepared_clone(tmp_path: Path) -> None:
    """Run the first command of the README. Its stamp is newer than the lock files, so make installs nothing."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / ".make").mkdir()
    (tmp_path / ".make" / "serve").touch()
    port = find_free_port()
    variables = build_environment(CONFIDE_PORT=str(port), CONFIDE_UNSAFE_DURABILITY="true")
    process = subprocess.Popen(
        ["make", "serve"], cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        assert f"at http://127.0.0.1:{port} " in process.stdout.readline()
        until = time.monotonic() + 60
        while not is_live(port):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert (tmp_path / "confide-data" / "confide.db").exists()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
        process.stdout.close()


def is_live(port: int) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(f"http://127.0.0.1:{port}/health/live", timeout=5).status_code == 200
    return False


def test_make_test_runs_pytest() -> None:
    commands = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m pytest" in commands


def prepare_folder(folder: Path) -> None:
    """Give a folder what a reader's clone has: the docs, and `.venv` with the command."""
    (folder / "docs").symlink_to(ROOT / "docs")
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("page", "steps"), [("README.md", 15), ("docs/tutorials/quickstart.md", 18)], ids=["readme", "quickstart"]
)
def test_a_documented_session_prints_what_the_page_shows(tmp_path: Path, page: str, steps: int) -> None:
    """Every command of the page runs in a shell, in order, and its output is compared with the lines below it."""
    session = [step for step in read_session((ROOT / page).read_text()) if not step.command.startswith("make ")]
    assert len(session) >= steps
    with run_service(tmp_path) as service:
        prepare_folder(tmp_path)
        for step, printed in run_session(session, folder=tmp_path, password=PASSWORD, port=service.port):
            assert normalize(printed) == normalize(step.printed), step.command


def test_a_session_with_a_wrong_output_is_noticed(tmp_path: Path) -> None:
    page = "    $ echo one two\n    one two\n    $ A='x\n    y'\n    $ echo $A\n    x z\n"
    session = read_session(page)
    results = [
        normalize(printed) == normalize(step.printed)
        for step, printed in run_session(session, folder=tmp_path, password="", port=1)
    ]
    assert results == [True, True, False]


def test_the_settings_page_lists_exactly_the_settings_that_exist() -> None:
    listed = set(re.findall(r"`CONFIDE_([A-Z_]+)`", (ROOT / "docs" / "reference" / "settings.md").read_text()))
    known = {name.upper() for name in Settings.model_fields} - {"APP_ENV"}
    assert listed - {"URL", "TOKEN"} == known


def test_the_metrics_page_lists_exactly_the_metrics_that_exist() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    listed = re.findall(r"(?m)^\| `(confide_\w+)(?:\{[a-z,]+\})?` \|", page)
    # The page of metrics shows these two as one histogram.
    counters = {name for name, _, _ in COUNTERS.values()} - {"confide_io_steps", "confide_io_took"}
    known = {f"{name}_total" for name in counters} | {name for name, _, _ in GAUGES.values()} | {"confide_io_seconds"}
    assert sorted(listed) == sorted(known)


def test_the_exit_codes_page_lists_exactly_the_exit_codes_that_exist() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    listed = {int(code) for code in re.findall(r"(?m)^\| ([0-9]+) \|", page)}
    success, rejected, invalid_command_line = 0, 1, 2
    codes = {*EXIT_CODES.values(), EXIT_CHECK_FAILED, EXIT_INTERRUPTED}
    assert listed == codes | {success, rejected, invalid_command_line}


def test_the_contributing_page_names_test_support_that_exists() -> None:
    named = re.findall(r"`support\.(\w+)(?:\.(\w+))?`", (ROOT / "CONTRIBUTING.md").read_text())
    assert named
    for module, function in named:
        source = (ROOT / "tests" / "support" / f"{module}.py").read_text()
        assert not function or f"def {function}(" in source, f"support.{module}.{function}"


def test_no_setting_turns_encryption_or_audit_off() -> None:
    for name, field in Settings.model_fields.items():
        # It removes old entries, and new ones are written all the same.
        assert name == "audit_days" or not re.search(r"audit|encrypt", name), name
        if field.annotation is bool and "unsafe" in name:
            assert field.default is False


def load_services(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())["services"]


def test_the_compose_file_uses_existing_settings_and_waits_for_health() -> None:
    services = load_services("docker-compose.yml")
    app, database = services["app"], services["database"]
    assert app["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert database["healthcheck"]["test"][1].startswith("pg_isready")
    # PostgreSQL's own variable holds the password, because one in a URL needs percent-encoding.
    known = {f"CONFIDE_{name.upper()}" for name in Settings.model_fields} | {"APP_ENV", "APP_PORT", "PGPASSWORD"}
    assert app["environment"].keys() <= known
    assert re.fullmatch(r"postgres:1[5-8]\.[0-9]+-bookworm", database["image"])
    assert (ROOT / app["build"] / "Dockerfile").exists()
    tests = load_services("docker-compose_tests.yml")["tests"]
    assert (ROOT / tests["build"]["dockerfile"]).exists()


def test_the_service_starts_with_the_environment_of_the_compose_file(tmp_path: Path) -> None:
    """The service accepts the settings, on SQLite, and the health check of the image passes."""
    port = find_free_port()
    variables = {
        name: re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", str(value))
        for name, value in load_services("docker-compose.yml")["app"]["environment"].items()
    }
    del variables["CONFIDE_DATABASE"]
    variables |= {"APP_PORT": str(port), "CONFIDE_DATA": str(tmp_path / "data"), "CONFIDE_UNSAFE_DURABILITY": "true"}
    assert 'CMD ["confide", "health"]' in (ROOT / "Dockerfile").read_text()

    def check_health() -> int:
        return run_confide("health", cwd=tmp_path, env=variables).returncode

    process = subprocess.Popen(
        [sys.executable, "-m", "confide", "serve"],
        cwd=tmp_path,
        env=build_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert f"at http://0.0.0.0:{port} (2 workers, APP_ENV=production)" in process.stdout.readline()
        wait_until(lambda: check_health() == 0, "the health check passes")
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
    assert check_health() == 1


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.tests"])
def test_an_image_copies_existing_files_and_pins_its_base(name: str) -> None:
    text = (ROOT / name).read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    base = re.search(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert base is not None
    assert re.fullmatch(r"python:3\.[0-9]+\.[0-9]+-slim-bookworm.*", base[1])
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}
    if name == "Dockerfile":
        assert re.search(r"^USER 10001$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_a_lock_file_has_a_hash_for_each_package_and_no_registry_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|file:|--index|--find-links|--extra-index", text)
    entries = re.findall(r"^([a-z0-9][^ \n]*==[^\n]*)", text, re.MULTILINE)
    assert len(entries) > 20
    assert all(entry.endswith("\\") for entry in entries)
    assert text.count("--hash=sha256:") >= len(entries)


def test_no_committed_file_names_a_machine_or_a_registry() -> None:
    folders = "work|farm|root"
    private = re.compile(rf"/(?:{folders})/|[.]pyenv/|\b(?:10|192\.168)\.[0-9]+\.[0-9]+\.[0-9]+\b")
    for path in list_tracked_files():
        if path.name not in ("bad_inputs.yaml", "test_docs.py"):
            assert not private.search(path.read_text(errors="replace")), path


def find_log_events() -> set[str]:
    """Return the names of all log events in the source."""
    calls = re.compile(r'_log\.(?:debug|info|warning|error|exception)\(\s*"([^"]+)"')
    return {
        found[1].split(" ")[0] for path in (ROOT / "src").rglob("*.py") for found in calls.finditer(path.read_text())
    }


def test_every_log_event_has_a_stable_name_and_is_explained() -> None:
    events = find_log_events()
    assert len(events) > 20
    assert [event for event in events if not re.fullmatch(r"[a-z]+(?:_[a-z]+)+", event)] == []
    explained = set(
        re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs" / "reference" / "log-events.md").read_text(), re.MULTILINE)
    )
    assert explained == events
