"""Check the rules of style.md on the sources, and that each checker catches a deliberate fault."""

from __future__ import annotations

import ast
import gc
import hashlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import confide
import confide.server.api
from confide.errors import ErrorKind, ServiceError
from confide.web.problems import STATUS, get_status, list_errors

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "confide"
MODULES_ABOVE_THE_SERVER = {"server", "cli", "serving.py", "__main__.py"}
# Alarms, not targets: the limit of a module is one reason to change.
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core", "manager"}
BANNED_CLASSES = re.compile(r"(Manager|Helper|Handler|Processor|Util|Utils|Base|Impl|Data|Info)$")


# Violations with a reason.
EXCEPTIONS = {
    "server/wiring.py: build_process has 97 lines",  # builds every feature once, in order
}


def find_style_violations(folder: Path) -> list[str]:
    """Return what style.md forbids in the files of a folder."""
    found = []
    public: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        name = path.relative_to(folder).as_posix()
        if len(text.splitlines()) > MAX_FILE_LINES:
            found.append(f"{name} has more than {MAX_FILE_LINES} lines")
        if path.stem in BANNED_NAMES or path.parent.name in BANNED_NAMES:
            found.append(f"{name} has a name that says nothing about its contents")
        tree = ast.parse(text)
        found += [f"{name}: {violation}" for violation in _find_violations_in_tree(tree, path)]
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                if node.name in public:
                    found.append(f"{name}: class {node.name} is also defined in {public[node.name]}")
                public[node.name] = name
    return found


def _find_violations_in_tree(tree: ast.Module, path: Path) -> Iterator[str]:
    if not ast.get_docstring(tree) and path.stat().st_size:
        yield "has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines"
            boolean = [
                a.arg for a in node.args.args if isinstance(a.annotation, ast.Name) and a.annotation.id == "bool"
            ]
            if boolean:
                yield f"{node.name} takes {boolean} by position"
        if isinstance(node, ast.ClassDef) and BANNED_CLASSES.search(node.name):
            yield f"{node.name} has a name that says nothing about it"


def test_source_files_follow_the_style() -> None:
    assert set(find_style_violations(SOURCE)) == EXCEPTIONS
    assert len(list(SOURCE.rglob("*.py"))) > 50


@pytest.mark.parametrize(
    ("name", "text", "violation"),
    [
        ("long.py", '"""One."""\n' + "a = 1\n" * 600, "more than 600 lines"),
        ("utils.py", '"""One."""\n', "has a name that says nothing about its contents"),
        ("silent.py", "a = 1\n", "has no docstring"),
        ("function.py", '"""One."""\ndef f():\n' + "    a = 1\n" * 60, "f has 61 lines"),
        ("flag.py", '"""One."""\ndef f(is_on: bool): ...\n', "takes ['is_on'] by position"),
        ("twice.py", '"""One."""\nclass Entry: ...\nclass Entry: ...\n', "class Entry is also defined in twice.py"),
        ("named.py", '"""One."""\nclass ConfigManager: ...\n', "has a name that says nothing about it"),
    ],
)
def test_a_deliberate_style_violation_is_found(tmp_path: Path, name: str, text: str, violation: str) -> None:
    (tmp_path / name).write_text(text)
    assert any(violation in found for found in find_style_violations(tmp_path))


def run_module(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, check=False)


def check_contracts(cwd: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=False, env={"PYTHONPATH": "src"}
    )


def copy_source(folder: Path) -> Path:
    """Copy the sources and settings, to change them in a test."""
    for path in SOURCE.rglob("*.py"):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return folder


