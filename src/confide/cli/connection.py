"""Connection to the service, with the token of the last login."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from confide.cli.files import write_file
from confide.client import ConfideError

if TYPE_CHECKING:
    from confide.client import Client

DEFAULT_URL = "http://127.0.0.1:8080"
url_option = click.option(
    "--url",
    envvar="CONFIDE_URL",
    show_envvar=True,
    help=f"URL of the service. Defaults to the service of your last login, or {DEFAULT_URL}.",
)


def connect(url: str | None) -> Client:
    """Return a client with the token from `CONFIDE_TOKEN`, or from the token file if it is for this service."""
    token = os.environ.get("CONFIDE_TOKEN")
    if token:
        return build_client(url or DEFAULT_URL, token=token)
    session = _load_session()
    session_url = session.get("url")
    target = url or session_url or DEFAULT_URL
    if session_url != target:
        # Never send a token to another service than its issuer.
        raise click.ClickException(
            f"Not logged in at {target}. Run `confide login --url {target}` or set CONFIDE_TOKEN."
        )
    return build_client(target, token=session["token"])


def build_client(url: str, *, token: str | None = None) -> Client:
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"{url} is not the URL of a service. A URL begins with http:// or https://.")
    from confide.client import Client  # noqa: PLC0415 - `confide serve` must not load an HTTP client

    # OpenTelemetry passes a trace to child processes in this variable.
    return Client(url, token=token, traceparent=os.environ.get("TRACEPARENT"))


@contextmanager
def explain_not_found(subject: str) -> Iterator[None]:
    """Replace the error `not-found` by a sentence that names its subject, such as "no user ada"."""
    try:
        yield
    except ConfideError as error:
        if error.code != "not-found":
            raise
        raise click.ClickException(f"There is {subject}, or you may not see it.") from error


def fetch_all_pages(member: str, fetch_page: Callable[[str | None], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the items of all pages. `fetch_page` takes the `next` value of the previous page."""
    page = fetch_page(None)
    items: list[dict[str, Any]] = list(page[member])
    while page["next"] is not None:
        page = fetch_page(page["next"])
        items += page[member]
    return items


def save_session(session: dict[str, str]) -> Path:
    """Write the token file, readable by its owner only, in one rename. Return its path."""
    path = find_token_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(path, json.dumps(session))
    return path


def find_token_file() -> Path:
    """Return the path of the token file. Raises `click.ClickException` if the user has no home folder."""
    folder = os.environ.get("XDG_CONFIG_HOME")
    try:
        return Path(folder or Path.home() / ".config") / "confide" / "token.json"
    except RuntimeError:
        raise click.ClickException(
            "There is no home folder for the token file. Set HOME or XDG_CONFIG_HOME, or pass a token in CONFIDE_TOKEN."
        ) from None


def _load_session() -> dict[str, str]:
    path = find_token_file()
    try:
        session = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        session = None
    if not isinstance(session, dict) or not {"url", "token"} <= session.keys():
        raise click.ClickException(f"{path} is damaged. Please log in again.")
    return session
