"""Route declarations have unique operation IDs, and the table of routes in the docs matches them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from confide.server.api import ROUTES

ROOT = Path(__file__).parents[2]


def build_page() -> str:
    spec = importlib.util.spec_from_file_location("make_route_table", ROOT / "tools" / "make_route_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.build_page())


def test_each_route_has_its_own_operation_id() -> None:
    operation_ids = [route.operation_id for route in ROUTES]
    assert all(operation_id.isidentifier() for operation_id in operation_ids)
    assert len(set(operation_ids)) == len(operation_ids)


def test_the_route_table_is_up_to_date() -> None:
    table = build_page()
    assert (ROOT / "docs" / "reference" / "routes.md").read_text() == table, "run make routes"
    assert table.count("\n| `") == sum(route.is_documented for route in ROUTES)
