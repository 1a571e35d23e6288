"""`confide type`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

import rich_click as click

from confide.cli.options import FOUND_FAULTS, as_json, progress, show, show_broken, show_lines
from confide.cli.session import connected, found, naming, url_option
from confide.client.calls import request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confide.client.events import Event


@click.group("type")
def type_group() -> None:
    """Manage integration types and their JSON Schemas."""


@type_group.command()
@click.argument("name")
@click.argument("file", type=click.File("r", encoding="utf-8"), required=False)
@click.option("--mode", type=click.Choice(["warn", "enforce"]), default="warn", show_default=True)
@click.option("--keep", type=int, default=100, show_default=True, help="Versions to keep of each config.")
@click.option("--note", help="Reason, in one line.")
@url_option
def put(name: str, file: TextIO | None, *, mode: str, keep: int, note: str | None, url: str | None) -> None:
    """Activate the JSON Schema in FILE for a type. Without FILE, only change how many versions to keep."""
    with connected(url) as client:
        saved = client.put_type(name, _schema(file), mode=mode, keep=keep, note=note)
    click.echo(f"{saved['message']}, version {saved['version']}.")


@type_group.command()
@click.argument("name")
@click.argument("file", type=click.File("r", encoding="utf-8"), required=False)
@as_json
@url_option
def check(name: str, file: TextIO | None, *, is_json: bool, url: str | None) -> int:
    """List configs that violate the active schema or the schema in FILE. Exit with 10 if any does."""
    with connected(url) as client, naming(f"no integration type '{name}' with a schema"):
        result = _checked(client.check_type(name, _schema(file)))
    if is_json:
        show(result)
    else:
        show_broken(result["configs"])
        named = "" if result["broken"] == len(result["configs"]) else f", the first {len(result['configs']):,} named"
        click.echo(f"{result['checked']:,} configs checked, {result['broken']:,} break the schema{named}.")
    return FOUND_FAULTS if result["broken"] else 0


@type_group.command("list")
@as_json
@url_option
def list_types(*, is_json: bool, url: str | None) -> None:
    """List integration types."""
    with connected(url) as client:
        lines = client.ask(request("GET", "/integration-types"))["types"]
    columns = ("name", "version", "mode", "keep", "saved_at", "note")
    show_lines(lines, columns, is_json=is_json)


@type_group.command("show")
@click.argument("name")
@url_option
def show_type(name: str, *, url: str | None) -> None:
    """Print the schema of a type."""
    with connected(url) as client:
        show(found(client, request("GET", f"/integration-types/{name}"), f"no integration type '{name}'")["schema"])


def _schema(file: TextIO | None) -> dict[str, Any] | None:
    if file is None:
        return None
    try:
        schema: dict[str, Any] = json.load(file)
    except UnicodeDecodeError:
        raise click.ClickException(f"{file.name} is not valid UTF-8.") from None
    except json.JSONDecodeError as error:
        raise click.ClickException(
            f"{file.name} is not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    return schema


def _checked(events: Iterator[Event]) -> dict[str, Any]:
    with progress("Checking", "configs") as tell:
        for event in events:
            tell(event.data["checked"])
            if event.name == "result":
                return event.data
    raise click.ClickException("The service stopped before the check was complete. Try again.")
