"""The shell that speaks over a connection, one call after the other."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx2

from confide.client.calls import ApiRequest, ConfideError, answer, request, saving
from confide.client.events import Event, EventReader

TIMEOUT_SECONDS = 10.0
# A stream shows every 15 seconds that it lives.
STREAM_SECONDS = 40.0


class Client:
    """A client of one service.

    Args:
        url: where it is, `http://127.0.0.1:8080`.
        token: shown with each call, if given.
        traceparent: said with each call, if given: the trace that the calls belong to (W3C Trace Context).

    Raises:
        ConfideError: from every method, where the service refuses or cannot be reached.
    """

    def __init__(self, url: str, *, token: str | None = None, traceparent: str | None = None) -> None:
        self.url = url
        self.token = token
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if traceparent is not None:
            headers["traceparent"] = traceparent
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, call: ApiRequest) -> dict[str, Any]:
        response = self._answered(call)
        return answer(response.status_code, response.content)

    def _answered(self, call: ApiRequest) -> httpx2.Response:
        try:
            response = self._http.request(
                call.method, call.path, params=call.params, content=call.body, headers=call.headers
            )
        except httpx2.HTTPError as error:
            raise ConfideError(0, "unreachable", f"No service answers at {self._http.base_url}.") from error
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            answer(response.status_code, response.content)
        return response

    def fetch(self, call: ApiRequest) -> bytes:
        """Return the bytes of an answer that is no JSON object."""
        return self._answered(call).content

    def login(self, login: str, password: str) -> dict[str, Any]:
        return self.ask(request("POST", "/login", document={"login": login, "password": password}))

    def read(self, tenant: str, integration_type: str) -> dict[str, Any]:
        """Return the config: `{tenant, integration_type, configuration}`."""
        return self.ask(request("GET", "/config", params=_address(tenant, integration_type)))

    def save(
        self,
        tenant: str,
        integration_type: str,
        configuration: dict[str, Any] | bytes,
        *,
        replace: bool = False,
        note: str | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Merge the configuration into what is there, or put it in its place; returns message and version.

        Bytes are sent as they stand, as the JSON text of the configuration. A dry run returns
        `{diff, outcome, version}`.
        """
        method = "PUT" if replace else "POST"
        described = _address(tenant, integration_type) | _given(note=note)
        return self.ask(saving(method, described, configuration, dry_run=dry_run))

    def retire(self, tenant: str, integration_type: str, *, note: str | None = None) -> dict[str, Any]:
        params = _address(tenant, integration_type) | _given(note=note)
        return self.ask(request("DELETE", "/config", params=params))

    def versions(self, tenant: str, integration_type: str, *, after: str | None = None) -> dict[str, Any]:
        """Return one page of the history, the newest first: `{versions, next}`."""
        params = _address(tenant, integration_type) | _given(after=after)
        return self.ask(request("GET", "/config/versions", params=params))

    def version(self, tenant: str, integration_type: str, version: int) -> dict[str, Any]:
        return self.ask(request("GET", f"/config/versions/{version}", params=_address(tenant, integration_type)))

    def diff(self, tenant: str, integration_type: str, *, since: int, until: int) -> dict[str, Any]:
        """Return what changed between two versions: `{added, changed, removed}` by JSON Pointer."""
        params = _address(tenant, integration_type) | {"from": str(since), "to": str(until)}
        return self.ask(request("GET", "/config/diff", params=params))

    def roll_back(
        self, tenant: str, integration_type: str, version: int, *, note: str | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Append what an older version held as a new one; a dry run returns `{diff, outcome, version}`."""
        document = {**_address(tenant, integration_type), "version": version, **_given(note=note)}
        params = {"dry_run": "true"} if dry_run else {}
        return self.ask(request("POST", "/config/rollback", document=document, params=params))

    def list(
        self,
        tenant: str,
        integration_type: str,
        *,
        after: str | None = None,
        changed_since: str | None = None,
        unread_since: str | None = None,
        conforms: str | None = None,
    ) -> dict[str, Any]:
        """Return one page: `{configs, next}`; patterns are a name, `prefix*` or `*`.

        Times are RFC 3339; `conforms="false"` lists only those that break the schema of their type.
        """
        wanted = _given(after=after, changed_since=changed_since, unread_since=unread_since, conforms=conforms)
        return self.ask(request("GET", "/configs", params=_address(tenant, integration_type) | wanted))

    def export(
        self, tenant: str, integration_type: str, *, opened: bool = False, after: str | None = None
    ) -> dict[str, Any]:
        """Return one page of configs with what they hold: `{configs, next}`."""
        wanted = {"limit": "1000", "secrets": "opened" if opened else "masked"} | _given(after=after)
        return self.ask(request("GET", "/configs/export", params=_address(tenant, integration_type) | wanted))

    def usage(self, tenant: str, integration_type: str) -> dict[str, Any]:
        """Return who read a config, the latest first: `{usage}`."""
        return self.ask(request("GET", "/config/usage", params=_address(tenant, integration_type)))

    def put_type(
        self,
        name: str,
        schema: dict[str, Any] | None,
        *,
        mode: str = "warn",
        keep: int = 100,
        note: str | None = None,
    ) -> dict[str, Any]:
        """Put a schema in force; returns message, name and version."""
        document = {"schema": schema, "mode": mode, "keep": keep, **_given(note=note)}
        return self.ask(request("PUT", f"/integration-types/{name}", document=document))

    def check_type(self, name: str, schema: dict[str, Any] | None = None) -> Iterator[Event]:
        """Yield `progress` and at last `result`: which configs break the schema in force, or the one given."""
        if schema is None:
            return self.events(request("GET", f"/integration-types/{name}/conformance"))
        asked = request("PUT", f"/integration-types/{name}", params={"dry_run": "true"}, document={"schema": schema})
        return self.events(asked)

    def watch(self, tenant: str = "*", integration_type: str = "*", *, after: str | None = None) -> Iterator[Event]:
        """Yield changes as they happen, from a position or from now on, until the service says why it ends.

        `heartbeat` says only how far it came, `bye` that the process ends: go on from its position; `refused` that
        the token or its grants ended.
        """
        return self.events(request("GET", "/watch", params=_address(tenant, integration_type) | _given(after=after)))

    def events(self, call: ApiRequest) -> Iterator[Event]:
        """Yield the events of a call that answers with a stream."""
        headers = {**call.headers, "Accept": "text/event-stream"}
        reader = EventReader()
        try:
            with self._http.stream(
                call.method,
                call.path,
                params=call.params,
                content=call.body,
                headers=headers,
                timeout=httpx2.Timeout(TIMEOUT_SECONDS, read=STREAM_SECONDS),
            ) as response:
                if response.status_code != HTTPStatus.OK:
                    answer(response.status_code, response.read())
                for line in response.iter_lines():
                    event = reader.take(line)
                    if event is not None:
                        yield event
        except httpx2.HTTPError as error:
            raise ConfideError(0, "unreachable", f"No service answers at {self._http.base_url}.") from error


def _address(tenant: str, integration_type: str) -> dict[str, str]:
    return {"tenant": tenant, "integration_type": integration_type}


def _given(**named: str | None) -> dict[str, str]:
    return {name: value for name, value in named.items() if value is not None}
