"""`/login`, `/logout`, `/tokens`: what callers show instead of a password."""

from __future__ import annotations

from fastapi import APIRouter

from confide.errors import NotFound
from confide.identity import logins
from confide.identity.model import Token
from confide.identity.shapes import Login, Session, TokenAdded, TokenCreate, TokenList, grants_of
from confide.web.response import Answer, json_answer
from confide.web.router import OPEN, Asked, StrictRoute, number
from confide.web.shapes import Done
from confide.web.timestamps import written

router = APIRouter(route_class=StrictRoute, tags=["tokens"])


@router.post("/login", response_model=Session, openapi_extra=OPEN, summary="Log in")
async def login(call: Asked, body: Login) -> Answer:
    """Begin a session of 12 hours. The answer is the same, after the same time, whether or not the login exists."""
    token, expires_at = await call.services.tokens.login(body.login, body.password)
    return json_answer({"token": token, "expires_at": written(expires_at)})


@router.post("/logout", response_model=Done, summary="End this session")
async def logout(call: Asked) -> Answer:
    await call.services.tokens.logout(by=await call.principal())
    return json_answer({"message": "The session is ended"})


@router.get("/tokens", response_model=TokenList, summary="List tokens")
async def list_tokens(call: Asked) -> Answer:
    """One's own tokens; everybody's for an admin. Never their secrets."""
    tokens = await call.services.tokens.list(by=await call.principal())
    return json_answer({"tokens": [_shown(token) for token in tokens]})


@router.post("/tokens", response_model=TokenAdded, summary="Make a service token")
async def add(call: Asked, body: TokenCreate) -> Answer:
    """Make a token for oneself or, as admin, for any user. It may do what its own grants and its user's allow."""
    secret, token = await call.services.tokens.add(
        body.label,
        by=await call.principal(),
        login=None if body.login is None else logins.login(body.login),
        ttl_seconds=body.ttl_seconds,
        grants=grants_of(body.grants),
    )
    return json_answer({**_shown(token), "token": secret})


@router.delete("/tokens/{token_id}", response_model=Done, summary="Revoke a token")
async def revoke(call: Asked, token_id: str) -> Answer:
    by = await call.principal()
    known = number(token_id)
    if known is None:
        raise NotFound
    await call.services.tokens.revoke(known, by=by)
    return json_answer({"message": f"Token {known} is revoked"})


def _shown(token: Token) -> dict[str, object]:
    return {
        "id": token.id,
        "login": token.login,
        "label": token.label,
        "is_session": token.is_session,
        "grants": None if token.grants is None else [grant.as_json() for grant in token.grants],
        "made_at": written(token.made_at),
        "expires_at": written(token.expires_at),
    }
