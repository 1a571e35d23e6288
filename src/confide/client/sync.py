"""Synchronous client."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx2

from confide.client.events import Event, EventParser, InvalidEvent, LineSplitter
from confide.client.failures import USE_HTTPS, explain_failure, hide_account, is_tls_missing
from confide.client.protocol import (
    NOT_CONFIDE,
    ApiRequest,
    ConfideError,
    build_path,
    build_request,
    build_save_request,
    build_type_request,
    parse_response,
    require_valid_token,
)

TIMEOUT_SECONDS = 10.0
# The server sends a heartbeat every 15 seconds.
STREAM_TIMEOUT_SECONDS = 40.0


class Client:
    """Synchronous client of one service.

    Every method raises `ConfideError` if the service returns an error or cannot be reached.

    Args:
        url: URL of the service, such as `http://127.0.0.1:8080`.
        token: token sent with each request.
        traceparent: trace that the requests belong to (W3C Trace Context).

    Example:
        with Client("http://127.0.0.1:8080", token=token) as client:
            client.save("acme", "crm", {"host": "crm.example"})
            client.read("acme", "crm")["configuration"]
    """

    def __init__(self, url: str, *, token: str | None = None, traceparent: str | None = None) -> None:
        self.url = url
        self.token = token
        if token is not None:
            require_valid_token(token)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if traceparent is not None:
            headers["traceparent"] = traceparent
        self._http = _open_client(url, headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def send(self, request: ApiRequest) -> dict[str, Any]:
        """Send a request and return the JSON object of its response."""
        response = self._send(request)
        return parse_response(response.status_code, response.content)

    def send_for_bytes(self, request: ApiRequest) -> bytes:
        """Send a request and return the body of its response."""
        response = self._send(request)
        if response.headers.get("content-type", "").startswith("text/html"):
            raise ConfideError(response.status_code, "no-answer", NOT_CONFIDE)
        return response.content

    def _send(self, request: ApiRequest) -> httpx2.Response:
        try:
            response = self._http.request(
                request.method, request.path, params=request.params, content=request.body, headers=request.headers
            )
        except (httpx2.HTTPError, UnicodeEncodeError) as error:
            raise self._explain(error) from error
        self._require_success(response)
        return response

    def _require_success(self, response: httpx2.Response) -> None:
        """Raise `ConfideError` for an error response that was read, and for one of another service."""
        if response.has_redirect_location:
            target = urlsplit(hide_account(str(response.next_request.url))) if response.next_request else None
            origin = f" to {target.scheme}://{target.netloc}" if target else ""
            sentence = f"{hide_account(self.url)} redirects{origin}. Use the URL of the service itself."
            raise ConfideError(response.status_code, "no-answer", sentence)
        # Some servers respond 400 to plain HTTP on a port with TLS.
        is_foreign = response.status_code == HTTPStatus.BAD_REQUEST and b'"code"' not in response.content
        if is_foreign and is_tls_missing(self.url):
            raise ConfideError(0, "unreachable", USE_HTTPS.format(url=hide_account(self.url)))
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            parse_response(response.status_code, response.content)

    def _explain(self, error: Exception) -> ConfideError:
        """Return the error for a request that got no response."""
        if isinstance(error, UnicodeEncodeError):
            return ConfideError(0, "malformed-text", "The request contains text that is not valid Unicode.")
        return ConfideError(0, "unreachable", explain_failure(error, self.url))

    def login(self, login: str, password: str) -> dict[str, Any]:
        """Start a session. Return `{token, expires_at}`. The client itself keeps its token."""
        return self.send(build_request("POST", "/login", document={"login": login, "password": password}))

    def read(
        self,
        tenant: str,
        integration_type: str,
        *,
        min_version: int | None = None,
        secrets: str | None = None,
    ) -> dict[str, Any]:
        """Return the current version: `{tenant, integration_type, configuration}`.

        With `min_version`, a server that is behind another machine reads the database to return at least that version.
        `secrets="masked"` masks secrets for every role, and `secrets="opened"` requires and audits access to them.
        """
        headers = {} if min_version is None else {"Config-Min-Version": str(min_version)}
        params = _build_address(tenant, integration_type) | _drop_none(secrets=secrets)
        return self.send(build_request("GET", "/config", params=params, headers=headers))

    def read_member(self, tenant: str, integration_type: str, pointer: str) -> dict[str, Any]:
        """Return one member of the current version, with its secrets: `{version, pointer, value}`. It is audited.

        `pointer` is a JSON Pointer (RFC 6901), such as `/password`.
        """
        params = _build_address(tenant, integration_type) | {"secrets": "opened", "pointer": pointer}
        return self.send(build_request("GET", "/config", params=params))

    def save(
        self,
        tenant: str,
        integration_type: str,
        configuration: dict[str, Any] | bytes,
        *,
        replace: bool = False,
        note: str | None = None,
        dry_run: bool = False,
        secrets: str | None = None,
    ) -> dict[str, Any]:
        """Merge the configuration into the stored one, or replace it. Return `{message, version}`.

        Bytes are sent unchanged as the JSON text of the configuration. A dry run stores nothing and returns
        `{diff, outcome, version}`; `secrets="masked"` masks the diff.
        """
        method = "PUT" if replace else "POST"
        address = _build_address(tenant, integration_type) | _drop_none(note=note)
        return self.send(build_save_request(method, address, configuration, dry_run=dry_run, secrets=secrets))

    def delete(self, tenant: str, integration_type: str, *, note: str | None = None) -> dict[str, Any]:
        """Delete a config. Its history stays. Return `{message, version}`."""
        params = _build_address(tenant, integration_type) | _drop_none(note=note)
        return self.send(build_request("DELETE", "/config", params=params))

    def list_versions(self, tenant: str, integration_type: str, *, after: str | None = None) -> dict[str, Any]:
        """Return one page of the history, newest first: `{versions, next}`."""
        params = _build_address(tenant, integration_type) | _drop_none(after=after)
        return self.send(build_request("GET", "/config/versions", params=params))

    def read_version(
        self, tenant: str, integration_type: str, version: int, *, secrets: str | None = None
    ) -> dict[str, Any]:
        params = _build_address(tenant, integration_type) | _drop_none(secrets=secrets)
        return self.send(build_request("GET", f"/config/versions/{version}", params=params))

    def diff(
        self, tenant: str, integration_type: str, *, since: int, until: int, secrets: str | None = None
    ) -> dict[str, Any]:
        """Return the changes between two versions: `{added, changed, removed}` by JSON Pointer."""
        span = {"from": str(since), "to": str(until)}
        params = _build_address(tenant, integration_type) | span | _drop_none(secrets=secrets)
        return self.send(build_request("GET", "/config/diff", params=params))

    def roll_back(
        self,
        tenant: str,
        integration_type: str,
        version: int,
        *,
        note: str | None = None,
        dry_run: bool = False,
        secrets: str | None = None,
    ) -> dict[str, Any]:
        """Save an older version again as a new one. A dry run returns `{diff, outcome, version}`."""
        document = {**_build_address(tenant, integration_type), "version": version, **_drop_none(note=note)}
        params = ({"dry_run": "true"} if dry_run else {}) | _drop_none(secrets=secrets)
        return self.send(build_request("POST", "/config/rollback", document=document, params=params))

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
        """Return one page of configs: `{configs, next}`. Each pattern is a name, `prefix*` or `*`.

        Times are RFC 3339. With `conforms="false"`, only configs that violate the schema of their type are listed.
        """
        filters = _drop_none(after=after, changed_since=changed_since, unread_since=unread_since, conforms=conforms)
        return self.send(build_request("GET", "/configs", params=_build_address(tenant, integration_type) | filters))

    def export(
        self, tenant: str, integration_type: str, *, opened: bool = False, after: str | None = None
    ) -> dict[str, Any]:
        """Return one page of configs with their configurations: `{configs, next}`.

        With `opened`, the configurations contain plaintext secrets where the caller may read them.
        """
        params = {"limit": "1000", "secrets": "opened" if opened else "masked"} | _drop_none(after=after)
        return self.send(
            build_request("GET", "/configs/export", params=_build_address(tenant, integration_type) | params)
        )

    def list_readers(self, tenant: str, integration_type: str) -> dict[str, Any]:
        """Return the tokens that read a config, most recent first: `{usage}`."""
        return self.send(build_request("GET", "/config/usage", params=_build_address(tenant, integration_type)))

    def list_tenants(
        self, tenant: str = "*", integration_type: str = "*", *, after: str | None = None
    ) -> dict[str, Any]:
        """Return one page of tenants with the number of their configs: `{tenants, next}`."""
        params = _build_address(tenant, integration_type) | _drop_none(after=after)
        return self.send(build_request("GET", "/tenants", params=params))

    def read_own_user(self) -> dict[str, Any]:
        """Return the caller, its token, and what both allow: `{user_id, login, grants, token, permissions, …}`."""
        return self.send(build_request("GET", "/users/me"))

    def put_type(
        self,
        name: str,
        schema: dict[str, Any] | bytes | None,
        *,
        mode: str = "warn",
        keep: int = 100,
        note: str | None = None,
    ) -> dict[str, Any]:
        """Activate a schema for a type. Return `{message, name, version}`. Without a schema, only set `keep`.

        Bytes are sent unchanged as the JSON text of the schema.
        """
        return self.send(build_type_request(name, {"mode": mode, "keep": keep, **_drop_none(note=note)}, schema))

    def check_type(self, name: str, schema: dict[str, Any] | bytes | None = None) -> Iterator[Event]:
        """Yield `progress` events, then `result`: the configs that violate the active schema or the given one."""
        if schema is None:
            return self.stream(build_request("GET", build_path("integration-types", name, "conformance")))
        return self.stream(build_type_request(name, {}, schema, dry_run=True))

    def watch(self, tenant: str = "*", integration_type: str = "*", *, after: str | None = None) -> Iterator[Event]:
        """Yield changes after a position, or from now on, until the server ends the stream.

        `heartbeat` only moves the position. `bye` means that the server process ends: watch again from its position.
        `refused` means that the token or its grants ended.
        """
        return self.stream(
            build_request("GET", "/watch", params=_build_address(tenant, integration_type) | _drop_none(after=after))
        )

    def stream(self, request: ApiRequest) -> Iterator[Event]:
        """Send a request and yield the events of its response."""
        headers = {**request.headers, "Accept": "text/event-stream"}
        splitter, parser = LineSplitter(), EventParser()
        try:
            with self._http.stream(
                request.method,
                request.path,
                params=request.params,
                content=request.body,
                headers=headers,
                timeout=httpx2.Timeout(TIMEOUT_SECONDS, read=STREAM_TIMEOUT_SECONDS),
            ) as response:
                if response.status_code != HTTPStatus.OK:
                    response.read()
                    self._require_success(response)
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise ConfideError(response.status_code, "no-answer", NOT_CONFIDE)
                for data in response.iter_bytes():
                    for line in splitter.feed(data):
                        event = parser.feed(line)
                        if event is not None:
                            yield event
        except InvalidEvent as error:
            raise ConfideError(HTTPStatus.OK, "no-answer", NOT_CONFIDE) from error
        except (httpx2.HTTPError, UnicodeEncodeError) as error:
            raise self._explain(error) from error

    def ask(self, call: ApiRequest) -> dict[str, Any]:
        """Use `send` instead. Deprecated."""
        _warn_of_old_name("ask", "send")
        return self.send(call)

    def fetch(self, call: ApiRequest) -> bytes:
        """Use `send_for_bytes` instead. Deprecated."""
        _warn_of_old_name("fetch", "send_for_bytes")
        return self.send_for_bytes(call)

    def events(self, call: ApiRequest) -> Iterator[Event]:
        """Use `stream` instead. Deprecated."""
        _warn_of_old_name("events", "stream")
        return self.stream(call)

    def usage(self, tenant: str, integration_type: str) -> dict[str, Any]:
        """Use `list_readers` instead. Deprecated."""
        _warn_of_old_name("usage", "list_readers")
        return self.list_readers(tenant, integration_type)

    def version(self, tenant: str, integration_type: str, version: int) -> dict[str, Any]:
        """Use `read_version` instead. Deprecated."""
        _warn_of_old_name("version", "read_version")
        return self.read_version(tenant, integration_type, version)

    def versions(self, tenant: str, integration_type: str, *, after: str | None = None) -> dict[str, Any]:
        """Use `list_versions` instead. Deprecated."""
        _warn_of_old_name("versions", "list_versions")
        return self.list_versions(tenant, integration_type, after=after)

    if not TYPE_CHECKING:  # otherwise mypy accepts every name

        def __getattr__(self, name: str) -> Any:
            """Return `delete` for its deprecated name `retire`."""
            if name != "retire":
                raise AttributeError(f"'Client' object has no attribute {name!r}", name=name, obj=self)
            _warn_of_old_name(name, "delete")
            return self.delete


def _open_client(url: str, headers: dict[str, str]) -> httpx2.Client:
    """Open an HTTP client. Raises `ConfideError` if the URL or the environment has an invalid setting."""
    try:
        httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfideError(0, "unreachable", f"The URL of the service is invalid: {error}") from error
    try:
        return httpx2.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
    except ImportError as error:
        sentence = "The environment names a SOCKS proxy. Install the package socksio, or unset ALL_PROXY for this host."
        raise ConfideError(0, "unreachable", sentence) from error
    except (httpx2.InvalidURL, ValueError) as error:
        # Not its reason, which quotes the password of a proxy.
        sentence = "The environment names an invalid proxy. Check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."
        raise ConfideError(0, "unreachable", sentence) from error
    except OSError as error:
        sentence = "The trusted certificates cannot be read. Check SSL_CERT_FILE and SSL_CERT_DIR."
        raise ConfideError(0, "unreachable", sentence) from error


def _warn_of_old_name(old: str, new: str) -> None:
    """Warn the caller of a method of version 0.1.0."""
    warnings.warn(f"Client.{old} is now Client.{new}.", DeprecationWarning, stacklevel=3)


def _build_address(tenant: str, integration_type: str) -> dict[str, str]:
    return {"tenant": tenant, "integration_type": integration_type}


def _drop_none(**params: str | None) -> dict[str, str]:
    return {name: value for name, value in params.items() if value is not None}
