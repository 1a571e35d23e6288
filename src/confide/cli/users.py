"""`confide user`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import rich_click as click

from confide.cli.connection import connect, explain_not_found, url_option
from confide.cli.input import add_database_options, json_option, parse_grants, prompt_new_password
from confide.cli.output import format_grants, print_json, print_line, print_table
from confide.cli.settings import WITH_KEYS, WITH_PASSWORDS, load_settings_of_database
from confide.client.protocol import build_path, build_request
from confide.errors import NotFound
from confide.identity.model import parse_login

if TYPE_CHECKING:
    from confide.server.settings import Settings


@click.group()
def user() -> None:
    """Manage users."""


@user.command()
@click.argument("login")
@click.option("--admin", is_flag=True, help="Create an admin directly in the database of this host. Needs no token.")
@click.option(
    "--grant", "grants", multiple=True, metavar="ROLE:TENANT:TYPE", help="Grant, such as editor:acme:*. Repeatable."
)
@click.option("--service", is_flag=True, help="Create a service account, which has tokens and no password.")
@add_database_options
@url_option
def add(
    login: str,
    *,
    admin: bool,
    grants: tuple[str, ...],
    service: bool,
    url: str | None,
    data: str,
    database: str | None,
) -> None:
    """Add a user. Prompt for the password, or read it from standard input."""
    if admin and (grants or service):
        raise click.UsageError(
            "--admin excludes --grant and --service. An admin has all permissions and logs in with a password."
        )
    if admin:
        settings = load_settings_of_database(uses=WITH_PASSWORDS, data=data, database=database)
        user_id = asyncio.run(_add_admin(settings, login, prompt_new_password(login)))
    else:
        document: dict[str, Any] = {"login": login, "grants": parse_grants(grants)}
        with connect(url) as client:
            if not service:
                document["password"] = prompt_new_password(login)
            user_id = client.send(build_request("POST", "/user", document=document))["user_id"]
    hint = f"`confide user set-grants {login.lower()} ROLE:TENANT:TYPE`"
    note = "" if admin or grants else f" It has no grants yet. Add them with {hint}."
    print_line(f"User {login.lower()} has id {user_id}.{note}")


@user.command("list")
@json_option
@url_option
def list_users(*, is_json: bool, url: str | None) -> None:
    """List users and their grants."""
    with connect(url) as client:
        users = client.send(build_request("GET", "/users"))["users"]
    if is_json:
        print_json(users)
        return
    print_table(
        ("id", "login", "grants", "state", "since"),
        [
            (
                user["user_id"],
                user["login"],
                format_grants(user["grants"]),
                _describe_state(user),
                user["added_at"],
            )
            for user in users
        ],
    )


@user.command("set-grants")
@click.argument("login")
@click.argument("grants", nargs=-1, metavar="[ROLE:TENANT:TYPE]...")
@url_option
def set_grants(login: str, *, grants: tuple[str, ...], url: str | None) -> None:
    """Replace the grants of a user. Without a grant, withdraw all.

    A grant is a role for a tenant and an integration type, such as editor:acme:*. Quote it, because of the *.
    """
    document = {"grants": parse_grants(grants)}
    with connect(url) as client, explain_not_found(f"no user {login}"):
        client.send(build_request("PATCH", build_path("users", login), document=document))
    print_line(f"Grants of user {login.lower()}: {format_grants(document['grants']) or 'none'}.")


@user.command()
@click.argument("login")
@click.option("--keep-tokens", is_flag=True, help="Keep the user's service tokens. Sessions always end.")
@add_database_options
def password(login: str, *, keep_tokens: bool, **options: str | None) -> None:
    """Set a user's password directly in the database of this host. All its tokens end, and it is unlocked."""
    settings = load_settings_of_database(uses=WITH_PASSWORDS, **options)
    asyncio.run(_set_password(settings, login, prompt_new_password(login), is_keeping_tokens=keep_tokens))
    ended = "sessions" if keep_tokens else "sessions and service tokens"
    print_line(f"The password of {login} is changed and all its {ended} have ended.")


@user.command()
@click.argument("login")
@add_database_options
def unlock(login: str, **options: str | None) -> None:
    """Forget a user's failed logins, directly in the database of this host."""
    settings = load_settings_of_database(uses=WITH_KEYS, **options)
    asyncio.run(_unlock(settings, login))
    print_line(f"User {login} can log in again.")


@user.command()
@click.argument("login")
@click.option("--enable", is_flag=True, help="Re-enable the user instead.")
@url_option
def disable(login: str, *, enable: bool, url: str | None) -> None:
    """Disable a user. Its sessions end and its tokens stop working."""
    with connect(url) as client, explain_not_found(f"no user {login}"):
        client.send(build_request("PATCH", build_path("users", login), document={"disabled": not enable}))
    print_line(f"User {login} is {'enabled' if enable else 'disabled'}.")


async def _add_admin(settings: Settings, login: str, password: str | None) -> int:
    from confide.identity.users import (  # noqa: PLC0415 - other commands must not load the server
        ADMIN,
        UserDraft,
    )
    from confide.server.preparation import prepare  # noqa: PLC0415 - as above
    from confide.server.wiring import open_process  # noqa: PLC0415 - as above

    await prepare(settings, is_unsafe_accepted=True)
    async with open_process(settings, is_unsafe_accepted=True) as process:
        return await process.identity.users.add_on_host(UserDraft(parse_login(login), password, ADMIN))


async def _set_password(settings: Settings, login: str, password: str, *, is_keeping_tokens: bool) -> None:
    from confide.server.preparation import prepare  # noqa: PLC0415 - as above
    from confide.server.wiring import open_process  # noqa: PLC0415 - as above

    await prepare(settings, is_unsafe_accepted=True)
    async with open_process(settings, is_unsafe_accepted=True) as process:
        try:
            await process.identity.users.set_password_on_host(
                parse_login(login), password, is_keeping_tokens=is_keeping_tokens
            )
        except NotFound:
            raise click.ClickException(f"There is no user {login}.") from None


async def _unlock(settings: Settings, login: str) -> None:
    from confide.server.preparation import prepare  # noqa: PLC0415 - as above
    from confide.server.wiring import open_process  # noqa: PLC0415 - as above

    await prepare(settings, is_unsafe_accepted=True)
    async with open_process(settings, is_unsafe_accepted=True) as process:
        try:
            await process.identity.users.unlock_on_host(parse_login(login))
        except NotFound:
            raise click.ClickException(f"There is no user {login}.") from None


def _describe_state(user: dict[str, Any]) -> str:
    if user["disabled"]:
        return "disabled"
    return "user" if user["has_password"] else "service account"
