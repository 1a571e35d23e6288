"""`confide audit`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from confide.cli.options import FOUND_FAULTS, as_json, progress, show_lines
from confide.cli.session import connected, url_option
from confide.client.calls import request

if TYPE_CHECKING:
    from confide.client import Client

COLUMNS = ("number", "at", "actor", "action", "outcome", "tenant", "integration_type", "version", "subject", "address")
PAGE = "1000"


@click.group()
def audit() -> None:
    """List, export and verify audit entries."""


@audit.command("list")
@click.option("--tenant", help="Name, prefix* or *.")
@click.option("--integration-type", help="Name, prefix* or *.")
@click.option("--actor", help="Login of the user.")
@click.option("--action", help="Exact action, such as save, login or reveal.")
@click.option("--from", "since", help="RFC 3339, such as 2026-11-24T09:15:00Z.")
@click.option("--to", "until", help="RFC 3339, exclusive.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1_000))
@as_json
@url_option
def list_entries(*, limit: int, is_json: bool, url: str | None, since: str, until: str, **wanted: str | None) -> None:
    """List audit entries, newest first."""
    params = {name: value for name, value in {**wanted, "from": since, "to": until}.items() if value is not None}
    with connected(url) as client:
        lines = client.ask(request("GET", "/audit", params={**params, "limit": str(limit)}))["entries"]
    show_lines(lines, COLUMNS, is_json=is_json)


@audit.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@url_option
def export(file: Path, *, url: str | None) -> None:
    """Write the audit hash chain and its checkpoints to FILE as JSON lines, for `confide audit verify`."""
    count = 0
    with connected(url) as client, file.open("xb") as out, progress("Exporting", "entries") as tell:
        # Before the entries: what is signed must be among them.
        public_key, signed = _signed(client)
        for portion in _portions(client):
            out.write(portion)
            count += portion.count(b"\n")
            tell(count)
        for checkpoint in signed:
            out.write(_line(checkpoint))
    click.echo(f"{count:,} entries and {len(signed):,} checkpoints in {file}.")
    click.echo(f"public key {public_key}: store it elsewhere and pass it to `confide audit verify --key`.")


@audit.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", help="Public key that must have signed the checkpoints, in hexadecimal.")
@click.option(
    "--checkpoints",
    "kept",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoints from another place. FILE must contain every entry that they sign.",
)
def verify(file: Path, *, key: str | None, kept: Path | None) -> int:
    """Verify offline that an export is complete and in order. Name the first bad entry and exit with 10."""
    try:
        from confide.audit import chain  # noqa: PLC0415 - as above
        from confide.audit.checkpoint_file import has_valid_signature  # noqa: PLC0415 - a client alone has no crypto
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing; install confide[server].") from None

    signed: dict[int, Any] = {}
    for checkpoint in _checkpoints(file, kept, chain.parse_checkpoint):
        if checkpoint is None:
            click.echo("BAD: a checkpoint was altered.")
            return FOUND_FAULTS
        trusted = checkpoint.public_key if key is None else _key(key)
        if not has_valid_signature(checkpoint, trusted):
            click.echo(f"BAD: the checkpoint of entry {checkpoint.number:,} is not signed by that key.")
            return FOUND_FAULTS
        signed[checkpoint.number] = checkpoint
    check = chain.ChainCheck(signed)
    with file.open("rb") as lines, progress("Verifying", "entries") as tell:
        check.verify_next(_read(lines, chain.parse_line, tell))
    bad = check.finish()
    if bad is not None:
        click.echo(f"BAD: entry {bad.number:,}: {bad.reason}.")
        return FOUND_FAULTS
    if key is not None and not signed:
        click.echo("BAD: no checkpoint is signed by that key.")
        return FOUND_FAULTS
    whose = "" if key is not None else "; the key comes from the export itself, pass --key to use one you trust"
    proven = (
        f"the first {max(signed):,} are signed{whose}"
        if signed
        else "none is signed, so entries may be missing at the end"
    )
    click.echo(f"{check.number:,} entries are in order and unaltered; {proven}.")
    return 0


def _signed(client: Client) -> tuple[str, list[dict[str, Any]]]:
    """Return the public key and all checkpoints."""
    found: list[dict[str, Any]] = []
    after: str | None = "0"
    while after is not None:
        page = client.ask(request("GET", "/audit/checkpoints", params={"after": after, "limit": PAGE}))
        found += page["checkpoints"]
        public_key, after = page["public_key"], page["next"]
    return public_key, found


def _portions(client: Client) -> Iterator[bytes]:
    after = "0"
    while portion := client.fetch(request("GET", "/audit/export", params={"after": after, "limit": PAGE})):
        yield portion
        after = portion[portion.rindex(b'{"number":') + 10 :].split(b",", 1)[0].decode()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _checkpoints(file: Path, kept: Path | None, read: Any) -> Iterator[Any]:
    for path in [file] if kept is None else [file, kept]:
        with path.open("rb") as lines:
            for line in lines:
                if not line.startswith(b'{"checkpoint":'):
                    continue
                found = read(line)
                if found is None and path == kept:
                    click.echo(f"Skipped a damaged checkpoint in {kept}.", err=True)
                else:
                    yield found


def _read(lines: Any, read: Any, tell: Any) -> Iterator[Any]:
    for count, line in enumerate(lines, 1):
        if line.startswith(b'{"checkpoint":'):
            continue
        if count % 10_000 == 0:
            tell(count)
        yield read(line.rstrip(b"\n"))


def _key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.BadParameter("--key must be hexadecimal.") from None
