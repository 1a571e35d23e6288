"""`confide token`."""

from __future__ import annotations

from typing import Any

import rich_click as click

from confide.cli.connection import connect, explain_not_found, url_option
from confide.cli.input import json_option, parse_grants
from confide.cli.output import format_grants, print_json, print_line, print_table
from confide.client.protocol import build_request

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
@json_option
@url_option
def add(label: str, *, login: str | None, days: int, grants: tuple[str, ...], is_json: bool, url: str | None) -> None:
    """Create a service token and print it. It cannot be shown again."""
    document: dict[str, object] = {"label": label, "ttl_seconds": days * DAY_SECONDS}
    if login:
        document["login"] = login
    if grants:
        document["grants"] = parse_grants(grants)
    with connect(url) as client, explain_not_found(f"no user {login}"):
        added = client.send(build_request("POST", "/tokens", document=document))
    if is_json:
        print_json(added)
        return
    print_line(added["token"])
    print_line(f"Token {added['id']} of {added['login']}, valid until {added['expires_at']}.", err=True)


@token.command("list")
@json_option
@url_option
def list_tokens(*, is_json: bool, url: str | None) -> None:
    """List your tokens. Admins see the tokens of all users."""
    with connect(url) as client:
        tokens = client.send(build_request("GET", "/tokens"))["tokens"]
    if is_json:
        print_json(tokens)
        return
    print_table(
        ("id", "login", "label", "kind", "grants", "until"),
        [
            (
                token["id"],
                token["login"],
                token["label"],
                "session" if token["is_session"] else "service",
                _format_token_grants(token),
                token["expires_at"],
            )
            for token in tokens
        ],
    )


@token.command()
@click.argument("token_id", type=click.IntRange(min=1))
@url_option
def revoke(token_id: int, *, url: str | None) -> None:
    """Revoke a token."""
    with connect(url) as client, explain_not_found(f"no token {token_id} of yours"):
        revoked = client.send(build_request("DELETE", f"/tokens/{token_id}"))
        print_line(revoked["message"] + ".")


def _format_token_grants(token: dict[str, Any]) -> str:
    return "all of its user's" if token["grants"] is None else format_grants(token["grants"])
