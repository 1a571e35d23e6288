"""Declarations of routes. They drive routing, parsing, authentication and the API documentation."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from confide.errors import InvalidBody, ServiceError, UnknownMember, Violation
from confide.identity.model import Role
from confide.strict_json import Json, format_pointer
from confide.web.errors import MalformedParameter
from confide.web.request import Request
from confide.web.response import JSON, Reply

S = TypeVar("S")
T = TypeVar("T")

# A response lists at most this many violations of the shape of a body.
MAX_VIOLATIONS = 100


class Target(enum.Enum):
    """The object on which a `RouteAccess` requires its role."""

    # The tenant and integration type of the request.
    CONFIG = "config"
    # The integration type of the request, for any tenant.
    INTEGRATION_TYPE = "integration type"
    # The whole service.
    SERVICE = "service"
    # Nothing: the response contains only what the caller's grants cover.
    VISIBLE = "visible"
    # Nothing: the request is about the caller.
    SELF = "self"
    # A token of the caller, or for an admin of any user.
    TOKEN = "token"  # noqa: S105 - a word, not a secret
    # Nothing: no token is needed.
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class RouteAccess:
    """The callers of a route. A declaration only: the router authenticates, but does not check the role.

    The use case must call `Access.require_role`. The role matrix test calls each route with each role.
    """

    target: Target
    role: Role | None = None
    # Some requests need no token: the one that adds the first user, and metrics if they are open.
    is_token_optional: bool = False
    # Service accounts need no role.
    allows_service_accounts: bool = False

    @property
    def is_public(self) -> bool:
        return self.target is Target.PUBLIC


PUBLIC = RouteAccess(Target.PUBLIC)
VISIBLE = RouteAccess(Target.VISIBLE)
SELF = RouteAccess(Target.SELF)
VIEWER = RouteAccess(Target.CONFIG, Role.VIEWER)
EDITOR = RouteAccess(Target.CONFIG, Role.EDITOR)
ADMIN = RouteAccess(Target.SERVICE, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Parameter(Generic[T]):
    """A query parameter. `parse` raises `ServiceError`. A missing optional parameter has the value `default`."""

    name: str
    description: str
    parse: Callable[[str], T]
    default: T
    is_required: bool = False
    example: str | None = None

    def read(self, request: Request) -> T:
        """Return the parsed value of a request whose parameters the router has accepted."""
        text = request.query.get(self.name)
        return self.default if text is None else self.parse(text)


@dataclass(frozen=True, slots=True)
class Header:
    """An optional request header, for the OpenAPI document. A test compares it with what the handler reads."""

    name: str
    description: str


class Body(BaseModel):
    """A request body. An unknown member is an error.

    Errors name members of the shape only: any other name is the client's text, and may be a password in a wrong place.
    """

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
    # The member that holds a JSON document with names of its own. Errors name these.
    document_member: ClassVar[str | None] = None

    @classmethod
    async def read(cls, request: Request) -> Self:
        """Read and validate the body of a request."""
        try:
            document = await request.read_document()
        except ServiceError as error:
            error.violations = tuple(replace(one, pointer=cls._cut_pointer(one.pointer)) for one in error.violations)
            raise
        return cls.parse(document)

    @classmethod
    def parse(cls, document: Json) -> Self:
        """Validate a document. Raises `UnknownMember` or `InvalidBody`, with up to `MAX_VIOLATIONS` violations."""
        _require_few_members(document)
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            violations = tuple(dict.fromkeys(map(_build_violation, details[:MAX_VIOLATIONS])))
            if any(one["type"] == _UNKNOWN_MEMBER for one in details):
                raise UnknownMember(violations=violations) from None
            raise InvalidBody(violations=violations) from None

    @classmethod
    def _cut_pointer(cls, pointer: str) -> str:
        """Return the longest beginning of a pointer that has names of the shape only."""
        first = pointer.split("/", 2)[1] if pointer else ""
        if first == cls.document_member:
            return pointer
        is_known = any(first in (name, field.alias) for name, field in cls.model_fields.items())
        return f"/{first}" if is_known else ""


_UNKNOWN_MEMBER = "extra_forbidden"


def _build_violation(details: ErrorDetails) -> Violation:
    path, code = details["loc"], details["type"].replace("_", "-")
    if details["type"] == _UNKNOWN_MEMBER:
        # The name is the client's text, and may be a password in the wrong place.
        return Violation(format_pointer(path[:-1]), code, "An unknown member. Check the spelling of its name.")
    return Violation(format_pointer(path), code, details["msg"])


def _require_few_members(document: Json) -> None:
    """Reject an object with more members than any shape has, before each of them becomes a violation."""
    elements = [element for value in document.values() if isinstance(value, list) for element in value]
    if any(isinstance(one, dict) and len(one) > MAX_VIOLATIONS for one in [document, *elements]):
        raise UnknownMember


class ResponseHeader(NamedTuple):
    """A header of a response, with its JSON type."""

    name: str
    json_type: str


class MediaType(NamedTuple):
    """A media type of a response. Without a shape, its content is text."""

    name: str
    shape: type[BaseModel] | None = None


class OtherResponse(NamedTuple):
    """A response of a route with a status other than 200. Without a shape, it has no content."""

    status: int
    description: str
    shape: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True)
class Returns:
    """A successful response of a route, for the OpenAPI document."""

    shapes: tuple[type[BaseModel], ...] = ()
    # Each header that a response can have. Headers of all responses are not declared.
    headers: tuple[ResponseHeader, ...] = ()
    # Media types other than JSON, or with a shape of their own.
    media_types: tuple[MediaType, ...] = ()
    description: str = "Success"

    JSON: ClassVar[str] = JSON.decode()


@dataclass(frozen=True, slots=True)
class Route(Generic[S]):
    """One route. `handler` is a method of the feature's routes class `S`, which holds its use cases.

    The declaration drives routing, strict parsing, authentication, the role matrix test, the OpenAPI document, the
    Postman collection, the route labels of metrics and the table in the docs.
    """

    method: str
    path: str
    handler: Callable[[S, Request], Awaitable[Reply]]
    access: RouteAccess
    # Generated clients name their functions after it. It never changes.
    operation_id: str
    summary: str
    tag: str
    description: str = ""
    query: tuple[Parameter[Any], ...] = ()
    headers: tuple[Header, ...] = ()
    body: type[Body] | None = None
    returns: Returns = field(default_factory=Returns)
    other_responses: tuple[OtherResponse, ...] = ()
    # Called every few seconds: the log gets a request only if its status differs from that of the one before.
    is_probe: bool = False
    # False for the documentation itself.
    is_documented: bool = True
    # Replaces the router's authentication. Reads accept a cached token while the database is unavailable.
    authenticate: Callable[[S, Request], Awaitable[None]] | None = None

    @property
    def required_parameters(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.query if parameter.is_required)

    @property
    def known_parameters(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.query)

    @property
    def path_parameters(self) -> tuple[str, ...]:
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))


def declare_text(name: str, description: str, *, example: str | None = None) -> Parameter[str | None]:
    """Declare an optional parameter without a format."""
    return Parameter(name, description, str, None, example=example)


def declare_required_text(name: str, description: str, *, example: str | None = None) -> Parameter[str]:
    """Declare a required parameter without a format."""
    return Parameter(name, description, str, "", is_required=True, example=example)


def declare_switch(
    name: str, description: str, *, true_word: str = "true", false_word: str = "false", default: bool = False
) -> Parameter[bool]:
    """Declare a parameter that must be one of two words. Its value is true for `true_word`."""

    def parse(value: str) -> bool:
        if value not in (true_word, false_word):
            raise MalformedParameter(f"The parameter {name} must be {true_word} or {false_word}.")
        return value == true_word

    return Parameter(name, description, parse, default)
