"""Expected errors of integration types."""

from __future__ import annotations

from confide.errors import ErrorKind, ServiceError


class SchemaInvalid(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "schema-invalid"
    sentence = (
        "The schema is not supported: it must be JSON Schema draft-07, 2019-09 or 2020-12. Correct the listed places."
    )


class SchemaBroken(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "schema-broken"
    sentence = "The configuration violates the schema of its integration type. Correct the listed places."


class MaskSentBack(ServiceError):
    kind = ErrorKind.INVALID_CONTENT
    code = "mask-sent-back"
    sentence = "A mask was sent in place of a secret. Send the secret or omit the member."
