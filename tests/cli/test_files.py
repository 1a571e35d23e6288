"""Files that commands read: text of Windows works, other encodings are named, and nothing is changed on the way."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from confide.cli.files import write_file
from confide.cli.output import escape_controls
from support.processes import Service, run_confide, run_service

PEM = "\r\n-----BEGIN KEY-----\nabc\n-----END KEY-----\n"


class Terminal:
    """Terminal of an admin of a running service."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service, self.folder, self.token = service, folder, service.add_admin()

    def run(self, *args: str, code: int = 0) -> str:
        env = {"CONFIDE_URL": self.service.url, "CONFIDE_TOKEN": self.token}
        done = run_confide(*args, cwd=self.folder, env=env)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def write(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return name

    def read(self, tenant: str, type_: str = "crm") -> object:
        with self.service.client(self.token) as http:
            response = http.get("/config", params={"tenant": tenant, "integration_type": type_})
            return response.json()["configuration"]


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    folder = tmp_path_factory.mktemp("files")
    with run_service(folder / "service") as service:
        yield Terminal(service, folder)


@pytest.mark.parametrize(
    ("tenant", "data"),
    [
        ("mark", b'\xef\xbb\xbf{"a":"x"}\r\n'),
        ("crlf", b'{"a":\r\n "x"}\r\n'),
        ("both", b'\xef\xbb\xbf\r\n{\r\n"a":"x"}'),
    ],
)
def test_a_config_with_a_byte_order_mark_or_crlf_is_saved(terminal: Terminal, tenant: str, data: bytes) -> None:
    terminal.run("config", "set", tenant, "crm", terminal.write(f"{tenant}.json", data))
    assert terminal.read(tenant) == {"a": "x"}


@pytest.mark.parametrize(
    ("encoding", "reason"),
    [
        ("utf-16", "is UTF-16. Save it as UTF-8."),
        ("utf-16-le", "is UTF-16. Save it as UTF-8."),
        ("utf-32", "is UTF-32. Save it as UTF-8."),
        ("latin-1", "is not UTF-8 at line 2. Save it as UTF-8."),
    ],
)
@pytest.mark.parametrize(
    "command",
    [("config", "set", "acme", "crm"), ("type", "put", "crm"), ("type", "check", "crm"), ("import",)],
    ids=" ".join,
)
def test_a_file_in_another_encoding_is_named(
    terminal: Terminal, command: tuple[str, ...], encoding: str, reason: str
) -> None:
    name = terminal.write("file", '{"a":\n"é"}\n'.encode(encoding))
    output = terminal.run(*command, name, code=1)
    if command == ("import",) and encoding == "latin-1":
        assert "line 2: it is not UTF-8. Save the file as UTF-8." in output
    else:
        assert output == f"confide: file {reason}\n"


def test_an_import_file_of_windows_keeps_every_value(terminal: Terminal) -> None:
    lines = [
        json.dumps({"tenant": "imported", "integration_type": "crm", "configuration": {"k": PEM}}),
        json.dumps({"tenant": "imported", "integration_type": "erp", "configuration": {"k": 1}}),
        "",
    ]
    name = terminal.write("lines", b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert terminal.run("import", name) == "2 created.\n"
    assert (terminal.read("imported"), terminal.read("imported", "erp")) == ({"k": PEM}, {"k": 1})


def test_a_pem_text_with_real_line_breaks_in_a_string_is_explained(terminal: Terminal) -> None:
    name = terminal.write("pem.json", b'{"key":\n "-----BEGIN KEY-----\nabc"}')
    assert terminal.run("config", "set", "acme", "crm", name, code=1) == (
        "confide: pem.json is not valid JSON at line 2, column 22: unescaped control character. Write a line break in a"
        " string as \\n.\n"
    )


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (b'{"properties":{"a":{"maximum":5,"maximum":9}}}', "twice"),
        (b'{"properties":{"n":{"const":0.10000000000000000055}}}', "exactly"),
    ],
)
def test_a_schema_is_judged_by_the_bytes_of_its_file(terminal: Terminal, schema: bytes, reason: str) -> None:
    name = terminal.write("schema.json", schema)
    assert reason in terminal.run("type", "put", "strict", name, code=1)
    assert reason in terminal.run("type", "check", "strict", name, code=1)


def test_a_line_separator_in_a_name_does_not_break_a_check(terminal: Terminal) -> None:
    name = terminal.write("names.json", json.dumps({"required": ["a\u2028b\u0085c"]}, ensure_ascii=False).encode())
    terminal.run("config", "set", "names", "separated", terminal.write("empty.json", b"{}"))
    terminal.run("type", "put", "separated", name)
    assert "/a\\u2028b\\u0085c  required" in terminal.run("type", "check", "separated", code=10)


HOSTILE = "\x1b[2J\x9b31mOWNED\u202e\u061c\n"


def save_hostile_config(terminal: Terminal) -> None:
    """Save a config whose only member and note hold control characters, and a schema that it violates."""
    hostile = json.dumps({HOSTILE: 1}).encode()
    terminal.run("config", "set", "evil", "evil", terminal.write("evil.json", hostile))
    schema = {"properties": {HOSTILE: {"type": "string"}}, "required": [HOSTILE + "missing"]}
    terminal.run("type", "put", "evil", terminal.write("evil_type.json", json.dumps(schema).encode()))


