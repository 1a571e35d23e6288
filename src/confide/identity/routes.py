"""HTTP routes of users, logins and tokens."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from confide.errors import NotFound
from confide.identity.errors import InvalidLogin, NoToken
from confide.identity.model import Grant, Principal, Role, Token, User, parse_grant, parse_login
from confide.identity.users import UserDraft
from confide.web.callers import has_proxy_header, is_loopback_address
from confide.web.parameters import format_time, parse_number
from confide.web.request import Request
from confide.web.response import Response, build_json_response
from confide.web.route import ADMIN, PUBLIC, SELF, Body, Returns, Route, RouteAccess, Target
from confide.web.shapes import Done

if TYPE_CHECKING:
    from confide.identity.tokens import Tokens
    from confide.identity.users import Users

MAX_GRANTS = 1_000
DAY_SECONDS = 24 * 60 * 60

_LOOPBACK_HOST = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


class GrantShape(Body):
    """A role on a tenant pattern and an integration type pattern: an exact name, `prefix*` or `*`."""

    role: str = Field(examples=["editor"], description="viewer, reader, editor or admin")
    tenant: str = Field(examples=["acme"])
    integration_type: str = Field(examples=["*"])


# It stops at the first invalid grant, because an error for each of many costs much.
Grants = Annotated[list[GrantShape], Field(max_length=MAX_GRANTS, fail_fast=True)]


class UserCreate(Body, title="NewUser"):
    """A new user. A user without a password is a service account."""

    login: str = Field(examples=["grace"])
    password: str | None = Field(default=None, examples=["violet kettle on the moon"])
    grants: Grants | None = Field(default=None)


class UserAdded(BaseModel):
    """The ID of a new user."""

    user_id: int = Field(examples=[1])


class UserShape(BaseModel):
    """A user."""

    user_id: int
    login: str
    grants: list[GrantShape]
    disabled: bool
    has_password: bool
    added_at: str = Field(examples=["2026-11-24T09:15:00.000Z"])


class UserList(BaseModel):
    """All users."""

    users: list[UserShape]


class UserUpdate(Body, title="UserPatch"):
    """Changes to a user. Omitted members keep their values."""

    grants: Grants | None = None
    disabled: bool | None = None
    password: str | None = None
    keep_tokens: bool = Field(
        default=False, description="With a new password: keep the user's service tokens. Sessions always end."
    )

    @model_validator(mode="after")
    def _check_password(self) -> UserUpdate:
        if self.keep_tokens and self.password is None:
            raise PydanticCustomError("password_missing", "Send keep_tokens only with a new password.")
        return self


class OwnToken(BaseModel):
    """The token of the request, without its secret."""

    id: int
    is_session: bool
    grants: list[GrantShape] | None = Field(description="Null if the token has no grants of its own.")
    expires_at: str | None


class OwnUser(BaseModel):
    """The caller."""

    user_id: int
    login: str
    service_account: bool
    admin: bool = Field(description="Whether the caller can administer the service with this token.")
    grants: list[GrantShape]
    token: OwnToken
    permissions: list[GrantShape] = Field(
        description="What the grants of the user and those of the token allow together, at most 1,000."
    )


class Login(Body):
    """A login with its password."""

    login: str = Field(examples=["grace"])
    password: str = Field(examples=["violet kettle on the moon"])


class Session(BaseModel):
    """The token of a new session."""

    token: str
    expires_at: str = Field(examples=["2026-11-24T21:15:00.000Z"])


class PasswordChange(Body):
    """The caller's old and new password."""

    old: str
    new: str
    keep_tokens: bool = Field(default=False, description="Keep the caller's service tokens. Other sessions always end.")


class TokenCreate(Body, title="NewToken"):
    """A new service token."""

    label: str = Field(min_length=1, max_length=128, pattern=r"^[\x20-\x7e]+$", examples=["worker of acme"])
    ttl_seconds: int = Field(default=90 * DAY_SECONDS, ge=60, le=3_650 * DAY_SECONDS)
    grants: Grants | None = Field(default=None, description="Narrower than the user's grants. Default: all of them.")
    login: str | None = Field(default=None, description="The user of the token. Admins only. Default: the caller.")


class TokenShape(BaseModel):
    """A token without its secret."""

    id: int
    login: str
    label: str
    is_session: bool
    grants: list[GrantShape] | None
    made_at: str
    expires_at: str


class TokenAdded(TokenShape):
    """A new service token with its secret."""

    token: str = Field(description="The secret. It is never shown again.")


class TokenList(BaseModel):
    """Tokens without their secrets."""

    tokens: list[TokenShape]


