"""What the OpenAPI document says of the routes that stay out of the framework."""

from __future__ import annotations

from typing import Any

from confide.changes.shapes import ChangeList
from confide.configs.shapes import ConfigBody, ConfigExport, ConfigList, ConfigSaved, ConfigShape, DryRunShape
from confide.reads.shapes import UsageList

_Operation = dict[str, Any]


def _schema(model: type[Any]) -> dict[str, Any]:
    schema: dict[str, Any] = model.model_json_schema()
    inner = schema.pop("$defs", {})
    resolved: dict[str, Any] = _resolved(schema, inner)
    return resolved


def _resolved(value: Any, inner: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if "$ref" in value:
            return _resolved(inner[value["$ref"].rsplit("/", 1)[1]], inner)
        return {name: _resolved(child, inner) for name, child in value.items()}
    return [_resolved(child, inner) for child in value] if isinstance(value, list) else value


def _in_query(name: str, description: str, *, required: bool = False, example: str | None = None) -> _Operation:
    schema: dict[str, Any] = {"type": "string"}
    parameter = {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": schema,
    }
    return parameter if example is None else {**parameter, "example": example}


def _in_header(name: str, description: str) -> _Operation:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


_TENANT = _in_query("tenant", "An exact name.", required=True, example="acme")
_TYPE = _in_query("integration_type", "An exact name.", required=True, example="flight-information-system")
_DEFAULTS = _in_query("defaults", "`off`: what is stored, without the defaults of its type.")
_IF_MATCH = _in_header("If-Match", "Only if this is the config's current tag; otherwise 412.")
_IF_NONE_MATCH = _in_header("If-None-Match", "`*`: only if there is no such config; otherwise 412.")
_KNOWN_TAG = _in_header("If-None-Match", "A tag that is known; 304 if it is still current.")
_IDEMPOTENCY = _in_header("Idempotency-Key", "1 to 255 visible ASCII characters; a retry within 24 h is told the same.")
_HEADERS = {
    "ETag": {"schema": {"type": "string"}},
    "Config-Version": {"schema": {"type": "integer"}},
}


def _answered(*models: type[Any], headers: dict[str, Any] | None = None) -> _Operation:
    schemas = [_schema(model) for model in models]
    answer: dict[str, Any] = {
        "description": "Done",
        "content": {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}},
    }
    return answer if headers is None else {**answer, "headers": headers}


def _operation(summary: str, description: str, **more: Any) -> _Operation:
    name = summary.lower().replace(" ", "_")
    return {"tags": ["configs"], "summary": summary, "description": description, "operationId": name, **more}


_BODY = {"required": True, "content": {"application/json": {"schema": _schema(ConfigBody)}}}
_DRY_RUN = _in_query("dry_run", "`true`: say what it would come to and store nothing.")
_NOTE = _in_query("note", "Why, in one line, for the history; no place for secrets.")
_SAVE = {
    "parameters": [_DRY_RUN, _IF_MATCH, _IF_NONE_MATCH, _IDEMPOTENCY],
    "requestBody": _BODY,
    "responses": {"200": _answered(ConfigSaved, DryRunShape, headers=_HEADERS)},
}

CONFIG_PATHS: dict[str, dict[str, _Operation]] = {
    "/config": {
        "get": _operation(
            "Read a config",
            "The current version. Viewers see secrets as `********`.",
            parameters=[_TENANT, _TYPE, _DEFAULTS, _KNOWN_TAG, _IF_MATCH],
            responses={
                "200": _answered(ConfigShape, headers=_HEADERS),
                "304": {"description": "The known tag is still current."},
            },
        ),
        "post": _operation(
            "Merge into a config",
            "Deep merge (RFC 7396): objects merge, null removes, the rest replaces. Creates what is missing.",
            **_SAVE,
        ),
        "put": _operation("Replace a config", "Puts the configuration in the place of what is there.", **_SAVE),
        "delete": _operation(
            "Retire a config",
            "It then reads as missing and keeps its history; numbers go on.",
            parameters=[_TENANT, _TYPE, _NOTE, _IF_MATCH, _IDEMPOTENCY],
            responses={"200": _answered(ConfigSaved)},
        ),
    },
    "/watch": {
        "get": _operation(
            "Watch changes",
            "Server-sent events: `id` is the position, `event` what happened, `data` says to what, never a body. Each"
            " change once, in order; go on by `Last-Event-ID` or `after`, otherwise it begins now. An `id` alone every"
            " 15 seconds shows that the stream lives. `bye` says that this process ends, `refused` that the token did.",
            parameters=[
                _in_query("tenant", "A name, `prefix*` or `*`."),
                _in_query("integration_type", "A name, `prefix*` or `*`."),
                _in_query("after", "A position; `0` is the beginning of the log."),
                _in_query("wait", "Seconds, 0 to 60: no stream, but one answer once there is something to tell."),
                _in_header("Last-Event-ID", "The last position that was heard; it wins over `after`."),
            ],
            responses={
                "200": {
                    "description": "Events",
                    "content": {
                        "text/event-stream": {"schema": {"type": "string"}},
                        "application/json": {"schema": _schema(ChangeList)},
                    },
                }
            },
        ),
    },
    "/configs": {
        "get": _operation(
            "List configs",
            "Keys, versions and times of what the caller may see, in order of key; never bodies.",
            parameters=[
                _in_query("tenant", "A name, `prefix*` or `*`."),
                _in_query("integration_type", "A name, `prefix*` or `*`."),
                _in_query("after", "The `next` of the page before."),
                _in_query("limit", "1 to 1,000; 100 if left out."),
                _in_query("changed_since", "RFC 3339: saved at that time or later."),
                _in_query("unread_since", "RFC 3339: read by nobody since, and not saved since either."),
                _in_query("conforms", "`false`: only those that break the schema of their type, with where."),
            ],
            responses={"200": _answered(ConfigList)},
        ),
    },
    "/configs/export": {
        "get": _operation(
            "Export configs",
            "Configs with what they hold, as it is stored, in order of key, as many as can be opened in a second;"
            " `next` goes on. Opened, secrets are shown where the caller may read them, and each such page is audited.",
            parameters=[
                _in_query("tenant", "A name, `prefix*` or `*`."),
                _in_query("integration_type", "A name, `prefix*` or `*`."),
                _in_query("after", "The `next` of the page before."),
                _in_query("limit", "1 to 1,000; 100 if left out."),
                _in_query("secrets", "`masked` or `opened`; masked if left out."),
            ],
            responses={"200": _answered(ConfigExport)},
        ),
    },
    "/config/usage": {
        "get": _operation(
            "Who reads a config",
            "Each token that read it, when last and how often, written down every ten seconds. For editors.",
            parameters=[_TENANT, _TYPE],
            responses={"200": _answered(UsageList)},
        ),
    },
}
