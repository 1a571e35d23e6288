"""`confide user`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import rich_click as click

from confide.cli.options import (
    as_json,
    grants_of,
    new_password,
    require_store,
    settings_of,
    show,
    show_table,
    store_options,
    written,
)
from confide.cli.session import connected, found, url_option
from confide.client.calls import request
from confide.identity.model import parse_login

if TYPE_CHECKING:
    from confide.server.settings import Settings


@click.group()
def user() -> None:
    """Manage users."""


@user.command()
@click.argument("login")
@click.option("--admin", is_flag=True, help="Create an admin directly in the store of this host. Needs no token.")
@click.option(
    "--grant", "grants", multiple=True, metavar="ROLE:TENANT:TYPE", help="Grant, such as editor:acme:*. Repeatable."
)
@click.option("--service", is_flag=True, help="Create a service account, which has tokens and no password.")
@store_options
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
        settings = require_store(settings_of(data=data, database=database))
        user_id = asyncio.run(_add_admin(settings, login, new_password(login)))
    else:
        document: dict[str, Any] = {"login": login, "grants": grants_of(grants)}
        with connected(url) as client:
            if not service:
                document["password"] = new_password(login)
            user_id = client.ask(request("POST", "/user", document=document))["user_id"]
    note = "" if admin or grants else " It has no grants yet. Add them with PATCH /users/{login}."
    click.echo(f"User {login.lower()} has id {user_id}.{note}")


@user.command("list")
@as_json
@url_option
def list_users(*, is_json: bool, url: str | None) -> None:
    """List users and their grants."""
    with connected(url) as client:
        users = client.ask(request("GET", "/users"))["users"]
    if is_json:
        show(users)
        return
    show_table(
        ("id", "login", "grants", "state", "since"),
        [(u["user_id"], u["login"], written(u["grants"]), _state(u), u["added_at"]) for u in users],
    )


@user.command()
@click.argument("login")
@store_options
def password(login: str, **given: str | None) -> None:
    """Set a user's password directly in the store of this host. All its sessions end."""
    settings = require_store(settings_of(**given))
    asyncio.run(_set_password(settings, login, new_password(login)))
    click.echo(f"The password of {login} is changed; all its sessions have ended.")


@user.command()
@click.argument("login")
@click.option("--enable", is_flag=True, help="Re-enable the user instead.")
@url_option
def disable(login: str, *, enable: bool, url: str | None) -> None:
    """Disable a user. Its sessions end and its tokens stop working."""
    with connected(url) as client:
        found(client, request("PATCH", f"/users/{login}", document={"disabled": not enable}), f"no user {login}")
    click.echo(f"User {login} is {'enabled' if enable else 'disabled'}.")


async def _add_admin(settings: Settings, login: str, password: str | None) -> int:
    from confide.identity.users import (  # noqa: PLC0415 - as above
        ADMIN,
        UserDraft,
    )
    from confide.server.preparation import prepare  # noqa: PLC0415 - as above
    from confide.server.wiring import open_process  # noqa: PLC0415 - as above

    await prepare(settings, accepts_unsafe=True)
    async with open_process(settings, accepts_unsafe=True) as process:
        return await process.identity.users.add_on_host(UserDraft(parse_login(login), password, ADMIN))


async def _set_password(settings: Settings, login: str, password: str) -> None:
    from confide.server.preparation import prepare  # noqa: PLC0415 - as above
    from confide.server.wiring import open_process  # noqa: PLC0415 - as above

    await prepare(settings, accepts_unsafe=True)
    async with open_process(settings, accepts_unsafe=True) as process:
        await process.identity.users.set_password_on_host(parse_login(login), password)


def _state(one: dict[str, Any]) -> str:
    if one["disabled"]:
        return "disabled"
    return "user" if one["has_password"] else "service account"
