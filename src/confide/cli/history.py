"""`confide config history`, `version`, `diff` and `rollback`."""

from __future__ import annotations

import json
from typing import Any

import rich_click as click

from confide.cli.connection import connect, explain_not_found, fetch_all_pages, url_option
from confide.cli.input import json_option
from confide.cli.output import escape_line, print_items, print_json, print_line, print_warnings

COLUMNS = ("version", "kind", "saved_by", "saved_at", "note")

_PREVIEWS = {"created": "Would create", "updated": "Would update to", "unchanged": "Would not change"}

note_option = click.option("--note", help="Reason for the history, in one line. Must not contain secrets.")
masked_option = click.option("--masked", "is_masked", is_flag=True, help="Mask secrets, whatever your role.")
dry_run_option = click.option("--dry-run", "is_dry", is_flag=True, help="Preview the change without storing it.")


@click.command()
@click.argument("tenant")
@click.argument("integration_type")
@json_option
@url_option
def history(tenant: str, integration_type: str, *, is_json: bool, url: str | None) -> None:
    """List every version of a config, newest first."""
    with connect(url) as client, explain_not_found(f"no config '{tenant} : {integration_type}'"):
        versions = fetch_all_pages(
            "versions", lambda after: client.list_versions(tenant, integration_type, after=after)
        )
    print_items(versions, COLUMNS, is_json=is_json)


@click.command()
@click.argument("tenant")
@click.argument("integration_type")
@click.argument("number", type=click.IntRange(min=1))
@masked_option
@url_option
def version(tenant: str, integration_type: str, number: int, *, is_masked: bool, url: str | None) -> None:
    """Print one version as JSON. Viewers see masked secrets."""
    with connect(url) as client, explain_not_found(f"no version {number} of config '{tenant} : {integration_type}'"):
        found = client.read_version(tenant, integration_type, number, secrets=get_secrets_mode(is_masked=is_masked))
        print_json(found["configuration"])


@click.command()
@click.argument("tenant")
@click.argument("integration_type")
@click.argument("since", type=click.IntRange(min=0))
@click.argument("until", type=click.IntRange(min=0))
@masked_option
@json_option
@url_option
def diff(
    tenant: str, integration_type: str, since: int, until: int, *, is_masked: bool, is_json: bool, url: str | None
) -> None:
    """Show the changes from version SINCE to version UNTIL. 0 is the state before the first version."""
    subject = f"no version {since} or {until} of config '{tenant} : {integration_type}'"
    secrets = get_secrets_mode(is_masked=is_masked)
    with connect(url) as client, explain_not_found(subject):
        changes = client.diff(tenant, integration_type, since=since, until=until, secrets=secrets)
    if is_json:
        print_json(changes)
    else:
        print_diff(changes)


@click.command()
@click.argument("tenant")
@click.argument("integration_type")
@click.argument("number", type=click.IntRange(min=1))
@note_option
@dry_run_option
@masked_option
@url_option
def rollback(
    tenant: str,
    integration_type: str,
    number: int,
    *,
    note: str | None,
    is_dry: bool,
    is_masked: bool,
    url: str | None,
) -> None:
    """Save version NUMBER again as a new version. This also restores a deleted config."""
    require_dry_run(is_masked=is_masked, is_dry=is_dry)
    secrets = get_secrets_mode(is_masked=is_masked)
    with connect(url) as client:
        saved = client.roll_back(tenant, integration_type, number, note=note, dry_run=is_dry, secrets=secrets)
    print_saved(saved, is_dry=is_dry)


def get_secrets_mode(*, is_masked: bool) -> str | None:
    """Return the parameter `secrets` of a request. None leaves the decision to the role of the caller."""
    return "masked" if is_masked else None


def require_dry_run(*, is_masked: bool, is_dry: bool) -> None:
    """Raise `UsageError` if an option that only a preview has is given to a save."""
    if is_masked and not is_dry:
        raise click.UsageError("--masked is for a preview. Add --dry-run.")


def print_saved(saved: dict[str, Any], *, is_dry: bool) -> None:
    """Print the result of a save or of its dry run."""
    print_warnings(saved)
    if not is_dry:
        print_line(f"{saved['message']}, version {saved['version']}.")
        return
    print_diff(saved["diff"])
    print_line(f"{_PREVIEWS[saved['outcome']]} version {saved['version']}. Nothing was stored.")


def print_diff(changes: dict[str, Any]) -> None:
    """Print one line per pointer: + added, - removed, ~ changed."""
    lines = [("+", pointer, json.dumps(value, ensure_ascii=False)) for pointer, value in changes["added"].items()]
    lines += [("-", pointer, json.dumps(value, ensure_ascii=False)) for pointer, value in changes["removed"].items()]
    for pointer, change in changes["changed"].items():
        before, after = (json.dumps(change[side], ensure_ascii=False) for side in ("from", "to"))
        lines.append(("~", pointer, f"{before} → {after}"))
    if not lines:
        print_line("No differences.")
    for sign, pointer, values in sorted(lines, key=lambda line: line[1]):
        print_line(escape_line(f"{sign} {pointer}  {values}"))
