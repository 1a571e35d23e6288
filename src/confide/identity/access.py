"""The one place where roles are checked; what is denied is audited before the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.errors import NotAllowed, NotFound
from confide.identity.model import Principal, Role
from confide.names import Key

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder


class Access:
    """What a principal may do."""

    def __init__(self, auditor: AuditRecorder) -> None:
        self._auditor = auditor

    async def require_role(self, role: Role, key: Key, *, principal: Principal, action: str) -> Role:
        """Return the principal's role on a key if it is enough.

        Where no grant covers the key it is `NotFound`, as if there were nothing, before anything is looked up;
        where the role is too low it is `NotAllowed`.
        """
        held = principal.role_on(key)
        if held is not None and held >= role:
            return held
        await self._auditor.record(action, "denied", principal=principal, key=key)
        raise NotFound if held is None else NotAllowed

    async def require_admin(self, principal: Principal, *, action: str) -> None:
        if not principal.is_admin:
            await self._auditor.record(action, "denied", principal=principal)
            raise NotAllowed

    async def require_unrestricted_token(self, principal: Principal, *, action: str) -> None:
        """A token with narrower grants may not make itself wider ones."""
        if principal.narrowed is not None:
            await self._auditor.record(action, "denied", principal=principal)
            raise NotAllowed("A token with grants of its own cannot do this. Log in or use an unrestricted token.")
