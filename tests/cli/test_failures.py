"""A command that cannot reach the service says why, in one sentence, and never with a trace."""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import rich_click as click

from confide.cli import connection
from support.certificates import create_certificate
from support.ports import find_free_port
from support.processes import run_confide

TOKEN = "x" * 40
READ = ("config", "list")


class Responder(BaseHTTPRequestHandler):
    """Another web server: it responds to each request with the same status, type and body."""

    def __init__(self, response: tuple[int, dict[str, str], bytes], *args: object) -> None:
        self._response = response
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        status, headers, body = self._response
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that the server looks for

    def log_message(self, *_: object) -> None:
        """Write nothing."""


class Server(ThreadingHTTPServer):
    """A server that expects clients to end a connection early."""

    def handle_error(self, *_: object) -> None:
        """Write nothing."""


@contextmanager
def serve(
    status: int = 200,
    headers: dict[str, str] | None = None,
    body: bytes = b"{}",
    *,
    context: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """Run another web server, with TLS if there is a context. Yield its port."""
    with Server(("127.0.0.1", 0), partial(Responder, (status, headers or {}, body))) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def build_context(folder: Path, *, host: str = "localhost", days: int = 1) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*create_certificate(folder, host=host, days=days))
    return context


def fail(folder: Path, *command: str, stdin: str = "", **env: str) -> str:
    """Run a command that fails. Return its sentence."""
    known = {"CONFIDE_TOKEN": TOKEN, "XDG_CONFIG_HOME": str(folder / "home")}
    done = run_confide(*(command or READ), cwd=folder, stdin=stdin, env={**known, **env})
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("confide: ")
    return line.removeprefix("confide: ")