class IdentityRoutes:
    """Handlers of the routes of users, logins and tokens."""

    def __init__(self, users: Users, tokens: Tokens, *, setup_token: str, is_setup_token_optional: bool) -> None:
        self._users = users
        self._tokens = tokens
        # The secret that lets a client add the first user. Empty if there is none.
        self._setup_token = setup_token
        # Whether a client on this machine can do so without it.
        self._is_setup_token_optional = is_setup_token_optional

    async def add_user(self, request: Request) -> Response:
        body = request.get_body(UserCreate)
        draft = UserDraft(parse_login(body.login), body.password, read_grants(body.grants) or ())
        if request.is_authenticated:
            user_id = await self._users.add(draft, principal=request.principal)
        else:
            user_id = await self._users.add_first(draft)
        return build_json_response({"user_id": user_id})

    async def authenticate_creator(self, request: Request) -> None:
        """Authenticate the caller that adds a user. The first user has no token."""
        if not await self._is_first_user(request):
            request.principal = await self._tokens.authenticate(request.require_token())

    async def list_users(self, request: Request) -> Response:
        users = await self._users.list(principal=request.principal)
        return build_json_response({"users": [build_user_json(user) for user in users]})

    async def read_user(self, request: Request) -> Response:
        return build_json_response(
            build_user_json(await self._users.read(_read_login(request), principal=request.principal))
        )

    async def read_own_user(self, request: Request) -> Response:
        principal = request.principal
        permissions = await request.run(principal.find_permissions)
        return build_json_response(build_own_user_json(principal, permissions[:MAX_GRANTS]))

    async def update_user(self, request: Request) -> Response:
        body = request.get_body(UserUpdate)
        user = await self._users.change(
            _read_login(request),
            principal=request.principal,
            grants=read_grants(body.grants),
            is_disabled=body.disabled,
            password=body.password,
            is_keeping_tokens=body.keep_tokens,
        )
        return build_json_response(build_user_json(user))

    async def remove_user(self, request: Request) -> Response:
        login = _read_login(request)
        await self._users.remove(login, principal=request.principal)
        return build_json_response({"message": f"User '{login}' is removed"})

    async def change_password(self, request: Request) -> Response:
        body = request.get_body(PasswordChange)
        await self._users.change_own_password(
            body.old, body.new, principal=request.principal, is_keeping_tokens=body.keep_tokens
        )
        return build_json_response({"message": "The password is changed"})

    async def login(self, request: Request) -> Response:
        body = request.get_body(Login)
        created = await self._tokens.login(body.login, body.password)
        return build_json_response({"token": created.secret, "expires_at": format_time(created.token.expires_at)})

    async def logout(self, request: Request) -> Response:
        await self._tokens.logout(principal=request.principal)
        return build_json_response({"message": "The session is ended"})

    async def list_tokens(self, request: Request) -> Response:
        tokens = await self._tokens.list(principal=request.principal)
        return build_json_response({"tokens": [build_token_json(token) for token in tokens]})

    async def add_token(self, request: Request) -> Response:
        body = request.get_body(TokenCreate)
        created = await self._tokens.add(
            body.label,
            principal=request.principal,
            login=None if body.login is None else parse_login(body.login),
            ttl_seconds=body.ttl_seconds,
            grants=read_grants(body.grants),
        )
        return build_json_response({**build_token_json(created.token), "token": created.secret})

    async def revoke_token(self, request: Request) -> Response:
        token_id = parse_number(request.path_values["token_id"])
        if token_id is None:
            raise NotFound
        await self._tokens.revoke(token_id, principal=request.principal)
        return build_json_response({"message": f"Token {token_id} is revoked"})

    async def _is_first_user(self, request: Request) -> bool:
        """Return whether a client on this machine, or one with the setup token, can add the first user.

        A proxy on this machine that adds no header, sends HTTP/1.1 and replaces `Host` looks like a client on this
        machine. `CONFIDE_SETUP_TOKEN=required` excludes it.
        """
        token = request.find_token()
        if token is not None:
            is_setup = hmac.compare_digest(token.encode(), self._setup_token.encode())
            return is_setup and await self._users.can_add_first_user()
        if not self._is_setup_token_optional or not await self._users.can_add_first_user():
            raise NoToken
        client = request.scope.get("client")
        # The Host must be a loopback name too: a web page whose name resolves to this machine must not add the user.
        # Proxies send HTTP/1.0 unless their configuration says otherwise.
        is_local = (
            request.scope.get("http_version") == "1.1"
            and client is not None
            and is_loopback_address(client[0])
            and _LOOPBACK_HOST.fullmatch(request.find_header(b"host") or "") is not None
            and not has_proxy_header(request.scope)
        )
        if not is_local:
            raise NoToken
        return True


def read_grants(shapes: list[GrantShape] | None) -> tuple[Grant, ...] | None:
    """Parse the grants of a body. Raises `InvalidGrant` with the place."""
    if shapes is None:
        return None
    return tuple(
        parse_grant(shape.role, shape.tenant, shape.integration_type, place=f"/grants/{index}")
        for index, shape in enumerate(shapes)
    )


def _read_login(request: Request) -> str:
    try:
        return parse_login(request.path_values["login"])
    except InvalidLogin:
        raise NotFound from None


def build_user_json(user: User) -> dict[str, object]:
    return {
        "user_id": user.id,
        "login": user.login,
        "grants": [one.to_json() for one in user.grants],
        "disabled": user.is_disabled,
        "has_password": user.password is not None,
        "added_at": format_time(user.added_at),
    }


