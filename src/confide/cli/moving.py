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
# Not now: the service is busy, or its store is away.
NOT_NOW = (429, 503)
TRIES = 5
AGAIN_SECONDS = 1.0
PORTION = 200
_JSON = json.JSONDecoder(parse_int=len, parse_float=len)
_SPACE = re.compile(r"[ \t\r\n]*")
MEMBERS = ("tenant", "integration_type", "configuration")


class ImportLine(NamedTuple):
    """One line of an import, as it was written."""

    number: int
    tenant: Any
    integration_type: Any
    configuration: bytes


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.argument("tenant", default="*")
@click.argument("integration_type", default="*")
@click.option("--secrets", type=click.Choice(["masked", "opened"]), default="masked", show_default=True)
@url_option
def export_configs(file: str, tenant: str, integration_type: str, *, secrets: str, url: str | None) -> None:
    """Write configs to FILE, or - for standard output, one JSON object a line, as they are stored.

    Opened, each page is in the audit as a reveal; FILE then holds secrets in the clear: it is made for its owner only.
    """
    is_opened = secrets == "opened"
    count = masked = 0
    with connected(url) as client, _written(file) as out, progress("Exporting", "configs") as tell:
        for line in _exported(client, tenant, integration_type, is_opened=is_opened):
            if line["configuration"] is None:
                click.echo(f"{line['tenant']} : {line['integration_type']} does not open and is left out.", err=True)
                continue
            out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
            count, masked = count + 1, masked + line["masked"]
            tell(count)
    of_which = f"; {masked:,} of them masked, for you may not read their secrets" if is_opened and masked else ""
    click.echo(f"{count:,} configs exported, secrets {secrets}{of_which}.", err=True)


@click.command("import")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--merge", is_flag=True, help="Merge into what is there instead of putting it in its place.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Say what would be saved and store nothing.")
@click.option("--note", help="Why, in one line, for the history.")
@url_option
def import_configs(file: BinaryIO, *, merge: bool, is_dry: bool, note: str | None, url: str | None) -> int:
    """Save each config of FILE, one JSON object a line: {"tenant", "integration_type", "configuration"}.

    What is refused is told with its line and the rest goes on; what is there already is unchanged, so an import may be
    repeated. Ends with 1 if any line was refused.
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
    """Standard output, or a new file that nobody else may read."""
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
                yield ImportLine(number, None, None, b"")


def _members(text: str) -> dict[str, str]:
    """The members of an object, each as it was written: what is saved is judged by the service, not by what reads it.

    Raises `ValueError` for what is no object, or names a member twice.
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
    """The place after white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _portions(lines: Iterator[ImportLine]) -> Iterator[list[ImportLine]]:
    """Lines that may be saved in any order: no config twice."""
    portion: dict[tuple[str, str], ImportLine] = {}
    for line in lines:
        key = (repr(line.tenant), repr(line.integration_type))
        if key in portion or len(portion) >= PORTION:
            yield list(portion.values())
            portion = {}
        portion[key] = line
    yield list(portion.values())


def _saved(client: Client, line: ImportLine, *, replace: bool, is_dry: bool, note: str | None) -> tuple[int, str, str]:
    """The number of the line, what became of it, and why it was refused."""
    number, tenant, integration_type, configuration = line
    if not (isinstance(tenant, str) and isinstance(integration_type, str) and configuration.startswith(b"{")):
        return number, "refused", f"it is no object with the members {', '.join(MEMBERS)}."
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
