"""`confide config watch`."""

from __future__ import annotations

import json
import time
from http import HTTPStatus

import rich_click as click

from confide.cli.connection import connect, url_option
from confide.cli.output import print_line
from confide.client import ConfideError
from confide.client.events import Event

RETRY_SECONDS = 1.0


@click.command()
@click.argument("tenant", default="*")
@click.argument("integration_type", default="*")
@click.option("--after", help="Position to resume after. 0 is the start of the change log. Defaults to now.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object per line.")
@url_option
def watch(tenant: str, integration_type: str, *, after: str | None, is_json: bool, url: str | None) -> None:
    """Print each change once and in order. Resume after interruptions."""
    with connect(url) as client:
        has_started = is_disconnected = False
        while True:
            try:
                for event in client.watch(tenant, integration_type, after=after):
                    if is_disconnected:
                        print_line("Connected again.", err=True)
                    has_started, is_disconnected, after = True, False, event.position or after
                    if event.name == "refused":
                        raise click.ClickException(f"The service ended the watch: {event.data['code']}.")
                    if event.name not in ("ready", "bye", "heartbeat"):
                        print_line(_format_event(event, is_json=is_json))
            except ConfideError as error:
                # Fail if the watch never started. Later, retry until the service is back.
                if not has_started or 0 < error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                if not is_disconnected:
                    print_line("The service does not respond. Retrying.", err=True)
                is_disconnected = True
            time.sleep(RETRY_SECONDS)


def _format_event(event: Event, *, is_json: bool) -> str:
    if is_json:
        return json.dumps({"event": event.name, **event.data})
    data = event.data
    key = data["integration_type"] if data["tenant"] is None else f"{data['tenant']} : {data['integration_type']}"
    return f"{event.name:<12}  {key}  version {data['version']}  {data['position']}"
