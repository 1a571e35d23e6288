"""The shell that speaks over a connection, one call after the other."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx2

from confide.client.calls import ConfideError, Request, answer, request, saving

TIMEOUT_SECONDS = 10.0


class Client:
    """A client of one service.

    Args:
        url: where it is, `http://127.0.0.1:8080`.
        token: shown with each call, if given.

    Raises:
        ConfideError: from every method, where the service refuses or cannot be reached.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, call: Request) -> dict[str, Any]:
        try:
            response = self._http.request(
                call.method, call.path, params=call.params, content=call.body, headers=call.headers
            )
        except httpx2.HTTPError as error:
            raise ConfideError(0, "unreachable", f"No service answers at {self._http.base_url}.") from error
        return answer(response.status_code, response.content)

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

    def list(self, tenant: str, integration_type: str, *, after: str | None = None) -> dict[str, Any]:
        """Return one page: `{configs, next}`; patterns are a name, `prefix*` or `*`."""
        return self.ask(request("GET", "/configs", params=_address(tenant, integration_type) | _given(after=after)))


def _address(tenant: str, integration_type: str) -> dict[str, str]:
    return {"tenant": tenant, "integration_type": integration_type}


def _given(**named: str | None) -> dict[str, str]:
    return {name: value for name, value in named.items() if value is not None}
