"""`/tenants`: the end of one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from confide.api.answers import Answer, json_answer
from confide.api.models import TenantDestroyed
from confide.api.routes import Asked, StrictRoute
from confide.domain import names
from confide.domain.errors import ConfirmWrong

router = APIRouter(route_class=StrictRoute, tags=["tenants"])


@router.delete("/tenants/{tenant}", response_model=TenantDestroyed, summary="Destroy a tenant's key")
async def destroy(
    call: Asked, tenant: str, confirm: Annotated[str, Query(description="The tenant's name, once more.")]
) -> Answer:
    """Retire all configs of a tenant and destroy its key: nothing sealed under it opens again. Admins only."""
    by = await call.principal()
    name = names.name(tenant)
    if confirm != name:
        raise ConfirmWrong
    retired = await call.services.tenants.destroy(name, by=by)
    return json_answer({"tenant": name, "retired": retired})
