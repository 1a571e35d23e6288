"""`/tenants`: the end of one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from confide import names
from confide.configs.errors import ConfirmWrong
from confide.configs.shapes import TenantDestroyed
from confide.web.response import Answer, json_answer
from confide.web.router import Asked, StrictRoute

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