def build_own_user_json(principal: Principal, permissions: Sequence[Grant]) -> dict[str, object]:
    own = principal.token_grants
    return {
        "user_id": principal.user_id,
        "login": principal.login,
        "service_account": principal.is_service_account,
        "admin": principal.is_admin,
        "grants": [one.to_json() for one in principal.grants],
        "token": {
            "id": principal.token_id,
            "is_session": principal.is_session,
            "grants": None if own is None else [one.to_json() for one in own],
            "expires_at": None if principal.token_expires_at is None else format_time(principal.token_expires_at),
        },
        "permissions": [one.to_json() for one in permissions],
    }


def build_token_json(token: Token) -> dict[str, object]:
    return {
        "id": token.id,
        "login": token.login,
        "label": token.label,
        "is_session": token.is_session,
        "grants": None if token.grants is None else [one.to_json() for one in token.grants],
        "made_at": format_time(token.made_at),
        "expires_at": format_time(token.expires_at),
    }


_USERS, _TOKENS = "users", "tokens"

ROUTES: tuple[Route[IdentityRoutes], ...] = (
    Route(
        "POST",
        "/user",
        IdentityRoutes.add_user,
        access=RouteAccess(Target.SERVICE, Role.ADMIN, is_token_optional=True),
        operation_id="add_user_post",
        tag=_USERS,
        summary="Add a user",
        description="Add a user. A user without a password is a service account.\n\nThe first user"
        " becomes admin and needs the setup token, except from this machine on loopback. After that an admin's token is"
        " required.",
        body=UserCreate,
        returns=Returns((UserAdded,)),
        authenticate=IdentityRoutes.authenticate_creator,
    ),
    Route(
        "GET", "/users", IdentityRoutes.list_users, access=ADMIN,
        operation_id="list_users_users_get", tag=_USERS, summary="List users", returns=Returns((UserList,)),
    ),
    Route(
        "GET",
        "/users/me",
        IdentityRoutes.read_own_user,
        access=SELF,
        operation_id="read_own_user",
        tag=_USERS,
        summary="Who am I",
        description="The caller, the token of the request, and what both allow together.",
        returns=Returns((OwnUser,)),
    ),
    Route(
        "GET", "/users/{login}", IdentityRoutes.read_user, access=ADMIN,
        operation_id="read_users__login__get", tag=_USERS, summary="Read a user", returns=Returns((UserShape,)),
    ),
    Route(
        "PATCH",
        "/users/{login}",
        IdentityRoutes.update_user,
        access=ADMIN,
        operation_id="change_users__login__patch",
        tag=_USERS,
        summary="Update a user",
        description="Replace the grants, disable or enable the user, or set a new password. A new password ends all"
        " tokens of the user, unless `keep_tokens` keeps the service tokens.",
        body=UserUpdate,
        returns=Returns((UserShape,)),
    ),
    Route(
        "DELETE", "/users/{login}", IdentityRoutes.remove_user, access=ADMIN,
        operation_id="remove_users__login__delete", tag=_USERS, summary="Remove a user and all its tokens",
        returns=Returns((Done,)),
    ),
    Route(
        "PUT",
        "/users/me/password",
        IdentityRoutes.change_password,
        access=SELF,
        operation_id="change_password_users_me_password_put",
        tag=_USERS,
        summary="Change your own password",
        description="Change the caller's password. This ends all other tokens of the caller, unless `keep_tokens` keeps"
        " the service tokens.",
        body=PasswordChange,
        returns=Returns((Done,)),
    ),
    Route(
        "POST",
        "/login",
        IdentityRoutes.login,
        access=PUBLIC,
        operation_id="login_login_post",
        tag=_TOKENS,
        summary="Log in",
        description="Start a session of 12 hours. The response and its time are the same whether or not the login"
        " exists.",
        body=Login,
        returns=Returns((Session,)),
    ),
    Route(
        "POST", "/logout", IdentityRoutes.logout, access=SELF,
        operation_id="logout_logout_post", tag=_TOKENS, summary="End this session", returns=Returns((Done,)),
    ),
    Route(
        "GET",
        "/tokens",
        IdentityRoutes.list_tokens,
        access=SELF,
        operation_id="list_tokens_tokens_get",
        tag=_TOKENS,
        summary="List tokens",
        description="List the caller's tokens, or the tokens of all users for an admin. Secrets are never listed.",
        returns=Returns((TokenList,)),
    ),
    Route(
        "POST",
        "/tokens",
        IdentityRoutes.add_token,
        access=SELF,
        operation_id="add_tokens_post",
        tag=_TOKENS,
        summary="Create a service token",
        description="Create a token for the caller or, as admin, for any user. A token's effective permissions are the"
        " intersection of its own grants and its user's current grants.\n\nA token that a service token creates expires"
        " no later than its maker.",
        body=TokenCreate,
        returns=Returns((TokenAdded,)),
    ),
    Route(
        "DELETE", "/tokens/{token_id}", IdentityRoutes.revoke_token, access=RouteAccess(Target.TOKEN),
        operation_id="revoke_tokens__token_id__delete", tag=_TOKENS, summary="Revoke a token", returns=Returns((Done,)),
    ),
)  # fmt: skip
