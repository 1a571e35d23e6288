"""Cut a list into pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Page(NamedTuple, Generic[T]):
    """One page of a list. The next page starts after `last_item`; None on the last page."""

    items: Sequence[T]
    last_item: T | None


def cut_page(found: Sequence[T], limit: int) -> Page[T]:
    """Cut a page from the items that a query found. The query must ask for `limit + 1`: one more than fits."""
    items = found[:limit]
    return Page(items, items[-1] if len(found) > limit else None)
