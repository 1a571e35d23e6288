"""`confide tenant`."""

from __future__ import annotations

import rich_click as click

from confide.cli.connection import connect, fetch_all_pages, url_option
from confide.cli.input import json_option
from confide.cli.output import print_items


@click.group()
def tenant() -> None:
    """Find tenants."""


@tenant.command("list")
@click.argument("pattern", default="*")
@json_option
@url_option
def list_tenants(pattern: str, *, is_json: bool, url: str | None) -> None:
    """List tenants with the number of their configs. PATTERN is a name, a prefix* or *."""
    with connect(url) as client:
        found = fetch_all_pages("tenants", lambda after: client.list_tenants(pattern, after=after))
    print_items(found, ("tenant", "configs"), is_json=is_json)