def test_imports_follow_the_contracts() -> None:
    done = check_contracts(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("names.py", "import confide.configs.save", "Layers"),
        ("configs/save.py", "import confide.server.application", "Layers"),
        ("client/protocol.py", "import confide.names", "The client imports no server code"),
        ("loadtest/plan.py", "import confide.telemetry.events", "The load generator imports no server code"),
        ("web/router.py", "import confide.identity.users", "Web and database know no feature"),
        ("strict_json.py", "import confide.configs.errors", "Shared vocabulary knows no feature"),
        ("database/log.py", "import confide.server.settings", "Layers"),
        ("configs/merge.py", "import pydantic", "Models and rules are pure"),
        ("identity/model.py", "import cryptography", "Models and rules are pure"),
        ("audit/chain.py", "import asyncpg", "Models and rules are pure"),
        ("integration_types/masking.py", "import apsw", "Models and rules are pure"),
        ("changes/positions.py", "import confide.configs.save", "Features are independent"),
        ("integration_types/store.py", "import confide.audit.chain_writer", "Features are independent"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(tmp_path: Path, file: str, line: str, contract: str) -> None:
    app = copy_source(tmp_path)
    path = app / "src" / "confide" / file
    path.write_text(path.read_text() + f"\n{line}\n")
    done = check_contracts(app)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout


def find_server_imports(source: Path) -> list[str]:
    """List the modules below the server that import it, also for annotations, which the contracts leave out."""
    found = []
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source)
        if name.parts[0] in MODULES_ABOVE_THE_SERVER:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(f"{one}.".startswith("confide.server.") for one in imported):
                found.append(name.as_posix())
    return found


def test_features_web_and_database_do_not_import_the_server_even_for_annotations() -> None:
    assert find_server_imports(SOURCE) == []


@pytest.mark.parametrize(
    "line",
    [
        "from confide.server.application import Application",
        "from confide import server",
        "import confide.server.wiring",
    ],
)
def test_a_deliberate_import_of_the_server_for_annotations_is_found(tmp_path: Path, line: str) -> None:
    source = copy_source(tmp_path) / "src" / "confide"
    path = source / "web" / "http_protocol.py"
    path.write_text(path.read_text() + f"\nif TYPE_CHECKING:\n    {line}\n")
    assert find_server_imports(source) == ["web/http_protocol.py"]


def test_types_are_strict_and_a_deliberate_fault_is_found(tmp_path: Path) -> None:
    assert run_module("mypy").returncode == 0
    wrong = tmp_path / "wrong.py"
    wrong.write_text('"""One."""\n\n\ndef double(number: int) -> str:\n    return number * 2\n')
    done = run_module("mypy", "--strict", str(wrong))
    assert done.returncode == 1
    assert "return-value" in done.stdout


def test_lint_is_clean_and_a_deliberate_fault_is_found(tmp_path: Path) -> None:
    clean = run_module("ruff", "check", ".")
    assert clean.returncode == 0, clean.stdout
    assert run_module("ruff", "format", "--check", ".").returncode == 0
    wrong = tmp_path / "wrong.py"
    wrong.write_text('"""One."""\n\nimport httpx\n\nprint(eval("1"), httpx)\n')
    done = run_module("ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(wrong))
    assert done.returncode == 1
    assert {"S307", "TID251", "T201"} <= set(re.findall(r"[A-Z]+[0-9]{3}", done.stdout))


def test_every_disabled_rule_has_a_reason() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    for block in re.findall(r"(?:ignore = |\"[^\"]+\" = )\[\n(.*?)\n\]", settings, re.DOTALL):
        for line in block.splitlines():
            if re.match(r'\s+"[A-Z]+[0-9]+"', line):
                assert "#" in line, line
    bare = re.compile(r"# (?:noqa|type: ignore)(?![:\[])")
    for path in (*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        if path != Path(__file__):
            assert not bare.search(path.read_text()), path


def test_no_sql_statement_contains_a_value() -> None:
    """SQL is built from constants only: an f-string interpolates known names, never an argument."""
    allowed = {"COLUMNS", "LIST", "ACTIVE_KEY", "table", "columns", "places", "engine", "at"}
    allowed |= {"_ENTRY", "_RAW_ENTRY", "_UNCHAINED", "order", "BATCH_SIZE", "update_row", "select_rows"}
    allowed |= {"len", "args"}  # the number of a placeholder
    # Columns and placeholders come from the definitions of rows.
    rows = {
        name for path in SOURCE.rglob("*.py") for name in re.findall(r"class (\w+Row)\(NamedTuple\)", path.read_text())
    }
    allowed |= rows | {"list_columns", "list_placeholders", "list_array_placeholders", "insert_into", "row", "name"}
    allowed |= {"ENTRY_AT", "EPOCH_AT", "IDEMPOTENCY_AT", "IS_READ_ONLY", "TIMELINE"}
    allowed |= {
        "_KEY",
        "_DATA_KEY_EXISTS",
        "_FIND_ENTRY",
        "DATA_KEY_AT",
        "_TOKEN",
        "_USER",
        "_USERS",
        "_TOKENS",
        "_JOINED",
        "STORE_ROW",
        "LIST_TOKENS",
    }
    allowed |= {"condition", "live"}  # conditions with placeholders, constants of the same module
    found = set()
    for path in (path for path in SOURCE.rglob("*.py") if "telemetry" not in path.parts):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr) and re.search(
                r"SELECT |INSERT |UPDATE |DELETE |PRAGMA |LOCK ", ast.unparse(node)
            ):
                found |= {
                    name.id
                    for part in node.values
                    if isinstance(part, ast.FormattedValue)
                    for name in ast.walk(part)
                    if isinstance(name, ast.Name)
                }
    assert found <= allowed | {"str", "join", "self", "is_unsafe"}, found


def find_error_violations(table: str) -> list[str]:
    """Compare every error class with the table in the docs, and the classes with each other."""
    found = []
    codes: set[str] = set()
    for error in list_errors():
        if not all(hasattr(error, attribute) for attribute in ("kind", "code", "sentence")):
            found.append(f"{error.__name__} lacks a kind, a code or a sentence")
            continue
        if error.code in codes:
            found.append(f"{error.code} is used twice")
        codes.add(error.code)
        if f"| {get_status(error)} | `{error.code}` | {error.sentence} |" not in table:
            found.append(f"{error.code} has no such line in docs/reference/errors.md")
    if table.count("\n| ") != len(codes) + 2:  # and the two lines of the head
        found.append("docs/reference/errors.md has lines without an error")
    return found


def test_every_error_has_a_kind_a_code_a_sentence_and_a_line_in_the_docs() -> None:
    assert set(STATUS) == set(ErrorKind)
    assert find_error_violations((ROOT / "docs" / "reference" / "errors.md").read_text()) == []


@pytest.mark.parametrize(
    ("attributes", "violation"),
    [
        ({}, "lacks a kind, a code or a sentence"),
        ({"kind": ErrorKind.GONE, "code": "not-found", "sentence": "Gone."}, "not-found is used twice"),
        ({"kind": ErrorKind.GONE, "code": "deliberate", "sentence": "Gone."}, "deliberate has no such line"),
    ],
)
def test_a_deliberately_wrong_error_is_found(attributes: dict[str, object], violation: str) -> None:
    wrong = type("Deliberate", (ServiceError,), attributes)
    found = find_error_violations((ROOT / "docs" / "reference" / "errors.md").read_text())
    del wrong
    gc.collect()  # a class stays among the subclasses of its base until its cycles are collected
    assert any(violation in each for each in found), found


@pytest.mark.parametrize("package", ["web", "reports"])
def test_vendored_files_are_unchanged(package: str) -> None:
    folder = SOURCE / package / "vendor"
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = {name: checksum for checksum, name in lines}
    present = {path.name for path in folder.iterdir()} - {"README.md", "SHA256SUMS", "__pycache__"}
    assert present == set(sums)
    for name, checksum in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum


def test_the_version_is_declared_once_and_has_its_changelog_section() -> None:
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
    assert f"## {confide.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def find_reasons_without_text(source: str) -> list[str]:
    """Return the places that log or raise the text of an error, which may be empty, without `describe_error`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        template = node.args[0] if node.args else None
        if isinstance(template, ast.Constant) and "reason=%" in str(template.value):
            fields = re.findall(r"(\w+)=%", str(template.value))
            for name, value in zip(fields, node.args[1:], strict=True):
                # A variable of this name holds a described error.
                is_described = ast.unparse(value) == "reason" or ast.unparse(value).startswith("describe_error(")
                if name == "reason" and not is_described:
                    found.append(f"line {node.lineno}: {ast.unparse(value)}")
        elif ast.unparse(node.func) in ("DatabaseUnavailable", "DatabaseReadOnly", "DatabaseFull"):
            found += [f"line {node.lineno}: {text}" for text in map(ast.unparse, node.args) if "str(" in text]
            found += [f"line {node.lineno}: {text}" for text in map(ast.unparse, node.args) if "{error}" in text]
    return found


def test_every_reason_in_a_log_line_has_a_text() -> None:
    for path in SOURCE.rglob("*.py"):
        assert find_reasons_without_text(path.read_text()) == [], path


@pytest.mark.parametrize(
    "line",
    [
        '_log.warning("a_b reason=%s", error or "timeout")',
        '_log.error("a_b path=%s reason=%s", path, error)',
        "raise DatabaseUnavailable(str(error)) from error",
        'raise DatabaseUnavailable(f"Cannot be opened: {error}") from error',
    ],
)
def test_a_reason_without_a_text_is_found(line: str) -> None:
    assert len(find_reasons_without_text(line)) == 1
    assert find_reasons_without_text('_log.warning("a_b path=%s reason=%s", path, describe_error(error))') == []
