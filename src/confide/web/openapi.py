"""The OpenAPI 3.1 document, built from the route declarations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from confide.strict_json import Json
from confide.web.problems import PROBLEM_HEADERS, PROBLEM_TYPE
from confide.web.route import Header, Parameter, ResponseHeader, Route
from confide.web.shapes import Problem

DESCRIPTION = (
    "Stores and serves the integration configuration of every tenant, encrypted at rest. "
    "Every error has a stable code: [list of errors](/docs/errors)."
)
_REF = "#/components/schemas/{model}"

Mode = Literal["validation", "serialization"]
Shapes = dict[tuple[type[BaseModel], Mode], Json]


def build_document(routes: Sequence[Route[Any]], *, version: str) -> Json:
    """Build the document of all documented routes, in order."""
    documented = [route for route in routes if route.is_documented]
    shapes, components = _build_schemas(documented)
    paths: dict[str, Json] = {}
    for route in documented:
        paths.setdefault(route.path, {})[route.method.lower()] = _build_operation(route, shapes)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Confide", "description": DESCRIPTION, "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _build_schemas(routes: Iterable[Route[Any]]) -> tuple[Shapes, Json]:
    """Return a reference to the schema of each shape, and the components that the references name.

    A component has the title of its model. The title stays when the class gets a better name.
    """
    requested: dict[tuple[type[BaseModel], Mode], None] = {(Problem, "serialization"): None}
    for route in routes:
        if route.body is not None:
            requested[route.body, "validation"] = None
        for shape in _list_response_shapes(route):
            requested[shape, "serialization"] = None
    references, definitions = models_json_schema(list(requested), ref_template=_REF)
    titles = {_REF.format(model=name): schema["title"] for name, schema in definitions["$defs"].items()}
    schemas = {shape: _name_components(references[shape], titles) for shape in requested}
    components = {schema["title"]: _name_components(schema, titles) for schema in definitions["$defs"].values()}
    if len(components) < len(titles):  # a subclass inherits the title
        raise ValueError("Two models have the same title. Give each its own.")
    return schemas, dict(sorted(components.items()))


def _name_components(value: Any, titles: Mapping[str, str]) -> Any:
    """Let the references in a schema name components by their titles."""
    if isinstance(value, dict):
        return {
            key: _REF.format(model=titles[each]) if key == "$ref" else _name_components(each, titles)
            for key, each in value.items()
        }
    return [_name_components(each, titles) for each in value] if isinstance(value, list) else value


def _list_response_shapes(route: Route[Any]) -> list[type[BaseModel]]:
    shapes = [*route.returns.shapes]
    shapes += [media_type.shape for media_type in route.returns.media_types if media_type.shape is not None]
    shapes += [other.shape for other in route.other_responses if other.shape is not None]
    return shapes


def _build_operation(route: Route[Any], shapes: Shapes) -> Json:
    operation: Json = {
        "tags": [route.tag],
        "summary": route.summary,
        "description": route.description or f"{route.summary}.",
        "operationId": route.operation_id,
    }
    parameters = [
        *(
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in route.path_parameters
        ),
        *map(_build_query_parameter, route.query),
        *map(_build_header_parameter, route.headers),
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        schema = shapes[route.body, "validation"]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    operation["responses"] = _build_responses(route, shapes)
    if route.access.is_public:
        operation["security"] = []
    elif route.access.is_token_optional:
        operation["security"] = [{}, {"token": []}]
    return operation


def _build_query_parameter(parameter: Parameter[Any]) -> Json:
    described = {
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        "description": parameter.description,
        "schema": {"type": "string"},
    }
    return described if parameter.example is None else {**described, "example": parameter.example}


def _build_header_parameter(header: Header) -> Json:
    schema = {"type": "string"}
    return {
        "name": header.name, "in": "header", "required": False, "description": header.description, "schema": schema
    }  # fmt: skip


def _build_responses(route: Route[Any], shapes: Shapes) -> Json:
    returns = route.returns
    content: Json = {}
    if returns.shapes:
        schemas = [shapes[shape, "serialization"] for shape in returns.shapes]
        content["application/json"] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    for name, shape in returns.media_types:
        content[name] = {"schema": {"type": "string"} if shape is None else shapes[shape, "serialization"]}
    success: Json = {"description": returns.description}
    if content:
        success["content"] = content
    headers = _build_headers(returns.headers)
    if headers:
        success["headers"] = headers
    responses: Json = {"200": success}
    for status, description, shape in route.other_responses:
        other: Json = {"description": description}
        if headers and status == HTTPStatus.NOT_MODIFIED:  # RFC 9110, section 15.4.5: the headers of a 200
            other["headers"] = headers
        if shape is not None:
            other["content"] = {"application/json": {"schema": shapes[shape, "serialization"]}}
        responses[str(status)] = other
    problem = {PROBLEM_TYPE: {"schema": shapes[Problem, "serialization"]}}
    responses["default"] = {"description": "An error", "content": problem, "headers": _build_headers(PROBLEM_HEADERS)}
    return responses


def _build_headers(headers: Iterable[ResponseHeader]) -> Json:
    return {header.name: {"schema": {"type": header.json_type}} for header in headers}
