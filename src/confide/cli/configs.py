"""`confide config`."""

from __future__ import annotations

from typing import Any, BinaryIO

import rich_click as click

from confide.cli import history
from confide.cli.connection import connect, explain_not_found, fetch_all_pages, url_option
from confide.cli.history import (
    dry_run_option,
    get_secrets_mode,
    masked_option,
    note_option,
    print_saved,
    require_dry_run,
)
from confide.cli.input import json_option, read_json
from confide.cli.output import print_items, print_json, print_line, print_violations
from confide.cli.watch import watch
from confide.client.protocol import build_request


@click.group()
def config() -> None:
    """Read and change configs."""


@config.command()
@click.argument("tenant")
@click.argument("integration_type")
@click.option(
    "--no-defaults", "has_no_defaults", is_flag=True, help="Print the stored config, without the defaults of its type."
)
@click.option("--pointer", help="Print one member, such as /password, with its secrets. This access is audited.")
@masked_option
@url_option
def get(
    tenant: str, integration_type: str, *, has_no_defaults: bool, pointer: str | None, is_masked: bool, url: str | None
) -> None:
    """Print a config as JSON. Viewers see masked secrets."""
    if pointer is not None and is_masked:
        raise click.UsageError("--pointer opens a member. It cannot be combined with --masked.")
    params = {"tenant": tenant, "integration_type": integration_type}
    if has_no_defaults:
        params["defaults"] = "off"
    if is_masked:
        params["secrets"] = "masked"
    if pointer is not None:
        params |= {"secrets": "opened", "pointer": pointer}
    with connect(url) as client, explain_not_found(f"no config '{tenant} : {integration_type}'"):
        found = client.send(build_request("GET", "/config", params=params))
    print_json(found["configuration" if pointer is None else "value"])


@config.command("set")
@click.argument("tenant")
@click.argument("integration_type")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--replace", is_flag=True, help="Replace the stored config instead of merging into it.")
@note_option
@dry_run_option
@masked_option
@url_option
def set_config(
    tenant: str,
    integration_type: str,
    file: BinaryIO,
    *,
    replace: bool,
    note: str | None,
    is_dry: bool,
    is_masked: bool,
    url: str | None,
) -> None:
    """Merge the JSON object in FILE, or from standard input, into a config. Create the config if it is missing."""
    require_dry_run(is_masked=is_masked, is_dry=is_dry)
    text = read_json(file)
    with connect(url) as client:
        # Send the text unparsed: the service is stricter than `json`, and its errors name line and column.
        saved = client.save(
            tenant,
            integration_type,
            text,
            replace=replace,
            note=note,
            dry_run=is_dry,
            secrets=get_secrets_mode(is_masked=is_masked),
        )
    print_saved(saved, is_dry=is_dry)


@config.command("list")
@click.argument("tenant", default="*")
@click.argument("integration_type", default="*")
@click.option(
    "--changed-since", help="Only configs saved at this time or later. RFC 3339, such as 2026-11-24T09:15:00Z."
)
@click.option("--unread-since", help="Only configs neither read nor saved since this time.")
@click.option("--broken", is_flag=True, help="Only configs that violate the schema of their type.")
@json_option
@url_option
def list_configs(
    tenant: str,
    integration_type: str,
    *,
    changed_since: str | None,
    unread_since: str | None,
    broken: bool,
    is_json: bool,
    url: str | None,
) -> None:
    """List configs. Each argument is a name, a prefix* or *."""
    filters: dict[str, Any] = {"changed_since": changed_since, "unread_since": unread_since}
    if broken:
        filters["conforms"] = "false"
    with connect(url) as client:
        configs = fetch_all_pages(
            "configs", lambda after: client.list(tenant, integration_type, after=after, **filters)
        )
    if broken and not is_json:
        print_violations(configs)
        return
    columns = ("tenant", "integration_type", "version", "saved_at", "last_read_at")
    print_items(configs, columns, is_json=is_json)


@config.command()
@click.argument("tenant")
@click.argument("integration_type")
@json_option
@url_option
def usage(tenant: str, integration_type: str, *, is_json: bool, url: str | None) -> None:
    """List the tokens that read a config, with last use and count."""
    with connect(url) as client, explain_not_found(f"no config '{tenant} : {integration_type}'"):
        readers = client.list_readers(tenant, integration_type)["usage"]
    columns = ("token_id", "login", "label", "last_read_at", "reads")
    print_items(readers, columns, is_json=is_json)


@config.command()
@click.argument("tenant")
@click.argument("integration_type")
@note_option
@url_option
def delete(tenant: str, integration_type: str, *, note: str | None, url: str | None) -> None:
    """Delete a config. Its history stays."""
    with connect(url) as client, explain_not_found(f"no config '{tenant} : {integration_type}'"):
        print_line(client.delete(tenant, integration_type, note=note)["message"] + ".")


config.add_command(history.history)
config.add_command(history.version)
config.add_command(history.diff)
config.add_command(history.rollback)
config.add_command(watch)
