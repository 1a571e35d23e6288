"""`confide type`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import rich_click as click

from confide.cli.connection import connect, explain_not_found, url_option
from confide.cli.input import json_option, read_json
from confide.cli.output import (
    EXIT_CHECK_FAILED,
    escape_line,
    print_items,
    print_json,
    print_line,
    print_violations,
    print_warnings,
    show_progress,
)
from confide.client.protocol import build_path, build_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confide.client.events import Event


_CONFIGS = ("configs", "config")


@click.group("type")
def type_group() -> None:
    """Manage integration types and their JSON Schemas."""


@type_group.command()
@click.argument("name")
@click.argument("file", type=click.File("rb"), required=False)
@click.option(
    "--mode",
    type=click.Choice(["warn", "enforce"]),
    default="warn",
    show_default=True,
    help="Warn about invalid saves, or reject them.",
)
@click.option("--keep", type=int, default=100, show_default=True, help="Versions to keep of each config.")
@click.option("--note", help="Reason, in one line.")
@url_option
def put(name: str, file: BinaryIO | None, *, mode: str, keep: int, note: str | None, url: str | None) -> None:
    """Activate the JSON Schema in FILE for a type. Without FILE, only change how many versions to keep."""
    with connect(url) as client:
        saved = client.put_type(name, None if file is None else read_json(file), mode=mode, keep=keep, note=note)
    print_warnings(saved)
    print_line(f"{saved['message']}, version {saved['version']}.")


@type_group.command()
@click.argument("name")
@click.argument("file", type=click.File("rb"), required=False)
@json_option
@url_option
def check(name: str, file: BinaryIO | None, *, is_json: bool, url: str | None) -> int:
    """List configs that violate the active schema or the schema in FILE. Exit with 10 if any does.

    With FILE, also list the values that it masks and the active schema does not, and the reverse. Without FILE, compare
    with the secrets of the previous release.
    """
    with connect(url) as client, explain_not_found(f"no integration type '{name}' with a schema"):
        result = _follow_check(client.check_type(name, None if file is None else read_json(file)))
    if is_json:
        print_json(result)
    else:
        print_warnings(result)
        print_violations(result["configs"])
        _print_mask_changes(result)
        listed = len(result["configs"])
        limit = "" if result["broken"] == listed else f", of which {listed:,} are listed"
        print_line(f"{result['checked']:,} configs checked, {result['broken']:,} violate the schema{limit}.")
    return EXIT_CHECK_FAILED if result["broken"] else 0


@type_group.command("list")
@json_option
@url_option
def list_types(*, is_json: bool, url: str | None) -> None:
    """List integration types."""
    with connect(url) as client:
        types = client.send(build_request("GET", "/integration-types"))["types"]
    columns = ("name", "version", "mode", "keep", "saved_at", "note")
    print_items(types, columns, is_json=is_json)


@type_group.command("show")
@click.argument("name")
@url_option
def show_type(name: str, *, url: str | None) -> None:
    """Print the schema of a type."""
    with connect(url) as client, explain_not_found(f"no integration type '{name}'"):
        print_json(client.send(build_request("GET", build_path("integration-types", name)))["schema"])


def _print_mask_changes(result: dict[str, Any]) -> None:
    for member, change in (("newly_masked", "Newly masked"), ("newly_visible", "Newly visible")):
        # A server of an earlier release does not list them.
        for one in result.get(member, []):
            print_line(escape_line(f"{change}: {one['pointer']} in {one['configs']:,} {_CONFIGS[one['configs'] == 1]}"))


def _follow_check(events: Iterator[Event]) -> dict[str, Any]:
    """Show the progress of a check and return its result."""
    with show_progress("Checking", "configs") as update:
        for event in events:
            update(event.data["checked"])
            if event.name == "result":
                return event.data
    raise click.ClickException("The service stopped before the check was complete. Try again.")
