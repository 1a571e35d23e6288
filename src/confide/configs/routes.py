"""HTTP routes of configs: saving, history, listing and export."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from confide import names, preconditions, strict_json
from confide.changes.model import Position
from confide.configs import model
from confide.configs.errors import ConfirmWrong, IdempotencyKeyInvalid
from confide.configs.export import ExportedConfig
from confide.configs.history import BEFORE_FIRST_VERSION
from confide.configs.listing import ConfigWithViolations, NonconformingPage
from confide.configs.model import (
    ConfigDraft,
    ConfigFilter,
    ConfigSummary,
    Deletion,
    Rollback,
    SavedVersion,
    SavePreview,
    VersionSummary,
)
from confide.configs.save import IdempotencyKey
from confide.configs.shapes import (
    ConfigBody,
    ConfigDiff,
    ConfigExport,
    ConfigList,
    ConfigSaved,
    PreviewShape,
    RollbackBody,
    TenantDestroyed,
    TenantList,
    VersionList,
    VersionShape,
)
from confide.errors import InvalidCursor, InvalidName, NotFound, Violation
from confide.identity.model import SecretsMode
from confide.strict_json import Json
from confide.web.errors import MalformedParameter
from confide.web.paging import cut_page
from confide.web.parameters import (
    DRY_RUN,
    INTEGRATION_TYPE,
    KEY_CURSOR,
    LIMIT,
    PRECONDITION,
    SECRETS,
    TENANT,
    TENANT_PATTERN,
    TYPE_PATTERN,
    declare_time,
    format_key_cursor,
    format_time,
    parse_number,
    read_key,
    read_precondition,
    read_scope,
)
from confide.web.request import Request
from confide.web.response import Response, build_json_response
from confide.web.route import (
    ADMIN,
    EDITOR,
    VIEWER,
    VISIBLE,
    Header,
    Parameter,
    ResponseHeader,
    Returns,
    Route,
    declare_required_text,
    declare_switch,
)

if TYPE_CHECKING:
    from confide.configs.export import ConfigExporter
    from confide.configs.history import History
    from confide.configs.listing import ConfigLister
    from confide.configs.save import ConfigWriter
    from confide.configs.tenants import Tenants

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class ConfigRoutes:
    """Handlers of the routes of configs."""

    def __init__(
        self,
        writer: ConfigWriter,
        lister: ConfigLister,
        history: History,
        exporter: ConfigExporter,
        tenants: Tenants,
        *,
        format_position: Callable[[Position], str],
    ) -> None:
        self._writer = writer
        self._lister = lister
        self._history = history
        self._exporter = exporter
        self._tenants = tenants
        self._format_position = format_position

    async def merge(self, request: Request) -> Response:
        return await self._save(request, mode="merge")

    async def replace(self, request: Request) -> Response:
        return await self._save(request, mode="replace")

    async def _save(self, request: Request, *, mode: Literal["merge", "replace"]) -> Response:
        body = request.get_body(ConfigBody)
        key = names.parse_key(body.tenant, body.integration_type)
        precondition = read_precondition(request)
        draft = ConfigDraft(key, body.configuration, mode, model.parse_note(body.note), size_bytes=len(request.body))
        if (preview_mode := read_preview_mode(request)) is not None:
            preview = await self._writer.preview(
                draft, principal=request.principal, precondition=precondition, secrets=preview_mode
            )
            return await request.run(lambda: build_preview_response(preview))
        saved = await self._writer.save(
            draft,
            principal=request.principal,
            precondition=precondition,
            idempotency_key=read_idempotency_key(request, content=request.body),
        )
        return build_saved_response(saved)

    async def delete(self, request: Request) -> Response:
        deletion = Deletion(read_key(request), _NOTE.read(request))
        saved = await self._writer.delete(
            deletion,
            principal=request.principal,
            precondition=read_precondition(request),
            idempotency_key=read_idempotency_key(request, content=request.scope["query_string"]),
        )
        return build_saved_response(saved)

    async def roll_back(self, request: Request) -> Response:
        body = request.get_body(RollbackBody)
        key = names.parse_key(body.tenant, body.integration_type)
        precondition = read_precondition(request)
        rollback = Rollback(key, body.version, model.parse_note(body.note))
        if (preview_mode := read_preview_mode(request)) is not None:
            preview = await self._writer.preview(
                rollback, principal=request.principal, precondition=precondition, secrets=preview_mode
            )
            return await request.run(lambda: build_preview_response(preview))
        saved = await self._writer.roll_back(
            rollback,
            principal=request.principal,
            precondition=precondition,
            idempotency_key=read_idempotency_key(request, content=request.body),
        )
        return build_saved_response(saved)

    async def list_configs(self, request: Request) -> Response:
        scope, limit, after = read_scope(request), LIMIT.read(request), KEY_CURSOR.read(request)
        filters = ConfigFilter(_CHANGED_SINCE.read(request), _UNREAD_SINCE.read(request))
        if _CONFORMS.read(request) is False:
            nonconforming = await self._lister.list_nonconforming(
                scope, principal=request.principal, after=after, limit=limit, filters=filters
            )
            return await request.run(lambda: _build_nonconforming_response(nonconforming))
        found = await self._lister.list_configs(
            scope, principal=request.principal, after=after, limit=limit + 1, filters=filters
        )
        page = cut_page(found, limit)
        listed = [
            {
                **_build_summary_json(config),
                "last_read_at": None if config.last_read_at is None else format_time(config.last_read_at),
            }
            for config in page.items
        ]
        following = None if page.last_item is None else page.last_item.key
        return build_json_response({"configs": listed, "next": format_key_cursor(following)})

    async def list_tenants(self, request: Request) -> Response:
        scope, limit, after = read_scope(request), LIMIT.read(request), _TENANT_CURSOR.read(request)
        found = await self._lister.list_tenants(scope, principal=request.principal, after=after, limit=limit + 1)
        page = cut_page(found, limit)
        following = None if page.last_item is None else page.last_item.tenant
        return build_json_response({"tenants": [one._asdict() for one in page.items], "next": following})

    async def export(self, request: Request) -> Response:
        scope, is_unmasked = read_scope(request), _EXPORT_SECRETS.read(request)
        limit, after = LIMIT.read(request), KEY_CURSOR.read(request)
        page = await self._exporter.export_page(
            scope, principal=request.principal, after=after, limit=limit, is_masked=not is_unmasked
        )
        exported = b",".join(map(_write_exported, page.configs))
        following = strict_json.write(format_key_cursor(page.last_key))
        return Response(b'{"configs":[%b],"next":%b}' % (exported, following))

    async def list_versions(self, request: Request) -> Response:
        key, limit, before = read_key(request), LIMIT.read(request), _BEFORE_VERSION.read(request)
        found = await self._history.list_versions(key, principal=request.principal, before=before, limit=limit + 1)
        page = cut_page(found, limit)
        following = None if page.last_item is None else str(page.last_item.version)
        return build_json_response(
            {"versions": [self._build_version_json(one) for one in page.items], "next": following}
        )

    async def read_version(self, request: Request) -> Response:
        key = read_key(request)
        number = parse_number(request.path_values["version"])
        if number is None:
            raise NotFound
        version = await self._history.read_version(
            key, number, principal=request.principal, secrets=SECRETS.read(request)
        )
        document = {
            **key._asdict(),
            **self._build_version_json(version.summary),
            "configuration": version.configuration,
        }
        return await request.run(lambda: build_json_response(document))

    async def diff(self, request: Request) -> Response:
        key, since, until = read_key(request), _FROM_VERSION.read(request), _TO_VERSION.read(request)
        changes = await self._history.compare(
            key, since=since, until=until, principal=request.principal, secrets=SECRETS.read(request)
        )
        return await request.run(lambda: build_json_response(changes))

    async def destroy_tenant(self, request: Request) -> Response:
        tenant = names.parse_name(request.path_values["tenant"])
        if _CONFIRM.read(request) != tenant:
            raise ConfirmWrong
        deleted = await self._tenants.destroy(tenant, principal=request.principal)
        return build_json_response({"tenant": tenant, "retired": deleted})

    def _build_version_json(self, version: VersionSummary) -> Json:
        return {
            "version": version.version,
            "position": self._format_position(version.position),
            "kind": version.kind,
            "saved_by": version.saved_by,
            "saved_at": format_time(version.saved_at),
            "note": version.note,
            "pruned": version.is_pruned,
        }


def read_idempotency_key(request: Request, *, content: bytes) -> IdempotencyKey | None:
    """Read the `Idempotency-Key` of a request, with the content that a retry must repeat. None if it has no key."""
    value = request.find_header(b"idempotency-key")
    if value is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(value):
        raise IdempotencyKeyInvalid
    return IdempotencyKey(f"{request.method} {request.path}", value, content)


def read_preview_mode(request: Request) -> SecretsMode | None:
    """Return how a preview shows secrets, or None if the request is not a dry run."""
    secrets = SECRETS.read(request)
    if DRY_RUN.read(request):
        return secrets or SecretsMode.OPENED
    if secrets is not None:
        raise MalformedParameter("The parameter secrets is for a dry run. Add dry_run=true.")
    return None


def build_saved_response(saved: SavedVersion) -> Response:
    tenant, integration_type = saved.key
    headers = [(b"config-version", b"%d" % saved.version)]
    if saved.outcome is not model.Outcome.DELETED:
        headers.append(
            (b"etag", preconditions.format_tag(saved.version, saved.type_version, epoch=saved.epoch).encode())
        )
    if saved.is_replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return build_json_response(
        {
            "message": f"Config '{tenant} : {integration_type}' is {saved.outcome}",
            "tenant": tenant,
            "integration_type": integration_type,
            "version": saved.version,
            **_build_warnings_json(saved.warnings),
        },
        headers=tuple(headers),
    )


def build_preview_response(preview: SavePreview) -> Response:
    document = {"diff": preview.diff, "outcome": preview.outcome, "version": preview.version}
    return build_json_response(document | _build_warnings_json(preview.warnings))


def _build_warnings_json(warnings: Sequence[Violation]) -> Json:
    return {"warnings": [violation.to_json() for violation in warnings]} if warnings else {}


def _build_nonconforming_response(page: NonconformingPage) -> Response:
    listed = [
        {**_build_summary_json(config), "errors": [violation.to_json() for violation in config.violations]}
        for config in page.configs
    ]
    return build_json_response({"configs": listed, "next": format_key_cursor(page.last_key)})


def _write_exported(config: ExportedConfig) -> bytes:
    """Write a config around its configuration, which is JSON already."""
    summary = strict_json.write({**_build_summary_json(config), "masked": config.is_masked})
    configuration = b"null" if config.configuration is None else config.configuration
    return b'%b,"configuration":%b}' % (summary.removesuffix(b"}"), configuration)


def _build_summary_json(config: ConfigSummary | ConfigWithViolations | ExportedConfig) -> Json:
    return {**config.key._asdict(), "version": config.version, "saved_at": format_time(config.saved_at)}


def _parse_conforms(value: str) -> Literal[False]:
    if value not in ("true", "false"):
        raise MalformedParameter("The parameter conforms must be true or false.")
    if value == "true":
        raise MalformedParameter("The parameter conforms must be false. Leave it out to list all configs.")
    return False


def _parse_tenant_cursor(value: str) -> str:
    try:
        return names.parse_name(value)
    except InvalidName:
        raise InvalidCursor from None


def _parse_version_cursor(value: str) -> int | None:
    number = parse_number(value)
    if number is None:
        raise InvalidCursor
    return number


def _declare_version(name: str, description: str) -> Parameter[int]:
    def parse(value: str) -> int:
        number = BEFORE_FIRST_VERSION if value == str(BEFORE_FIRST_VERSION) else parse_number(value)
        if number is None:
            raise MalformedParameter(f"The parameter {name} must be the number of a version.")
        return number

    return Parameter(name, description, parse, 0, is_required=True)


_NOTE: Parameter[str | None] = Parameter(
    "note", "A one-line reason for the history. Not for secrets.", model.parse_note, None
)
_CHANGED_SINCE = declare_time("changed_since", "RFC 3339: saved at that time or later.")
_UNREAD_SINCE = declare_time("unread_since", "RFC 3339: neither read nor saved since that time.")
_CONFORMS: Parameter[Literal[False] | None] = Parameter(
    "conforms", "`false`: only configs that violate the schema of their type.", _parse_conforms, None
)
_EXPORT_SECRETS = declare_switch(
    "secrets", "`masked` or `opened`. Default: `masked`.", true_word="opened", false_word="masked"
)
_TENANT_CURSOR: Parameter[str | None] = Parameter(
    "after", "The `next` value of the previous page.", _parse_tenant_cursor, None
)
_BEFORE_VERSION: Parameter[int | None] = Parameter(
    "after", "The `next` value of the previous page.", _parse_version_cursor, None
)
_FROM_VERSION = _declare_version("from", "A version. 0 means before the first version.")
_TO_VERSION = _declare_version("to", "A version.")
_CONFIRM = declare_required_text("confirm", "The tenant's name again.")
_IDEMPOTENCY = Header(
    "Idempotency-Key", "1 to 255 visible ASCII characters. A retry within 24 hours gets the first response again."
)
_SAVE_REQUEST_HEADERS = (*PRECONDITION, _IDEMPOTENCY)
_DELETE_HEADERS = (ResponseHeader("Config-Version", "integer"), ResponseHeader("Idempotency-Replayed", "boolean"))
_SAVE_HEADERS = (ResponseHeader("ETag", "string"), *_DELETE_HEADERS)
_CONFIGS, _HISTORY = "configs", "history"

ROUTES: tuple[Route[ConfigRoutes], ...] = (
    Route(
        "POST",
        "/config",
        ConfigRoutes.merge,
        access=EDITOR,
        operation_id="merge_into_a_config",
        tag=_CONFIGS,
        summary="Merge into a config",
        description="Deep merge (RFC 7396): objects merge, null removes a member, any other value replaces it. Creates"
        " the config if it does not exist.",
        body=ConfigBody,
        query=(DRY_RUN, SECRETS),
        headers=_SAVE_REQUEST_HEADERS,
        returns=Returns((ConfigSaved, PreviewShape), headers=_SAVE_HEADERS),
    ),
    Route(
        "PUT",
        "/config",
        ConfigRoutes.replace,
        access=EDITOR,
        operation_id="replace_a_config",
        tag=_CONFIGS,
        summary="Replace a config",
        description="Replaces the whole configuration.",
        body=ConfigBody,
        query=(DRY_RUN, SECRETS),
        headers=_SAVE_REQUEST_HEADERS,
        returns=Returns((ConfigSaved, PreviewShape), headers=_SAVE_HEADERS),
    ),
    Route(
        "DELETE",
        "/config",
        ConfigRoutes.delete,
        access=EDITOR,
        operation_id="retire_a_config",
        tag=_CONFIGS,
        summary="Delete a config",
        description="The config then reads as missing and keeps its history. Version numbers continue.",
        query=(TENANT, INTEGRATION_TYPE, _NOTE),
        headers=_SAVE_REQUEST_HEADERS,
        returns=Returns((ConfigSaved,), headers=_DELETE_HEADERS),
    ),
    Route(
        "GET",
        "/configs",
        ConfigRoutes.list_configs,
        access=VISIBLE,
        operation_id="list_configs",
        tag=_CONFIGS,
        summary="List configs",
        description="Keys, versions and times of the configs that the caller may see, in order of key, without"
        " configurations.",
        query=(TENANT_PATTERN, TYPE_PATTERN, KEY_CURSOR, LIMIT, _CHANGED_SINCE, _UNREAD_SINCE, _CONFORMS),
        returns=Returns((ConfigList,)),
    ),
    Route(
        "GET",
        "/configs/export",
        ConfigRoutes.export,
        access=VISIBLE,
        operation_id="export_configs",
        tag=_CONFIGS,
        summary="Export configs",
        description="Configs with their stored configurations, in order of key, as many as one second allows; `next`"
        " continues. With `secrets=opened`, secrets are shown where the caller may read them, and each page is"
        " audited.",
        query=(TENANT_PATTERN, TYPE_PATTERN, KEY_CURSOR, LIMIT, _EXPORT_SECRETS),
        returns=Returns((ConfigExport,)),
    ),
    Route(
        "GET",
        "/config/versions",
        ConfigRoutes.list_versions,
        access=VIEWER,
        operation_id="versions_config_versions_get",
        tag=_HISTORY,
        summary="List versions",
        description="All versions of a config, the newest first, including tombstones, without configurations.",
        query=(TENANT, INTEGRATION_TYPE, _BEFORE_VERSION, LIMIT),
        returns=Returns((VersionList,)),
    ),
    Route(
        "GET",
        "/config/versions/{version}",
        ConfigRoutes.read_version,
        access=VIEWER,
        operation_id="version_config_versions__version__get",
        tag=_HISTORY,
        summary="Read a version",
        description="One version with its configuration. For callers who can read secrets this is an audited secret"
        " access.",
        query=(TENANT, INTEGRATION_TYPE, SECRETS),
        returns=Returns((VersionShape,)),
    ),
    Route(
        "GET",
        "/config/diff",
        ConfigRoutes.diff,
        access=VIEWER,
        operation_id="diff_config_diff_get",
        tag=_HISTORY,
        summary="Compare two versions",
        description="Changes by JSON Pointer. Objects are compared member by member, any other value as a whole."
        " Viewers see masks.",
        query=(TENANT, INTEGRATION_TYPE, _FROM_VERSION, _TO_VERSION, SECRETS),
        returns=Returns((ConfigDiff,)),
    ),
    Route(
        "POST",
        "/config/rollback",
        ConfigRoutes.roll_back,
        access=EDITOR,
        operation_id="roll_back_config_rollback_post",
        tag=_HISTORY,
        summary="Restore a version",
        description="Append the content of an older version as a new one. This also restores a deleted config.",
        body=RollbackBody,
        query=(DRY_RUN, SECRETS),
        headers=_SAVE_REQUEST_HEADERS,
        returns=Returns((ConfigSaved, PreviewShape), headers=_SAVE_HEADERS),
    ),
    Route(
        "GET",
        "/tenants",
        ConfigRoutes.list_tenants,
        access=VISIBLE,
        operation_id="list_tenants",
        tag="tenants",
        summary="List tenants",
        description="Names of tenants with the number of their configs, of what the caller may see, in order of name.",
        query=(TENANT_PATTERN, TYPE_PATTERN, _TENANT_CURSOR, LIMIT),
        returns=Returns((TenantList,)),
    ),
    Route(
        "DELETE",
        "/tenants/{tenant}",
        ConfigRoutes.destroy_tenant,
        access=ADMIN,
        operation_id="destroy_tenants__tenant__delete",
        tag="tenants",
        summary="Destroy a tenant's data key",
        description="Delete all configs of a tenant and destroy its data key. Nothing encrypted under it can be"
        " decrypted again.",
        query=(_CONFIRM,),
        returns=Returns((TenantDestroyed,)),
    ),
)
