"""`/config` and `/configs`: the routes that carry the load, written against ASGI itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from confide import names, preconditions
from confide.configs import model as configs
from confide.configs.errors import IdempotencyKeyInvalid
from confide.configs.export import BrokenLine, ExportedConfig
from confide.configs.model import ConfigDraft, ConfigFilter, ConfigSummary, Deletion, SavedVersion, SavePreview
from confide.configs.save import Retry
from confide.errors import InvalidCursor, InvalidName, UnknownMember, Violation
from confide.identity import model as grants
from confide.identity import token_format
from confide.identity.errors import InvalidToken
from confide.names import Key
from confide.reads.request import floor_of
from confide.reads.response import ConfigResponse, answer_of
from confide.web import timestamps
from confide.web.errors import MalformedParameter
from confide.web.request import Call
from confide.web.response import Answer, json_answer

ADDRESS = ("tenant", "integration_type")
MEMBERS = frozenset({"tenant", "integration_type", "configuration", "note"})
MAX_LISTED = 1_000
DEFAULT_LISTED = 100

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_LIMIT = re.compile(r"[1-9][0-9]{0,3}")


async def read(call: Call) -> Answer | ConfigResponse:
    """Read a config for whoever asks in another way than plainly: the door has answered the plain reads."""
    token_hash = token_format.token_hash(call.token())
    if token_hash is None:
        raise InvalidToken
    by, is_away = await call.services.reading.who(token_hash)
    call.who = by
    call.require_no_body()
    asked = call.parameters(needed=ADDRESS, known=("defaults",))
    key = names.key(asked["tenant"], asked["integration_type"])
    is_bare = not switch(asked, "defaults", otherwise="on", words=("on", "off"))
    known, match = call.listed(b"if-none-match"), call.listed(b"if-match")
    condition = preconditions.condition(match, None)
    if known is not None:
        preconditions.tags(known)
    floor = floor_of(call.listed(b"cache-control"), call.header(b"config-min-version"))
    found = await call.services.reading.read(key, by=by, floor=floor, is_bare=is_bare, is_away=is_away)
    condition.require(found.answer.version)
    return answer_of(found, known)


async def merge(call: Call) -> Answer:
    return await _save(call, how="merge")


async def replace(call: Call) -> Answer:
    return await _save(call, how="replace")


async def retire(call: Call) -> Answer:
    by = await call.principal()
    call.require_no_body()
    asked = call.parameters(needed=ADDRESS, known=("note",))
    retirement = Deletion(names.key(asked["tenant"], asked["integration_type"]), configs.note(asked.get("note")))
    condition = preconditions.condition(call.listed(b"if-match"), call.listed(b"if-none-match"))
    retry = retry_of(call, content=call.scope["query_string"])
    return saved_answer(await call.services.configs.retire(retirement, by=by, condition=condition, retry=retry))


async def list_configs(call: Call) -> Answer:
    by = await call.principal()
    call.require_no_body()
    filters = ("changed_since", "unread_since", "conforms")
    asked = call.parameters(known=(*ADDRESS, "after", "limit", *filters))
    wanted = grants.scope(asked.get("tenant", "*"), asked.get("integration_type", "*"))
    limit, after = limit_of(asked.get("limit")), cursor(asked.get("after"))
    more = ConfigFilter(*(timestamps.read(name, asked.get(name)) for name in filters[:2]))
    if asked.get("conforms") is not None:
        if switch(asked, "conforms"):
            raise MalformedParameter("The parameter conforms is false, or left out.")
        found, last = await call.services.exporting.broken(wanted, by=by, after=after, limit=limit, more=more)
        broken = [{**_line(one), "errors": [violation.as_json() for violation in one.violations]} for one in found]
        return json_answer({"configs": broken, "next": None if last is None else ":".join(last)})
    lines = await call.services.configs.list(wanted, by=by, after=after, limit=limit + 1, more=more)
    shown = lines[:limit]
    return json_answer(
        {
            "configs": [
                {
                    **_line(line),
                    "last_read_at": None if line.last_read_at is None else timestamps.written(line.last_read_at),
                }
                for line in shown
            ],
            "next": ":".join(shown[-1].key) if len(lines) > limit else None,
        }
    )


async def export(call: Call) -> Answer:
    """A page of configs with what they hold, masked unless opened is asked for."""
    by = await call.principal()
    call.require_no_body()
    asked = call.parameters(known=(*ADDRESS, "after", "limit", "secrets"))
    wanted = grants.scope(asked.get("tenant", "*"), asked.get("integration_type", "*"))
    is_opened = switch(asked, "secrets", otherwise="masked", words=("opened", "masked"))
    limit, after = limit_of(asked.get("limit")), cursor(asked.get("after"))
    found, last = await call.services.exporting.page(wanted, by=by, after=after, limit=limit, is_opened=is_opened)
    lines = [{**_line(one), "masked": one.is_masked, "configuration": one.configuration} for one in found]
    return json_answer({"configs": lines, "next": None if last is None else ":".join(last)})


async def usage(call: Call) -> Answer:
    """Who read a config, when last and how often."""
    by = await call.principal()
    call.require_no_body()
    asked = call.parameters(needed=ADDRESS)
    key = names.key(asked["tenant"], asked["integration_type"])
    lines = await call.services.usage.of(key, by=by)
    shown = [{**line._asdict(), "last_read_at": timestamps.written(line.last_read_at)} for line in lines]
    return json_answer({"usage": shown})


def _line(line: ConfigSummary | BrokenLine | ExportedConfig) -> dict[str, Any]:
    return {**line.key._asdict(), "version": line.version, "saved_at": timestamps.written(line.saved_at)}


async def _save(call: Call, *, how: Any) -> Answer:
    by = await call.principal()
    document = await call.document()
    # After the body, which says tenant and type: a second place for them is refused.
    is_dry = switch(call.parameters(known=("dry_run",)), "dry_run")
    if not document.keys() <= MEMBERS:
        raise UnknownMember
    key = names.key(document.get("tenant"), document.get("integration_type"))
    condition = preconditions.condition(call.listed(b"if-match"), call.listed(b"if-none-match"))
    draft = ConfigDraft(key, document.get("configuration"), how, configs.note(document.get("note")))
    if is_dry:
        return tried(await call.services.configs.try_out(draft, by=by, condition=condition))
    retry = retry_of(call, content=await call.body())
    return saved_answer(await call.services.configs.save(draft, by=by, condition=condition, retry=retry))


def saved_answer(saved: SavedVersion) -> Answer:
    tenant, integration_type = saved.key
    headers = [(b"config-version", b"%d" % saved.version)]
    if saved.outcome is not configs.Outcome.RETIRED:
        of_type = b"" if saved.type_version is None else b".%d" % saved.type_version
        headers.append((b"etag", b'"%d%b"' % (saved.version, of_type)))
    if saved.is_replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return json_answer(
        {
            "message": f"Config '{tenant} : {integration_type}' is {saved.outcome}",
            "tenant": tenant,
            "integration_type": integration_type,
            "version": saved.version,
            **_warned(saved.warnings),
        },
        headers=tuple(headers),
    )


def tried(found: SavePreview) -> Answer:
    """What a save would come to, the diff as `GET /config/diff` writes it."""
    document = {"diff": found.diff, "outcome": found.outcome, "version": found.version}
    return json_answer(document | _warned(found.warnings))


def _warned(warnings: Sequence[Violation]) -> dict[str, Any]:
    return {"warnings": [violation.as_json() for violation in warnings]} if warnings else {}


def switch(
    asked: Mapping[str, str], name: str, *, otherwise: str = "false", words: tuple[str, str] = ("true", "false")
) -> bool:
    """Read a parameter that is one of two words; whether it is the first of them."""
    value = asked.get(name, otherwise)
    if value not in words:
        raise MalformedParameter(f"The parameter {name} is {words[0]} or {words[1]}.")
    return value == words[0]


def retry_of(call: Call, *, content: bytes) -> Retry | None:
    name = call.header(b"idempotency-key")
    if name is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(name):
        raise IdempotencyKeyInvalid
    return Retry(f"{call.method} {call.path}", name, content)


def limit_of(text: str | None) -> int:
    if text is None:
        return DEFAULT_LISTED
    if not _LIMIT.fullmatch(text) or int(text) > MAX_LISTED:
        raise MalformedParameter(f"The parameter limit is a number from 1 to {MAX_LISTED:,}.")
    return int(text)


def cursor(text: str | None) -> Key | None:
    if text is None:
        return None
    tenant, _, integration_type = text.partition(":")
    try:
        return names.key(tenant, integration_type)
    except InvalidName:
        raise InvalidCursor from None