def test_a_self_signed_certificate_is_not_trusted_until_its_file_is_named(tmp_path: Path) -> None:
    with serve(200, body=b'{"configs": [], "next": null}', context=build_context(tmp_path)) as port:
        url = f"https://localhost:{port}"
        assert fail(tmp_path, CONFIDE_URL=url) == (
            f"The certificate of {url} is not trusted: self-signed certificate. If it is the right service, name a file"
            " with the certificate of its issuer in SSL_CERT_FILE."
        )
        env = {"CONFIDE_URL": url, "CONFIDE_TOKEN": TOKEN, "SSL_CERT_FILE": str(tmp_path / "cert.pem")}
        done = run_confide("config", "list", cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        assert "certificates cannot be read" in fail(tmp_path, CONFIDE_URL=url, SSL_CERT_FILE="/missing")


@pytest.mark.parametrize(
    ("host", "days", "reason"), [("confide.example", 1, "Hostname mismatch"), ("localhost", -1, "has expired")]
)
def test_the_sentence_says_why_a_certificate_is_not_trusted(tmp_path: Path, host: str, days: int, reason: str) -> None:
    with serve(context=build_context(tmp_path, host=host, days=days)) as port:
        sentence = fail(tmp_path, CONFIDE_URL=f"https://localhost:{port}", SSL_CERT_FILE=str(tmp_path / "cert.pem"))
    assert "is not trusted" in sentence
    assert reason in sentence


def test_a_port_without_tls_is_named(tmp_path: Path) -> None:
    with serve() as port:
        sentence = fail(tmp_path, CONFIDE_URL=f"https://127.0.0.1:{port}")
    assert sentence.startswith(f"https://127.0.0.1:{port} does not respond with TLS (")
    assert sentence.endswith("If it serves plain HTTP, write http:// instead of https://.")


@pytest.mark.parametrize("command", [READ, ("type", "check", "crm"), ("config", "watch")])
def test_a_port_with_tls_that_is_addressed_without_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    with serve(context=build_context(tmp_path)) as port:
        sentence = fail(tmp_path, *command, CONFIDE_URL=f"http://127.0.0.1:{port}")
    assert sentence == f"http://127.0.0.1:{port} uses TLS. Write https:// instead of http://."


HTML, JSON = {"Content-Type": "text/html"}, {"Content-Type": "application/json"}
NOT_CONFIDE = "The response does not come from Confide. Check the URL."


@pytest.mark.parametrize(
    "command",
    [
        READ,
        ("config", "get", "acme", "crm"),
        ("config", "set", "acme", "crm"),
        ("config", "history", "acme", "crm"),
        ("config", "watch"),
        ("type", "list"),
        ("type", "check", "crm"),
        ("user", "list"),
        ("token", "list"),
        ("token", "add", "label"),
        ("audit", "list"),
        ("audit", "export", "file"),
        ("export", "-"),
        ("login", "ada"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("headers", "body"),
    [(HTML, b"<html>It works</html>"), (JSON, b"{}"), (JSON, b'"ok"')],
    ids=["page", "object", "text"],
)
def test_a_response_of_another_service_is_named(
    tmp_path: Path, command: tuple[str, ...], headers: dict[str, str], body: bytes
) -> None:
    with serve(200, headers, body) as port:
        assert fail(tmp_path, *command, stdin="{}", CONFIDE_URL=f"http://127.0.0.1:{port}") == NOT_CONFIDE


@pytest.mark.parametrize(
    ("status", "headers", "body", "sentence"),
    [
        (404, HTML, b"<html>Not Found</html>", NOT_CONFIDE),
        (404, JSON, b'{"detail": "Not Found"}', NOT_CONFIDE),
        (400, HTML, b"<html>Bad Request</html>", NOT_CONFIDE),
        (502, HTML, b"<html>", "A proxy responds 502 instead of Confide. Check that it reaches the service."),
        (504, JSON, b"{}", "A proxy responds 504 instead of Confide. Check that it reaches the service."),
        (
            301,
            {"Location": "https://confide.example/configs?x=1"},
            b"",
            "{url} redirects to https://confide.example. Use the URL of the service itself.",
        ),
    ],
)
def test_an_error_of_another_server_is_explained(
    tmp_path: Path, status: int, headers: dict[str, str], body: bytes, sentence: str
) -> None:
    with serve(status, headers, body) as port:
        url = f"http://127.0.0.1:{port}"
        assert fail(tmp_path, CONFIDE_URL=url) == sentence.replace("{url}", url)


@pytest.mark.parametrize("data", [b"no JSON", b"[1]", b"[" * 100_000, b"1" * 5_000])
@pytest.mark.parametrize("command", [("config", "watch"), ("type", "check", "crm")], ids=" ".join)
def test_an_event_stream_of_another_service_is_named(tmp_path: Path, command: tuple[str, ...], data: bytes) -> None:
    with serve(200, {"Content-Type": "text/event-stream"}, b"event: result\ndata: " + data + b"\n\n") as port:
        assert fail(tmp_path, *command, CONFIDE_URL=f"http://127.0.0.1:{port}") == NOT_CONFIDE


HOSTILE_TEXT = "\x1b[2J\x9b31mOWNED\u202e\u061c\n"


def test_an_error_of_a_service_cannot_control_the_terminal(tmp_path: Path) -> None:
    problem = {"code": "not-found", "detail": HOSTILE_TEXT, "title": "t", "status": 404, "type": "t"}
    with serve(404, {"Content-Type": "application/problem+json"}, json.dumps(problem).encode()) as port:
        sentence = fail(tmp_path, CONFIDE_URL=f"http://127.0.0.1:{port}")
    assert sentence == "\\u001b[2J\\u009b31mOWNED\\u202e\\u061c\\u000a"


@pytest.mark.parametrize("token", ["abc\n", "a b", "tök", "\ud7ff"])
def test_a_token_with_an_illegal_character_is_explained_and_not_printed(tmp_path: Path, token: str) -> None:
    sentence = fail(tmp_path, CONFIDE_TOKEN=token, CONFIDE_URL="http://127.0.0.1:1")
    assert sentence == (
        "The token contains a character that no token has, such as a space or a line break. Copy it again."
    )


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"ALL_PROXY": "socks5://127.0.0.1:1"}, "names a SOCKS proxy. Install the package socksio, or unset ALL_PROXY"),
        ({"ALL_PROXY": "gopher://u:pw@127.0.0.1:1"}, "The environment names an invalid proxy. Check HTTP_PROXY"),
        ({"HTTP_PROXY": "http://127.0.0.1:1"}, "through the proxy of the environment. Check HTTP_PROXY and NO_PROXY."),
        ({}, "No service answers at http://127.0.0.1:1."),
        ({"CONFIDE_URL": "https://u:pw@127.0.0.1:1"}, "No service answers at https://127.0.0.1:1."),
        ({"CONFIDE_URL": "http://no-such-host.invalid"}, "The host name of http://no-such-host.invalid is unknown."),
        ({"CONFIDE_URL": "http://127.0.0.1:x"}, "The URL of the service is invalid: "),
    ],
)
def test_a_service_that_cannot_be_reached_is_explained(tmp_path: Path, env: dict[str, str], sentence: str) -> None:
    lower = {name.lower(): value for name, value in env.items() if name.endswith("PROXY")}
    found = fail(tmp_path, **{"CONFIDE_URL": "http://127.0.0.1:1", "no_proxy": "", **env, **lower})
    assert sentence in found
    assert "pw" not in found


def test_text_that_is_not_unicode_is_explained(tmp_path: Path) -> None:
    damaged = os.fsdecode(b"\xff")
    url = f"http://127.0.0.1:{find_free_port()}"
    for command in (("config", "get", damaged, "crm"), ("token", "add", damaged), ("config", "delete", "a", damaged)):
        assert fail(tmp_path, *command, CONFIDE_URL=url) == "The request contains text that is not valid Unicode."


def test_without_a_home_folder_the_sentence_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container whose user ID has no account."""

    def find_no_account(_uid: int) -> object:
        raise KeyError

    for name in ("HOME", "XDG_CONFIG_HOME", "CONFIDE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", find_no_account)
    with pytest.raises(click.ClickException, match="Set HOME or XDG_CONFIG_HOME, or pass a token"):
        connection.connect("http://127.0.0.1:1")
    monkeypatch.setenv("CONFIDE_TOKEN", TOKEN)
    with connection.connect("http://127.0.0.1:1"):
        pass


def test_a_token_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "home" / "confide" / "token.json"
    file.parent.mkdir(parents=True)
    for content in (b"\xff\xfe{\x00", b"[]", json.dumps({"url": "x"}).encode()):
        file.write_bytes(content)
        assert fail(tmp_path, CONFIDE_TOKEN="") == f"{file} is damaged. Please log in again."
    file.unlink()
    file.mkdir()
    assert fail(tmp_path, CONFIDE_TOKEN="") == f"{file}: Is a directory."
