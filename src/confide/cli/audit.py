"""`confide audit`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import rich_click as click

from confide.cli.connection import connect, url_option
from confide.cli.files import create_file
from confide.cli.input import json_option
from confide.cli.output import EXIT_CHECK_FAILED, print_items, print_line, show_progress
from confide.client.protocol import build_request
from confide.time_formats import format_time

if TYPE_CHECKING:
    from confide.audit.chain import ChainCheck, ChainPart, Checkpoint, LostStretch, RecordedLoss, Removal
    from confide.client import Client

COLUMNS = ("number", "at", "actor", "action", "outcome", "tenant", "integration_type", "version", "subject", "address")
PAGE_SIZE = "1000"
PROGRESS_STEP = 10_000
_CHECKPOINT = b'{"checkpoint":'
_LOSS = b'"begin epoch"'
_REMOVED = b'"removed":{'


@click.group()
def audit() -> None:
    """List, export and verify audit entries."""


@audit.command("list")
@click.option("--tenant", help="Name, prefix* or *.")
@click.option("--integration-type", help="Name, prefix* or *.")
@click.option("--actor", help="Login of the user.")
@click.option("--action", help="Exact action, such as save or login.")
@click.option("--from", "since", help="RFC 3339, such as 2026-11-24T09:15:00Z.")
@click.option("--to", "until", help="RFC 3339, exclusive.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1_000), help="Number of entries.")
@json_option
@url_option
def list_entries(*, limit: int, is_json: bool, url: str | None, since: str, until: str, **filters: str | None) -> None:
    """List audit entries, newest first."""
    params = {name: value for name, value in {**filters, "from": since, "to": until}.items() if value is not None}
    with connect(url) as client:
        entries = client.send(build_request("GET", "/audit", params={**params, "limit": str(limit)}))["entries"]
    print_items(entries, COLUMNS, is_json=is_json)


@audit.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@url_option
def export(file: Path, *, url: str | None) -> None:
    """Write the audit hash chain and its checkpoints to FILE as JSON lines, for `confide audit verify`."""
    count = 0
    with connect(url) as client, create_file(file) as out, show_progress("Exporting", "entries") as update:
        # Checkpoints first: the entries that they sign are then part of the export.
        signed = _fetch_checkpoints(client)
        for page in _fetch_entry_pages(client):
            out.write(page)
            count += page.count(b"\n")
            update(count)
        for checkpoint in signed.checkpoints:
            out.write(json.dumps(checkpoint, separators=(",", ":")).encode() + b"\n")
    print_line(f"{count:,} entries and {len(signed.checkpoints):,} checkpoints in {file}.")
    print_line(f"public key {signed.public_key}: store it elsewhere and pass it to `confide audit verify --key`.")


@audit.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", help="Public key that must have signed the checkpoints, in hexadecimal.")
@click.option(
    "--checkpoints",
    "checkpoints_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checkpoints from another place. FILE must contain every entry that they sign.",
)
def verify(file: Path, *, key: str | None, checkpoints_file: Path | None) -> int:
    """Verify offline that an export is complete and in order.

    Name the first bad entry, or the entries that were lost in a failover, and exit with 10.
    """
    try:
        from confide.audit import chain  # noqa: PLC0415 - the SDK alone has no server
        from confide.audit.checkpoint_file import has_valid_signature  # noqa: PLC0415 - as above
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing. Install confide[server].") from None

    def is_signed(one: Checkpoint | Removal) -> bool:
        return has_valid_signature(one, one.public_key if key is None else _parse_key(key))

    signed: list[Checkpoint] = []
    for checkpoint in _read_checkpoints(file, checkpoints_file, chain.parse_checkpoint):
        if checkpoint is None:
            return _print_bad("a checkpoint was altered.")
        if not is_signed(checkpoint):
            return _print_bad(f"the checkpoint of entry {checkpoint.number:,} is not signed by that key.")
        signed.append(checkpoint)
    if forged := [one for one in _find_removals(file) if not is_signed(one)]:
        return _print_bad(f"the removal of entry {forged[0].first:,} is not signed by that key.")
    check = chain.ChainCheck(signed, losses=_find_losses(file))
    with file.open("rb") as lines, show_progress("Verifying", "entries") as update:
        check.verify_next(_read_parts(lines, chain.parse_part, update))
    if (bad := check.finish()) is not None:
        return _print_bad(f"entry {bad.number:,}: {bad.reason}.")
    if key is not None and not signed:
        return _print_bad("no checkpoint is signed by that key.")
    return _print_verified(check, signed, has_key=key is not None)


def _print_verified(check: ChainCheck, signed: list[Checkpoint], *, has_key: bool) -> int:
    if lost := check.list_lost():
        return _print_lost(lost)
    key_origin = "" if has_key else "; the key comes from the export itself, pass --key to use one you trust"
    coverage = (
        f"the first {max(one.number for one in signed):,} are signed{key_origin}"
        if signed
        else "none is signed, so entries may be missing at the end"
    )
    removed = f"; the retention removed {check.removed:,} of them" if check.removed else ""
    print_line(f"{check.number:,} entries are in order and unaltered{removed}; {coverage}.")
    return 0


def _print_bad(reason: str) -> int:
    print_line(f"BAD: {reason}")
    return EXIT_CHECK_FAILED


def _print_lost(lost: list[LostStretch]) -> int:
    for stretch in lost:
        print_line(
            f"LOST, CONFIRM: entries {stretch.first:,} to {stretch.last:,}, or some of them. They were signed until"
            f" {format_time(stretch.signed_at)} and were gone when a new epoch began at"
            f" {format_time(stretch.noticed_at)}. Confirm that the database failed over or was restored then."
        )
    return EXIT_CHECK_FAILED


class _SignedCheckpoints(NamedTuple):
    """All checkpoints, and the current public key of the service."""

    public_key: str
    checkpoints: list[dict[str, Any]]


def _fetch_checkpoints(client: Client) -> _SignedCheckpoints:
    checkpoints: list[dict[str, Any]] = []
    after: str | None = "0"
    while after is not None:
        page = client.send(build_request("GET", "/audit/checkpoints", params={"after": after, "limit": PAGE_SIZE}))
        checkpoints += page["checkpoints"]
        public_key, after = page["public_key"], page["next"]
    return _SignedCheckpoints(public_key, checkpoints)


def _fetch_entry_pages(client: Client) -> Iterator[bytes]:
    """Yield pages of JSON lines. The last number of a page is the cursor of the next."""
    after = "0"
    path = "/audit/export"
    while page := client.send_for_bytes(build_request("GET", path, params={"after": after, "limit": PAGE_SIZE})):
        yield page
        after = page[page.rindex(b'{"number":') + 10 :].split(b",", 1)[0].decode()


def _find_losses(file: Path) -> list[RecordedLoss]:
    """Find the entries about lost commits. They count only if a checkpoint covers them."""
    from confide.audit import chain  # noqa: PLC0415 - the SDK alone has no server

    with file.open("rb") as lines:
        entries = [chain.parse_line(line.rstrip(b"\n")) for line in lines if _LOSS in line]
    found = [chain.find_recorded_loss(entry) for entry in entries if entry is not None]
    return [loss for loss in found if loss is not None]


def _find_removals(file: Path) -> Iterator[Removal]:
    """Yield what the retention removed. A line that is damaged is reported with its number later."""
    from confide.audit import chain  # noqa: PLC0415 - the SDK alone has no server

    with file.open("rb") as lines:
        parts = (chain.parse_part(line.rstrip(b"\n")) for line in lines if _REMOVED in line)
        yield from (part for part in parts if isinstance(part, chain.Removal))


def _read_checkpoints(
    file: Path, checkpoints_file: Path | None, parse_checkpoint: Callable[[bytes], Checkpoint | None]
) -> Iterator[Checkpoint | None]:
    """Yield the checkpoints of both files, None for a damaged one in the export. Skip damaged ones elsewhere."""
    for path in [file] if checkpoints_file is None else [file, checkpoints_file]:
        with path.open("rb") as lines:
            for line in lines:
                if not line.startswith(_CHECKPOINT):
                    continue
                checkpoint = parse_checkpoint(line)
                if checkpoint is None and path == checkpoints_file:
                    print_line(f"Skipped a damaged checkpoint in {path}.", err=True)
                else:
                    yield checkpoint


def _read_parts(
    lines: Iterable[bytes], parse_part: Callable[[bytes], ChainPart | None], update: Callable[[int], None]
) -> Iterator[ChainPart | None]:
    for count, line in enumerate(lines, 1):
        if line.startswith(_CHECKPOINT):
            continue
        if count % PROGRESS_STEP == 0:
            update(count)
        yield parse_part(line.rstrip(b"\n"))


def _parse_key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise click.BadParameter("--key must be hexadecimal.") from None
