"""Check roles. Denied access is audited before the response is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confide.errors import NotAllowed, NotFound
from confide.identity.model import Principal, Role, SecretsMode
from confide.names import ConfigKey

if TYPE_CHECKING:
    from confide.audit.denials import DenialRecorder


class Access:
    """Checks what a principal can do, and records denied access."""

    def __init__(self, denials: DenialRecorder) -> None:
        self._denials = denials

    async def require_role(self, role: Role, key: ConfigKey, *, principal: Principal, action: str) -> Role:
        """Return the role of the principal on a key, which is at least the required one.

        Raises `NotFound` if no grant covers the key, so that the caller cannot learn whether the config exists.
        Raises `NotAllowed` if the role is too low.
        """
        held = principal.find_role(key)
        if held is not None and held >= role:
            return held
        await self._denials.record(action, principal=principal, key=key)
        raise NotFound if held is None else NotAllowed

    async def require_secrets_mode(
        self, mode: SecretsMode | None, key: ConfigKey, *, principal: Principal, action: str
    ) -> bool:
        """Return whether the secrets of a config must be masked in a response to a principal.

        Raises the errors of `require_role`. `OPENED` requires a role that sees secrets.
        """
        required = Role.READER if mode is SecretsMode.OPENED else Role.VIEWER
        role = await self.require_role(required, key, principal=principal, action=action)
        return mode is SecretsMode.MASKED or role < Role.READER

    async def require_admin(self, principal: Principal, *, action: str) -> None:
        if not principal.is_admin:
            await self.record_denial(action, principal=principal)
            raise NotAllowed

    async def require_unrestricted_token(self, principal: Principal, *, action: str) -> None:
        """Raise `NotAllowed` for a token with its own grants, because it could get more grants by this action."""
        if principal.token_grants is not None:
            await self.record_denial(action, principal=principal)
            raise NotAllowed("A token with its own grants cannot do this. Log in or use an unrestricted token.")

    async def record_denial(self, action: str, *, principal: Principal) -> None:
        """Record that an action was denied that concerns no config."""
        await self._denials.record(action, principal=principal)
