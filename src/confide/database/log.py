"""Appending change rows and audit entries in the caller's transaction."""

from __future__ import annotations

from typing import Any

from confide.audit.model import AuditEntry
from confide.database.engine import Statement, Transaction, statement

AUDIT = """/* audits.note */
    INSERT INTO audit (at, action, outcome, actor, token_id, address, request_id, tenant, integration_type,
                       version, subject, digest, mac, change_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""


LOG = """/* changes.append */
    INSERT INTO changes (kind, subject, saved_by, saved_at) VALUES ($1, $2, $3, $4) RETURNING id
"""


def audit_values(entry: AuditEntry, *, mac: bytes) -> tuple[Any, ...]:
    """The entry's arguments of `AUDIT`, all but the last, which is the change it explains."""
    tenant, integration_type = entry.key or (None, None)
    return (
        entry.at,
        entry.action,
        entry.outcome,
        entry.actor,
        entry.token_id,
        entry.address,
        entry.request_id,
        tenant,
        integration_type,
        entry.version,
        entry.subject,
        entry.digest,
        mac,
    )


def append_change(kind: str, subject: int | None, *, entry: AuditEntry, mac: bytes) -> Transaction[None]:
    """Append a change that is no config's, with the audit entry that explains it."""
    ((change_id,),) = yield statement(LOG, kind, subject, entry.actor, entry.at)
    yield Statement(AUDIT, (*audit_values(entry, mac=mac), change_id))
