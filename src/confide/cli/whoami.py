"""`confide whoami`."""

from __future__ import annotations

import rich_click as click

from confide.cli.connection import connect, url_option
from confide.cli.input import json_option
from confide.cli.output import print_json, print_line, print_table


@click.command()
@json_option
@url_option
def whoami(*, is_json: bool, url: str | None) -> None:
    """Show the user and the token that commands use, and what they may do."""
    with connect(url) as client:
        found = client.read_own_user()
    if is_json:
        print_json(found)
        return
    token = found["token"]
    kind = "session" if token["is_session"] else "service token"
    print_line(f"{found['login']}, with the {kind} {token['id']}, which expires at {token['expires_at']}.")
    columns = ("role", "tenant", "integration_type")
    print_table(columns, [[grant[column] for column in columns] for grant in found["permissions"]])
