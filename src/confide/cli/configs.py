"""`confide config`."""

from __future__ import annotations

from typing import Any, BinaryIO

import rich_click as click

from confide.cli import history, watching
from confide.cli.history import dry_run_option, note_option, say_saved
from confide.cli.options import all_pages, as_json, show, show_broken, show_lines
from confide.cli.session import connected, found, naming, url_option
from confide.client.calls import request


@click.group()
def config() -> None:
    """Read and change configs."""


@config.command()
@click.argument("tenant")
@click.argument("integration_type")
@click.option(
    "--no-defaults", "is_bare", is_flag=True, help="Print the stored config, without the defaults of its type."
)
@url_option
def get(tenant: str, integration_type: str, *, is_bare: bool, url: str | None) -> None:
    """Print a config as JSON. Viewers see masked secrets."""
    with connected(url) as client:
        params = {"tenant": tenant, "integration_type": integration_type, **({"defaults": "off"} if is_bare else {})}
        asked = request("GET", "/config", params=params)
        show(found(client, asked, f"no config '{tenant} : {integration_type}'")["configuration"])


@config.command("set")
@click.argument("tenant")
@click.argument("integration_type")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--replace", is_flag=True, help="Replace the stored config instead of merging into it.")
@note_option
@dry_run_option
@url_option
def set_config(
    tenant: str,
    integration_type: str,
    file: BinaryIO,
    *,
    replace: bool,
    note: str | None,
    is_dry: bool,
    url: str | None,
) -> None:
    """Merge the JSON object in FILE, or from standard input, into a config. Create the config if it is missing."""
    text = file.read()
    if not text.strip():
        raise click.ClickException(f"{file.name} is empty. Provide a JSON object.")
    with connected(url) as client:
        # Sent unparsed: the service is stricter than `json`, and its errors name line and column.
        saved = client.save(tenant, integration_type, text, replace=replace, note=note, dry_run=is_dry)
    say_saved(saved, is_dry=is_dry)


@config.command("list")
@click.argument("tenant", default="*")
@click.argument("integration_type", default="*")
@click.option(
    "--changed-since", help="Only configs saved at this time or later. RFC 3339, such as 2026-11-24T09:15:00Z."
)
@click.option("--unread-since", help="Only configs neither read nor saved since this time.")
@click.option("--broken", is_flag=True, help="Only configs that violate the schema of their type.")
@as_json
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
    wanted: dict[str, Any] = {"changed_since": changed_since, "unread_since": unread_since}
    if broken:
        wanted["conforms"] = "false"
    with connected(url) as client:
        lines = all_pages("configs", lambda after: client.list(tenant, integration_type, after=after, **wanted))
    if broken and not is_json:
        show_broken(lines)
        return
    columns = ("tenant", "integration_type", "version", "saved_at", "last_read_at")
    show_lines(lines, columns, is_json=is_json)


@config.command()
@click.argument("tenant")
@click.argument("integration_type")
@as_json
@url_option
def usage(tenant: str, integration_type: str, *, is_json: bool, url: str | None) -> None:
    """List the tokens that read a config, with last use and count."""
    with connected(url) as client, naming(f"no config '{tenant} : {integration_type}'"):
        lines = client.usage(tenant, integration_type)["usage"]
    columns = ("token_id", "login", "label", "last_read_at", "reads")
    show_lines(lines, columns, is_json=is_json)


@config.command()
@click.argument("tenant")
@click.argument("integration_type")
@note_option
@url_option
def delete(tenant: str, integration_type: str, *, note: str | None, url: str | None) -> None:
    """Delete a config. Its history stays."""
    with connected(url) as client:
        click.echo(client.retire(tenant, integration_type, note=note)["message"] + ".")


config.add_command(history.history)
config.add_command(history.version)
config.add_command(history.diff)
config.add_command(history.rollback)
config.add_command(watching.watch)
