"""Route declarations have unique operation IDs, and the table of routes in the docs matches them."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from confide.server.api import ROUTES
from confide.web.openapi import build_document
from confide.web.route import Returns

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


def test_two_models_with_the_same_title_are_rejected() -> None:
    class Shape(BaseModel, title="Note"):
        number: int

    class LongerShape(Shape):
        text: str

    route = replace(next(route for route in ROUTES if route.is_documented), returns=Returns((Shape, LongerShape)))
    with pytest.raises(ValueError, match="same title"):
        build_document([route], version="1")


def test_the_route_table_is_up_to_date() -> None:
    table = build_page()
    assert (ROOT / "docs" / "reference" / "routes.md").read_text() == table, "run make routes"
    assert table.count("\n| `") == sum(route.is_documented for route in ROUTES)
