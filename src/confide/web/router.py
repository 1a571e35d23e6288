"""The router: finds the route of a request, authenticates, parses, and calls the handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from confide.errors import NotFound
from confide.identity.model import Principal
from confide.web.errors import MethodNotAllowed
from confide.web.request import Request
from confide.web.response import Reply
from confide.web.route import Route

S = TypeVar("S")

Authenticate = Callable[[str], Awaitable[Principal]]


class BoundRoute(NamedTuple):
    """A route with its handler, bound to an instance of the feature's routes class."""

    route: Route[Any]
    handle: Callable[[Request], Awaitable[Reply]]
    authenticate: Callable[[Request], Awaitable[None]] | None


def bind(routes: Iterable[Route[S]], instance: S) -> list[BoundRoute]:
    """Bind the routes of a feature to the instance that holds its use cases."""
    return [
        BoundRoute(
            route,
            partial(route.handler, instance),
            None if route.authenticate is None else partial(route.authenticate, instance),
        )
        for route in routes
    ]


class Router:
    """Dispatches requests by method and path. Only the values of a path template can be percent-encoded."""

    def __init__(self, routes: Iterable[BoundRoute], *, authenticate: Authenticate) -> None:
        self._authenticate = authenticate
        self._exact: dict[str, dict[str, BoundRoute]] = {}
        # Templates by their number of segments.
        self._templates: dict[int, dict[tuple[str, ...], dict[str, BoundRoute]]] = {}
        for bound in routes:
            path = bound.route.path
            if "{" in path:
                segments = tuple(path.split("/"))
                methods = self._templates.setdefault(len(segments), {}).setdefault(segments, {})
            else:
                methods = self._exact.setdefault(path, {})
            if bound.route.method in methods:
                raise ValueError(f"{bound.route.method} {path} is declared twice")
            methods[bound.route.method] = bound
            if bound.route.method == "GET":
                # The application leaves out the content (RFC 9110, section 9.3.2).
                methods["HEAD"] = bound

    async def dispatch(self, request: Request) -> Reply:
        """Handle a request and return the reply. Raises a `ServiceError` that rejects the request."""
        bound = self._find(request)
        route = bound.route
        if bound.authenticate is not None:
            await bound.authenticate(request)
        elif not (route.access.is_public or route.access.is_token_optional):
            request.principal = await self._authenticate(request.require_token())
        if route.body is None:
            request.require_no_body()
        else:
            request.parsed_body = await route.body.read(request)
        request.decode_path_values()
        request.query = request.parse_parameters(required=route.required_parameters, known=route.known_parameters)
        return await bound.handle(request)

    def _find(self, request: Request) -> BoundRoute:
        # The undecoded path: an encoded slash does not separate segments.
        path: str = request.scope["raw_path"].decode("latin-1")
        methods = self._exact.get(path)
        if methods is None:
            segments, methods = self._match(path)
            request.path_values = _read_path_values(segments, path)
        request.route_path = next(iter(methods.values())).route.path
        bound = methods.get(request.method)
        if bound is None:
            raise MethodNotAllowed(allowed=tuple(methods))
        request.is_probe = bound.route.is_probe
        return bound

    def _match(self, path: str) -> tuple[tuple[str, ...], dict[str, BoundRoute]]:
        parts = path.split("/")
        for segments, methods in self._templates.get(len(parts), {}).items():
            if all(
                (segment.startswith("{") and part) or segment == part
                for segment, part in zip(segments, parts, strict=True)
            ):
                return segments, methods
        raise NotFound("There is no such path. GET /docs describes the paths of this service.")


def _read_path_values(segments: tuple[str, ...], path: str) -> dict[str, str]:
    return {
        segment[1:-1]: part for segment, part in zip(segments, path.split("/"), strict=True) if segment.startswith("{")
    }
