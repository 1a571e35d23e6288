"""`confide token`."""

from __future__ import annotations

from typing import Any

import rich_click as click

from confide.cli.options import as_json, grants_of, show, show_table, written
from confide.cli.session import connected, found, url_option
from confide.client.calls import request

DAY_SECONDS = 24 * 60 * 60


@click.group()
def token() -> None:
    """Manage tokens."""


@token.command()
@click.argument("label")
@click.option("--login", help="Owner of the token, yourself by default. Admins only.")
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, 3_650), help="Lifetime in days.")
@click.option(
    "--grant", "grants", multiple=True, metavar="ROLE:TENANT:TYPE", help="Limit the token to these grants. Repeatable."
)
@as_json
@url_option
def add(label: str, *, login: str | None, days: int, grants: tuple[str, ...], is_json: bool, url: str | None) -> None:
    """Create a service token and print it. It cannot be shown again."""
    document: dict[str, object] = {"label": label, "ttl_seconds": days * DAY_SECONDS}
    if login:
        document["login"] = login
    if grants:
        document["grants"] = grants_of(grants)
    with connected(url) as client:
        added = found(client, request("POST", "/tokens", document=document), f"no user {login}")
    if is_json:
        show(added)
        return
    click.echo(added["token"])
    click.echo(f"Token {added['id']} of {added['login']}, valid until {added['expires_at']}.", err=True)


@token.command("list")
@as_json
@url_option
def list_tokens(*, is_json: bool, url: str | None) -> None:
    """List your tokens. Admins see the tokens of all users."""
    with connected(url) as client:
        tokens = client.ask(request("GET", "/tokens"))["tokens"]
    if is_json:
        show(tokens)
        return
    show_table(
        ("id", "login", "label", "kind", "grants", "until"),
        [
            (t["id"], t["login"], t["label"], "session" if t["is_session"] else "service", _own(t), t["expires_at"])
            for t in tokens
        ],
    )


@token.command()
@click.argument("token_id", type=click.IntRange(min=1))
@url_option
def revoke(token_id: int, *, url: str | None) -> None:
    """Revoke a token."""
    with connected(url) as client:
        revoked = found(client, request("DELETE", f"/tokens/{token_id}"), f"no token {token_id} of yours")
        click.echo(revoked["message"] + ".")


def _own(token: dict[str, Any]) -> str:
    return "all of its user's" if token["grants"] is None else written(token["grants"])
