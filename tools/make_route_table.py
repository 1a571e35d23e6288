"""Write `docs/reference/routes.md`, the table of all routes, from their declarations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from confide.server.api import ROUTES
from confide.web.route import Route, Target

FILE = Path(__file__).parents[1] / "docs" / "reference" / "routes.md"
HEAD = """# Routes

Written by `make routes` from the route declarations. The [API](api.md) page explains the rules, and `/docs` of a
running server shows requests and responses.

| route | action | required role |
| --- | --- | --- |
"""
_NEEDS = {
    Target.VISIBLE: "any token; shows what its grants cover",
    Target.SELF: "any token",
    Target.TOKEN: "the owner of the token, or admin",
    Target.PUBLIC: "no token",
}


def describe_access(route: Route[Any]) -> str:
    """Describe who may call a route."""
    access = route.access
    if access.role is None:
        return _NEEDS[access.target]
    needs = access.role.name.lower()
    if access.target is not Target.SERVICE:
        needs += f" on the {access.target.value}"
    if access.allows_service_accounts:
        needs += ", or a service account"
    return f"{needs}; see [API](api.md) for callers without a token" if access.is_token_optional else needs


def build_page() -> str:
    """Build the page."""
    rows = [
        f"| `{route.method} {route.path}` | {route.summary} | {describe_access(route)} |\n"
        for route in sorted(ROUTES, key=lambda route: (route.path, route.method))
        if route.is_documented
    ]
    return HEAD + "".join(rows)


if __name__ == "__main__":
    FILE.write_text(build_page())
    sys.stdout.write(f"{FILE.name}\n")
