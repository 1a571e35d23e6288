"""`confide export` and `confide import`: configs as JSON lines."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TextIO

import rich_click as click

from confide.cli.connection import connect, url_option
from confide.cli.files import create_file
from confide.cli.input import remove_mark
from confide.cli.output import escape_line, print_line, show_progress
from confide.client import ConfideError

if TYPE_CHECKING:
    from confide.client import Client

MAX_CONCURRENT_SAVES = 8
# The service is busy, or its database is unavailable.
RETRYABLE_STATUSES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
MAX_ATTEMPTS = 5
RETRY_SECONDS = 1.0
BATCH_SIZE = 200
# `len` avoids converting numbers: the text is sent unchanged, and the server checks it.
_JSON = json.JSONDecoder(parse_int=len, parse_float=len)
_WHITE_SPACE = re.compile(r"[ \t\r\n]*")
MEMBERS = ("tenant", "integration_type", "configuration")


class ImportLine(NamedTuple):
    """One line of an import with its unparsed configuration. `reason` says why it cannot be imported."""

    number: int
    tenant: Any
    integration_type: Any
    configuration: bytes
    reason: str = ""


class ImportResult(NamedTuple):
    """Outcome of one line. `reason` says why it was rejected."""

    number: int
    outcome: str
    reason: str = ""


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.argument("tenant", default="*")
@click.argument("integration_type", default="*")
@click.option(
    "--secrets",
    type=click.Choice(["masked", "opened"]),
    default="masked",
    show_default=True,
    help="Mask secrets, or export them as plaintext.",
)
@url_option
def export_configs(file: str, tenant: str, integration_type: str, *, secrets: str, url: str | None) -> None:
    """Export configs to FILE, or to standard output with -, one JSON object per line.

    FILE is readable by its owner only. With --secrets opened, it contains plaintext secrets and each page is audited.
    """
    has_plaintext = secrets == "opened"
    count = masked = 0
    with connect(url) as client, _open_output(file) as out, show_progress("Exporting", "configs") as update:
        for config in _fetch_configs(client, tenant, integration_type, has_plaintext=has_plaintext):
            if config["configuration"] is None:
                print_line(f"{config['tenant']} : {config['integration_type']} cannot be decrypted. Skipped.", err=True)
                continue
            # Still the same JSON, and safe to show at a terminal.
            out.write(escape_line(json.dumps(config, ensure_ascii=False, separators=(",", ":"))) + "\n")
            count, masked = count + 1, masked + config["masked"]
            update(count)
    exceptions = (
        f"; {masked:,} of them masked because you may not read their secrets" if has_plaintext and masked else ""
    )
    print_line(f"{count:,} configs exported, secrets {secrets}{exceptions}.", err=True)


@click.command("import")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--merge", is_flag=True, help="Merge into stored configs instead of replacing them.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Preview the import without storing it.")
@click.option("--note", help="Reason for the history, in one line.")
@url_option
def import_configs(file: BinaryIO, *, merge: bool, is_dry: bool, note: str | None, url: str | None) -> int:
    """Import configs from FILE, one JSON object per line: {"tenant", "integration_type", "configuration"}.

    Print each rejected line with its number and continue. You can repeat an import: equal configs stay unchanged.
    Exit with 1 if any line was rejected.
    """
    outcomes: Counter[str] = Counter()
    with (
        connect(url) as client,
        show_progress("Importing", "configs") as update,
        ThreadPoolExecutor(MAX_CONCURRENT_SAVES) as pool,
    ):

        def save(line: ImportLine) -> ImportResult:
            return _save(client, line, replace=not merge, is_dry=is_dry, note=note)

        for batch in _group_lines(_read_lines(file)):
            for number, outcome, reason in pool.map(save, batch):
                outcomes[outcome] += 1
                if reason:
                    print_line(escape_line(f"line {number}: {reason}"), err=True)
            update(outcomes.total())
    summary = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items())) or "no configs"
    print_line(f"{summary}{' (dry run: nothing was stored)' if is_dry else ''}.")
    return 1 if outcomes["refused"] else 0


@contextmanager
def _open_output(file: str) -> Iterator[TextIO]:
    """Open a new file that only its owner can read, or standard output for -."""
    if file == "-":
        yield sys.stdout
        return
    with io.TextIOWrapper(create_file(Path(file)), encoding="utf-8") as out:
        yield out


def _fetch_configs(
    client: Client, tenant: str, integration_type: str, *, has_plaintext: bool
) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        page = client.export(tenant, integration_type, opened=has_plaintext, after=after)
        yield from page["configs"]
        after = page["next"]
        if after is None:
            return


def _read_lines(file: BinaryIO) -> Iterator[ImportLine]:
    for number, line in enumerate(file, 1):
        text = remove_mark(line, file) if number == 1 else line
        if text.strip():
            try:
                members = _split_members(text.decode())
                tenant, integration_type, configuration = (members[name] for name in MEMBERS)
                yield ImportLine(number, json.loads(tenant), json.loads(integration_type), configuration.encode())
            except (ValueError, KeyError, RecursionError):
                yield ImportLine(number, None, None, b"", _explain_invalid_json(number, text))


def _explain_invalid_json(number: int, line: bytes) -> str:
    try:
        json.loads(line.decode())
    except json.JSONDecodeError as error:
        return f"it is not valid JSON at line {number}, column {error.colno}: {error.msg}."
    except UnicodeDecodeError:
        return "it is not UTF-8. Save the file as UTF-8."
    except (ValueError, RecursionError):
        pass
    return ""


def _split_members(text: str) -> dict[str, str]:
    """Return the members of a JSON object as unparsed text, because the service parses more strictly.

    Raises `ValueError` if the text is not an object or repeats a member.
    """
    members: dict[str, str] = {}
    at, separator = _skip_white_space(text, 0), "{"
    while at < len(text) and text[at] == separator:
        name, end = _JSON.raw_decode(text, _skip_white_space(text, at + 1))
        colon = _skip_white_space(text, end)
        if not isinstance(name, str) or name in members or text[colon : colon + 1] != ":":
            raise ValueError(name)
        begin = _skip_white_space(text, colon + 1)
        _, end = _JSON.raw_decode(text, begin)
        members[name] = text[begin:end]
        at, separator = _skip_white_space(text, end), ","
    if not members or text[at:].strip(" \t\r\n") != "}":
        raise ValueError(text[at:])
    return members


def _skip_white_space(text: str, at: int) -> int:
    found = _WHITE_SPACE.match(text, at)
    return found.end() if found else at


def _group_lines(lines: Iterator[ImportLine]) -> Iterator[list[ImportLine]]:
    """Group lines into batches that can be saved in any order: no config occurs twice in a batch."""
    batch: dict[tuple[str, str], ImportLine] = {}
    for line in lines:
        key = (repr(line.tenant), repr(line.integration_type))
        if key in batch or len(batch) >= BATCH_SIZE:
            yield list(batch.values())
            batch = {}
        batch[key] = line
    yield list(batch.values())


def _save(client: Client, line: ImportLine, *, replace: bool, is_dry: bool, note: str | None) -> ImportResult:
    """Save one line. Retry while the service is busy."""
    number, tenant, integration_type, configuration, reason = line
    if not (isinstance(tenant, str) and isinstance(integration_type, str) and configuration.startswith(b"{")):
        reason = reason or f"it must be an object with the members {', '.join(MEMBERS)}."
        return ImportResult(number, "refused", reason)
    for attempts_left in range(MAX_ATTEMPTS - 1, -1, -1):
        try:
            saved = client.save(tenant, integration_type, configuration, replace=replace, note=note, dry_run=is_dry)
            break
        except ConfideError as error:
            if not error.status:
                raise
            if error.status not in RETRYABLE_STATUSES or not attempts_left:
                return ImportResult(number, "refused", str(error))
            time.sleep(RETRY_SECONDS)
    # The message of a save ends with its outcome: "Config 'acme : crm' is created".
    return ImportResult(number, saved["outcome"] if is_dry else str(saved["message"]).rsplit(" ", 1)[1])
