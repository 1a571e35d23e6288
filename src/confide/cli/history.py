"""`confide config history`, `version`, `diff` and `rollback`."""

from __future__ import annotations

import json
from typing import Any

import rich_click as click

from confide.cli.options import all_pages, as_json, show, show_lines
from confide.cli.session import connected, url_option

COLUMNS = ("version", "kind", "saved_by", "saved_at", "note")

_WOULD = {"created": "Would create", "updated": "Would update to", "unchanged": "Would not change"}

note_option = click.option("--note", help="Reason for the history, in one line. Must not contain secrets.")
dry_run_option = click.option("--dry-run", "is_dry", is_flag=True, help="Preview the change without storing it.")


@click.command()
@click.argument("tenant")
@click.argument("integration_type")
@as_json
@url_option
def history(tenant: str, integration_type: str, *, is_json: bool, url: str | None) -> None:
    """List every version of a config, newest first."""
    with connected(url) as client:
        lines = all_pages("versions", lambda after: client.versions(tenant, integration_type, after=after))
    show_lines(lines, COLUMNS, is_json=is_json)


@click.command()
@click.argument("tenant")
@click.argument("integration_type")
@click.argument("number", type=click.IntRange(min=1))
@url_option
def version(tenant: str, integration_type: str, number: int, *, url: str | None) -> None:
    """Print one version as JSON. Viewers see masked secrets."""
    with connected(url) as client:
        show(client.version(tenant, integration_type, number)["configuration"])


@click.command()
@click.argument("tenant")
@click.argument("integration_type")
@click.argument("since", type=click.IntRange(min=0))
@click.argument("until", type=click.IntRange(min=0))
@as_json
@url_option
def diff(tenant: str, integration_type: str, since: int, until: int, *, is_json: bool, url: str | None) -> None:
    """Show the changes from version SINCE to version UNTIL. 0 is the state before the first version."""
    with connected(url) as client:
        found = client.diff(tenant, integration_type, since=since, until=until)
    if is_json:
        show(found)
    else:
        show_diff(found)


@click.command()
@click.argument("tenant")
@click.argument("integration_type")
@click.argument("number", type=click.IntRange(min=1))
@note_option
@dry_run_option
@url_option
def rollback(
    tenant: str, integration_type: str, number: int, *, note: str | None, is_dry: bool, url: str | None
) -> None:
    """Save version NUMBER again as a new version. This also restores a deleted config."""
    with connected(url) as client:
        saved = client.roll_back(tenant, integration_type, number, note=note, dry_run=is_dry)
    say_saved(saved, is_dry=is_dry)


def say_saved(saved: dict[str, Any], *, is_dry: bool) -> None:
    """Print the result of a save or its preview."""
    for violation in saved.get("warnings", []):
        click.echo(f"warning: {violation['pointer']}  {violation['code']}: {violation['detail']}", err=True)
    if not is_dry:
        click.echo(f"{saved['message']}, version {saved['version']}.")
        return
    show_diff(saved["diff"])
    click.echo(f"{_WOULD[saved['outcome']]} version {saved['version']}. Nothing was stored.")


def show_diff(found: dict[str, Any]) -> None:
    """Print one line per pointer: + added, - removed, ~ changed."""
    lines = [("+", place, json.dumps(value, ensure_ascii=False)) for place, value in found["added"].items()]
    lines += [("-", place, json.dumps(value, ensure_ascii=False)) for place, value in found["removed"].items()]
    for place, change in found["changed"].items():
        was, now = (json.dumps(change[side], ensure_ascii=False) for side in ("from", "to"))
        lines.append(("~", place, f"{was} → {now}"))
    if not lines:
        click.echo("No differences.")
    for sign, place, text in sorted(lines, key=lambda line: line[1]):
        click.echo(f"{sign} {place}  {text}")
