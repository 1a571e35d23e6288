"""Check roles. Denied access is audited before the response is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.errors import NotAllowed, NotFound
from confide.identity.model import Principal, Role
from confide.names import Key

if TYPE_CHECKING:
    from confide.audit.recorder import AuditRecorder


class Access:
    """Checks what a principal may do."""

    def __init__(self, recorder: AuditRecorder) -> None:
        self._recorder = recorder

    async def require_role(self, role: Role, key: Key, *, principal: Principal, action: str) -> Role:
        """Return the principal's role on a key if it is at least the required one.

        Raises `NotFound` if no grant covers the key, which hides whether the config exists,
        or `NotAllowed` if the role is too low.
        """
        held = principal.find_role(key)
        if held is not None and held >= role:
            return held
        await self._recorder.record(action, "denied", principal=principal, key=key)
        raise NotFound if held is None else NotAllowed

    async def require_admin(self, principal: Principal, *, action: str) -> None:
        if not principal.is_admin:
            await self._recorder.record(action, "denied", principal=principal)
            raise NotAllowed

    async def require_unrestricted_token(self, principal: Principal, *, action: str) -> None:
        """Raise `NotAllowed` for a token with grants of its own, which could otherwise widen them."""
        if principal.narrowed is not None:
            await self._recorder.record(action, "denied", principal=principal)
            raise NotAllowed("A token with grants of its own cannot do this. Log in or use an unrestricted token.")
