"""`confide login`."""

from __future__ import annotations

import rich_click as click

from confide.cli.connection import DEFAULT_URL, build_client, find_token_file, save_session, url_option
from confide.cli.input import prompt_password
from confide.cli.output import print_line


@click.command()
@click.argument("name", metavar="[LOGIN]", required=False)
@url_option
def login(name: str | None, url: str | None) -> None:
    """Log in and store the session token in a file with mode 0600."""
    find_token_file()  # without a folder for it, fail before the service creates a session
    name = name or click.prompt("Login")
    url = url or DEFAULT_URL
    with build_client(url) as client:
        session = client.login(name, prompt_password(name))
    path = save_session({"url": url, "token": session["token"], "expires_at": session["expires_at"]})
    print_line(f"Logged in as {name} until {session['expires_at']}. The token is in {path}.")
