"""`confide export` and `confide import`: many configs as JSON lines."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TextIO

import rich_click as click

from confide.cli.options import progress
from confide.cli.session import connected, url_option
from confide.client import ConfideError

if TYPE_CHECKING:
    from confide.client import Client

AT_ONCE = 8
# Worth a retry: the service is busy, or its database is unavailable.
NOT_NOW = (429, 503)
TRIES = 5
AGAIN_SECONDS = 1.0
PORTION = 200
_JSON = json.JSONDecoder(parse_int=len, parse_float=len)
_SPACE = re.compile(r"[ \t\r\n]*")
MEMBERS = ("tenant", "integration_type", "configuration")


class ImportLine(NamedTuple):
    """One unparsed line of an import. `fault` is why it cannot be imported."""

    number: int
    tenant: Any
    integration_type: Any
    configuration: bytes
    fault: str = ""


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.argument("tenant", default="*")
@click.argument("integration_type", default="*")
@click.option("--secrets", type=click.Choice(["masked", "opened"]), default="masked", show_default=True)
@url_option
def export_configs(file: str, tenant: str, integration_type: str, *, secrets: str, url: str | None) -> None:
    """Export configs to FILE, or to standard output with -, one JSON object per line.

    With --secrets opened, FILE contains plaintext secrets and is readable by its owner only. Each page is audited.
    """
    is_opened = secrets == "opened"
    count = masked = 0
    with connected(url) as client, _written(file) as out, progress("Exporting", "configs") as tell:
        for line in _exported(client, tenant, integration_type, is_opened=is_opened):
            if line["configuration"] is None:
                click.echo(f"{line['tenant']} : {line['integration_type']} cannot be decrypted. Skipped.", err=True)
                continue
            out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
            count, masked = count + 1, masked + line["masked"]
            tell(count)
    of_which = f"; {masked:,} of them masked because you may not read their secrets" if is_opened and masked else ""
    click.echo(f"{count:,} configs exported, secrets {secrets}{of_which}.", err=True)


@click.command("import")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--merge", is_flag=True, help="Merge into stored configs instead of replacing them.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Preview the import without storing it.")
@click.option("--note", help="Reason for the history, in one line.")
@url_option
def import_configs(file: BinaryIO, *, merge: bool, is_dry: bool, note: str | None, url: str | None) -> int:
    """Import configs from FILE, one JSON object per line: {"tenant", "integration_type", "configuration"}.

    Print each refused line with its number and continue. You can repeat an import: equal configs stay unchanged.
    Exit with 1 if any line was refused.
    """
    outcomes: Counter[str] = Counter()
    with connected(url) as client, progress("Importing", "configs") as tell, ThreadPoolExecutor(AT_ONCE) as pool:

        def saved(line: ImportLine) -> tuple[int, str, str]:
            return _saved(client, line, replace=not merge, is_dry=is_dry, note=note)

        for portion in _portions(_lines(file)):
            for number, outcome, why in pool.map(saved, portion):
                outcomes[outcome] += 1
                if why:
                    click.echo(f"line {number}: {why}", err=True)
            tell(outcomes.total())
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items())) or "no configs"
    click.echo(f"{told}{' (dry run: nothing was stored)' if is_dry else ''}.")
    return 1 if outcomes["refused"] else 0


@contextmanager
def _written(file: str) -> Iterator[TextIO]:
    """Open standard output, or a new file that only its owner can read."""
    if file == "-":
        yield sys.stdout
        return
    descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        yield out


def _exported(client: Client, tenant: str, integration_type: str, *, is_opened: bool) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        page = client.export(tenant, integration_type, opened=is_opened, after=after)
        yield from page["configs"]
        after = page["next"]
        if after is None:
            return


def _lines(file: BinaryIO) -> Iterator[ImportLine]:
    for number, text in enumerate(file, 1):
        if text.strip():
            try:
                found = _members(text.decode("utf-8-sig"))
                tenant, integration_type, configuration = (found[name] for name in MEMBERS)
                yield ImportLine(number, json.loads(tenant), json.loads(integration_type), configuration.encode())
            except (ValueError, KeyError, RecursionError):
                yield ImportLine(number, None, None, b"", _find_fault(number, text))


def _find_fault(number: int, line: bytes) -> str:
    try:
        json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        return f"it is not valid JSON at line {number}, column {error.colno}: {error.msg}."
    except (ValueError, RecursionError):
        pass
    return ""


def _members(text: str) -> dict[str, str]:
    """Return the members of an object, each as its unparsed text, because the service parses more strictly.

    Raises `ValueError` if the text is not an object or repeats a member.
    """
    found: dict[str, str] = {}
    at, sign = _after(text, 0), "{"
    while at < len(text) and text[at] == sign:
        name, end = _JSON.raw_decode(text, _after(text, at + 1))
        colon = _after(text, end)
        if not isinstance(name, str) or name in found or text[colon : colon + 1] != ":":
            raise ValueError(name)
        begin = _after(text, colon + 1)
        _, end = _JSON.raw_decode(text, begin)
        found[name] = text[begin:end]
        at, sign = _after(text, end), ","
    if not found or text[at:].strip(" \t\r\n") != "}":
        raise ValueError(text[at:])
    return found


def _after(text: str, at: int) -> int:
    """Return the next position that is not white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _portions(lines: Iterator[ImportLine]) -> Iterator[list[ImportLine]]:
    """Group lines into batches that can be saved in any order: no config occurs twice."""
    portion: dict[tuple[str, str], ImportLine] = {}
    for line in lines:
        key = (repr(line.tenant), repr(line.integration_type))
        if key in portion or len(portion) >= PORTION:
            yield list(portion.values())
            portion = {}
        portion[key] = line
    yield list(portion.values())


def _saved(client: Client, line: ImportLine, *, replace: bool, is_dry: bool, note: str | None) -> tuple[int, str, str]:
    """Save one line. Return its number, its outcome, and why it was refused."""
    number, tenant, integration_type, configuration, fault = line
    if not (isinstance(tenant, str) and isinstance(integration_type, str) and configuration.startswith(b"{")):
        return number, "refused", fault or f"it must be an object with the members {', '.join(MEMBERS)}."
    for left in range(TRIES - 1, -1, -1):
        try:
            answer = client.save(tenant, integration_type, configuration, replace=replace, note=note, dry_run=is_dry)
            break
        except ConfideError as error:
            if error.code == "unreachable":
                raise
            if error.status not in NOT_NOW or not left:
                return number, "refused", str(error)
            time.sleep(AGAIN_SECONDS)
    return number, answer["outcome"] if is_dry else str(answer["message"]).rsplit(" ", 1)[1], ""