@pytest.mark.parametrize(
    ("command", "code", "lines"),
    [
        (("config", "diff", "evil", "evil", "0", "1"), 0, 1),
        (("config", "get", "evil", "evil"), 0, 3),
        (("config", "list", "evil", "evil", "--broken"), 0, 3),
        (("type", "check", "evil"), 10, 4),
        (("type", "show", "evil"), 0, 10),
        (("export", "-", "evil"), 0, 2),
        (("config", "set", "evil", "new", "evil.json", "--dry-run"), 0, 2),
        (("config", "set", "evil", "evil", "too_long.json"), 1, 1),
        (("type", "put", "evil", "invalid_type.json"), 1, 1),
        (("import", "hostile.jsonl"), 1, 2),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_names_in_a_config_cannot_control_the_terminal(
    terminal: Terminal, command: tuple[str, ...], code: int, lines: int
) -> None:
    save_hostile_config(terminal)
    terminal.write("too_long.json", json.dumps({HOSTILE: {HOSTILE: "x" * 70_000}}).encode())
    terminal.write("invalid_type.json", json.dumps({"properties": {HOSTILE: {"type": HOSTILE}}}).encode())
    line = {"tenant": "evil", "integration_type": "evil", "configuration": {HOSTILE: "x" * 70_000}}
    terminal.write("hostile.jsonl", json.dumps(line).encode())
    output = terminal.run(*command, code=code)
    assert "\\u001b[2J\\u009b31mOWNED\\u202e\\u061c" in output
    assert output.replace("\n", "").isprintable()
    assert len(output.splitlines()) == lines, output


def test_escaped_json_is_the_same_json(terminal: Terminal) -> None:
    save_hostile_config(terminal)
    assert json.loads(terminal.run("config", "get", "evil", "evil")) == {HOSTILE: 1}
    terminal.run("export", "evil.jsonl", "evil")
    exported = (terminal.folder / "evil.jsonl").read_text()
    assert json.loads(exported)["configuration"] == {HOSTILE: 1}
    assert exported.replace("\n", "").isprintable()
    assert escape_controls("héllo\nwörld") == "héllo\nwörld"


def test_a_wrong_argument_cannot_control_the_terminal(tmp_path: Path) -> None:
    done = run_confide("config", HOSTILE, cwd=tmp_path)
    assert done.returncode == 2
    assert "OWNED" in done.stderr
    assert done.stderr.replace("\n", "").isprintable()


@pytest.mark.parametrize("existing", [None, 0o644, 0o600])
def test_exports_and_reports_are_readable_by_their_owner_only(terminal: Terminal, existing: int | None) -> None:
    folder = terminal.folder / f"files{existing}"
    folder.mkdir()
    files = [folder / name for name in ("report.html", "io.html", "result.json")]
    for file in files if existing is not None else []:
        file.write_text("old " * 100_000)
        file.chmod(existing or 0)
    report, io_page, result = map(str, files)
    terminal.run("export", f"{folder}/configs.jsonl")
    terminal.run("audit", "export", f"{folder}/audit.jsonl")
    terminal.run("io", "report", "--data", str(terminal.service.data), "--html", io_page)
    load = ("load", "--duration", "1s", "--warm-up", "0s", "--rate", "20", "--tenants", "1", "--types", "1")
    terminal.run(*load, "--html", report, "--json", result)
    modes = {path.name: stat.filemode(path.stat().st_mode) for path in folder.iterdir()}
    names = {"configs.jsonl", "audit.jsonl", *(file.name for file in files)}
    assert modes == dict.fromkeys(names, "-rw-------")
    assert not any(path.read_bytes().startswith(b"old ") for path in folder.iterdir())


def test_a_report_can_be_written_to_a_device_and_through_a_link(tmp_path: Path) -> None:
    write_file(Path("/dev/null"), "text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_file(tmp_path / "link", "text")
    assert (tmp_path / "file").read_text() == "text"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_master_keys_in_another_encoding_are_named_and_a_mark_is_ignored(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        service.add_admin()
    file = service.data / "master.keys"
    text = file.read_text()
    env = {"CONFIDE_UNSAFE_DURABILITY": "true"}
    file.write_text(text, encoding="utf-16")
    done = run_confide("serve", "--port", "0", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (
        5,
        f"confide: {file.relative_to(tmp_path)} is not UTF-8 text. Save it as UTF-8.\n",
    )
    file.write_text("lost")
    done = run_confide("serve", "--port", "0", cwd=tmp_path, env=env)
    sentence = "Invalid master key. Write it as `id base64`."
    assert (done.returncode, done.stderr) == (5, f"confide: {file.relative_to(tmp_path)}: {sentence}\n")
    done = run_confide("serve", "--port", "0", cwd=tmp_path, env=env | {"CONFIDE_MASTER_KEYS": "lost"})
    assert (done.returncode, done.stderr) == (5, f"confide: CONFIDE_MASTER_KEYS: {sentence}\n")
    file.write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig")
    service.start()
    service.end()
