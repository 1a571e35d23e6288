"""`confide login` and the token file that the other commands use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from confide.cli.options import known_password
from confide.client import ConfideError

if TYPE_CHECKING:
    from confide.client import Client
    from confide.client.calls import ApiRequest

DEFAULT_URL = "http://127.0.0.1:8080"
url_option = click.option(
    "--url",
    envvar="CONFIDE_URL",
    show_envvar=True,
    help=f"Address of the service. Defaults to the service of your last login, or {DEFAULT_URL}.",
)


@click.command()
@click.argument("name", metavar="[LOGIN]", required=False)
@url_option
def login(name: str | None, url: str | None) -> None:
    """Log in and store the session token in a file with mode 0600."""
    name = name or click.prompt("Login")
    where = url or DEFAULT_URL
    with _client(where) as client:
        session = client.login(name, known_password(name))
    path = token_file()
    _keep(path, {"url": where, "token": session["token"], "expires_at": session["expires_at"]})
    click.echo(f"Logged in as {name} until {session['expires_at']}; the token is in {path}.")


def connected(url: str | None) -> Client:
    """Return a client with the token from `CONFIDE_TOKEN`, or from the token file if it is for this service."""
    token = os.environ.get("CONFIDE_TOKEN")
    if token:
        return _client(url or DEFAULT_URL, token=token)
    kept = _kept()
    where = url or kept.get("url") or DEFAULT_URL
    if kept.get("url") != where:
        # Never send a token to another service than its issuer.
        raise click.ClickException(f"Not logged in at {where}. Run `confide login --url {where}` or set CONFIDE_TOKEN.")
    return _client(where, token=kept["token"])


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Say of what is missing what it was."""
    try:
        yield
    except ConfideError as error:
        if error.code != "not-found":
            raise
        raise click.ClickException(f"There is {what}, or none that you may see.") from error


def found(client: Client, call: ApiRequest, what: str) -> dict[str, Any]:
    with naming(what):
        return client.ask(call)


def _client(url: str, *, token: str | None = None) -> Client:
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"{url} is no address of a service: it begins with http:// or https://.")
    from confide.client import Client  # noqa: PLC0415 - serving must not load it

    # As OpenTelemetry hands a trace on to programs.
    return Client(url, token=token, traceparent=os.environ.get("TRACEPARENT"))


def token_file() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "confide" / "token.json"


def _kept() -> dict[str, str]:
    try:
        kept = json.loads(token_file().read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        kept = None
    if not isinstance(kept, dict) or not {"url", "token"} <= kept.keys():
        raise click.ClickException(f"{token_file()} is broken; log in again.")
    return kept


def _keep(path: Path, kept: dict[str, str]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(kept, file)
    new.rename(path)
