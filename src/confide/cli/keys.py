"""`confide keys`: master keys, on the host."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import rich_click as click

from confide.cli.options import require_store, settings_of, store_options

if TYPE_CHECKING:
    from confide.server.settings import Settings


SETTLE_SECONDS = 2.5


@click.group()
def keys() -> None:
    """Rotate master keys."""


@keys.command()
@store_options
@click.option(
    "--prepare",
    is_flag=True,
    help="Only add a new key to master.keys, so that you can copy the file to every machine before the rotation.",
)
def rotate(*, prepare: bool, **given: str | None) -> None:
    """Re-encrypt every data key with a new master key while the service runs.

    With CONFIDE_MASTER_KEYS, first append the new key to it on every machine.
    """
    settings = require_store(settings_of(**given))
    click.echo(asyncio.run(_rotate(settings, prepare=prepare)))


async def _rotate(settings: Settings, *, prepare: bool) -> str:
    from confide.crypto.master_keys import (  # noqa: PLC0415 - as above
        FILE_NAME,
        append_master_key,
        create_master_key,
        lock_rotation,
    )
    from confide.server.preparation import (  # noqa: PLC0415 - help must not load a server
        build_encryption,
        build_stores,
    )

    if prepare and settings.master_keys is not None:
        raise click.UsageError(
            "--prepare needs a key file. With CONFIDE_MASTER_KEYS, append the new key to it instead."
        )
    path = settings.data / FILE_NAME
    stores = build_stores(settings, accepts_unsafe=True)
    with lock_rotation(settings.data):
        await stores.database.open()
        try:
            is_new = settings.master_keys is None and await build_encryption(settings, stores).is_rotated()
            if is_new:
                append_master_key(path, create_master_key())
            if prepare:
                added = "ends with a new master key" if is_new else "has a prepared master key already"
                return f"{path} {added}. Copy the file to every machine, then rotate without --prepare."
            count = await build_encryption(settings, stores).rewrap_all()
            # A worker that was just making a key may store it under the old one.
            await asyncio.sleep(SETTLE_SECONDS)
            count += await build_encryption(settings, stores).rewrap_all()
        finally:
            await stores.close()
    return f"{count} keys are now wrapped under the last master key. Keep the earlier ones for old backups."
