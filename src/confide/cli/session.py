"""`confide login`, and the token file that every other command shows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import rich_click as click

from confide.cli.options import known_password
from confide.client import Client

DEFAULT_URL = "http://127.0.0.1:8080"
url_option = click.option(
    "--url", envvar="CONFIDE_URL", show_envvar=True, help=f"Where the service is; {DEFAULT_URL} if left out."
)


@click.command()
@click.argument("name", metavar="[LOGIN]", required=False)
@url_option
def login(name: str | None, url: str | None) -> None:
    """Log in and keep the session's token in a file of your own, mode 0600."""
    name = name or click.prompt("Login")
    where = url or DEFAULT_URL
    with Client(where) as client:
        session = client.login(name, known_password(name))
    path = token_file()
    _keep(path, {"url": where, "token": session["token"], "expires_at": session["expires_at"]})
    click.echo(f"Logged in as {name} until {session['expires_at']}; the token is in {path}.")


def connected(url: str | None) -> Client:
    """A client with the token of `CONFIDE_TOKEN` or of the token file."""
    token = os.environ.get("CONFIDE_TOKEN")
    kept = {} if token else _kept()
    if not token and not kept:
        raise click.ClickException("Not logged in: confide login, or set CONFIDE_TOKEN.")
    return Client(url or kept.get("url") or DEFAULT_URL, token=token or kept["token"])


def token_file() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "confide" / "token.json"


def _kept() -> dict[str, str]:
    try:
        kept: dict[str, str] = json.loads(token_file().read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise click.ClickException(f"{token_file()} is broken; log in again.") from None
    return kept


def _keep(path: Path, kept: dict[str, str]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(kept, file)
    new.rename(path)
