"""`/user`, `/users`: who may ask."""

from __future__ import annotations

import hmac
import re

from fastapi import APIRouter

from confide.errors import NotFound
from confide.identity import logins
from confide.identity.errors import InvalidLogin, NoToken
from confide.identity.model import User
from confide.identity.shapes import PasswordChange, UserAdded, UserCreate, UserList, UserShape, UserUpdate, grants_of
from confide.identity.users import UserDraft
from confide.web.request import Call
from confide.web.response import Answer, json_answer
from confide.web.router import HALF_OPEN, Asked, StrictRoute
from confide.web.shapes import Done
from confide.web.timestamps import written

router = APIRouter(route_class=StrictRoute, tags=["users"])

# A request that came through a proxy did not come from this machine, whatever its address says.
_FORWARDED = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)
_LOOPBACK_HOST = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


@router.post("/user", response_model=UserAdded, openapi_extra=HALF_OPEN, summary="Add a user")
async def add(call: Asked, body: UserCreate) -> Answer:
    """Add a user; without a password it is a service account.

    The first user of a store becomes admin and needs no token on loopback, the setup token elsewhere; after that
    an admin's token is needed.
    """
    draft = UserDraft(logins.login(body.login), body.password, grants_of(body.grants) or ())
    if await _is_first(call):
        user_id = await call.services.accounts.add_first(draft)
    else:
        user_id = await call.services.accounts.add(draft, by=await call.principal())
    return json_answer({"user_id": user_id})


@router.get("/users", response_model=UserList, summary="List users")
async def list_users(call: Asked) -> Answer:
    users = await call.services.accounts.list(by=await call.principal())
    return json_answer({"users": [_shown(user) for user in users]})


@router.get("/users/{login}", response_model=UserShape, summary="Read a user")
async def read(call: Asked, login: str) -> Answer:
    by = await call.principal()
    return json_answer(_shown(await call.services.accounts.read(_known(login), by=by)))


@router.patch("/users/{login}", response_model=UserShape, summary="Change a user")
async def change(call: Asked, login: str, body: UserUpdate) -> Answer:
    """Replace the grants, disable or enable, or set a new password. A new password ends all sessions."""
    user = await call.services.accounts.change(
        _known(login),
        by=await call.principal(),
        grants=grants_of(body.grants),
        is_disabled=body.disabled,
        password=body.password,
    )
    return json_answer(_shown(user))


@router.delete("/users/{login}", response_model=Done, summary="Remove a user and all its tokens")
async def remove(call: Asked, login: str) -> Answer:
    await call.services.accounts.remove(_known(login), by=await call.principal())
    return json_answer({"message": f"User '{login.lower()}' is removed"})


@router.put("/users/me/password", response_model=Done, summary="Change one's own password")
async def change_password(call: Asked, body: PasswordChange) -> Answer:
    """Change one's own password; ends all other sessions."""
    by = await call.principal()
    await call.services.accounts.change_own_password(body.old, body.new, by=by)
    return json_answer({"message": "The password is changed"})


async def _is_first(call: Call) -> bool:
    """Whether the caller may become the first user: at this machine, or with the setup token."""
    services = call.services
    token = call.bearer()
    if token is not None:
        is_setup = hmac.compare_digest(token.encode(), services.setup_token.encode())
        return is_setup and await services.accounts.can_add_first_user()
    if not services.is_loopback or not await services.accounts.can_add_first_user():
        raise NoToken
    # A page that made its own name point here is no first user either: the host must be this machine's.
    is_forwarded = any(name in _FORWARDED for name, _ in call.scope["headers"])
    if is_forwarded or not _LOOPBACK_HOST.fullmatch(call.header(b"host") or ""):
        raise NoToken
    return True


def _known(login: str) -> str:
    try:
        return logins.login(login)
    except InvalidLogin:
        raise NotFound from None


def _shown(user: User) -> dict[str, object]:
    return {
        "user_id": user.id,
        "login": user.login,
        "grants": [grant.as_json() for grant in user.grants],
        "disabled": user.is_disabled,
        "has_password": user.password is not None,
        "added_at": written(user.added_at),
    }
