"""Expected errors of integration types."""

from __future__ import annotations

from confide.errors import ServiceError


class SchemaInvalid(ServiceError):
    code = "schema-invalid"
    sentence = "That is no JSON Schema 2020-12 that is taken."


class SchemaBroken(ServiceError):
    code = "schema-broken"
    sentence = "The configuration breaks the schema of its integration type."
