"""Files that commands read: text of Windows works, other encodings are named, and nothing is changed on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    assert "/a\u2028b\\u0085c  required" in terminal.run("type", "check", "separated", code=10)


def test_names_in_a_config_cannot_control_the_terminal(terminal: Terminal) -> None:
    name = "\x1b[2J\x9b31mOWNED\u202e\n"
    terminal.run("config", "set", "evil", "crm", terminal.write("evil.json", json.dumps({name: 1}).encode()))
    diff = terminal.run("config", "diff", "evil", "crm", "0", "1")
    text = terminal.run("config", "get", "evil", "crm")
    for output in (diff, text):
        assert "\\u001b[2J\\u009b31mOWNED\\u202e" in output
        assert output.replace("\n", "").isprintable()
    assert len(diff.splitlines()) == 1
    assert json.loads(text) == {name: 1}
    assert escape_controls("héllo\nwörld") == "héllo\nwörld"


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
    file.write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig")
    service.start()
    service.end()
