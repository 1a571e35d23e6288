"""`confide keys`: master keys, on the host."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import rich_click as click

from confide.cli.input import add_database_options
from confide.cli.output import print_line
from confide.cli.settings import WITH_KEYS, load_settings_of_database

if TYPE_CHECKING:
    from confide.server.settings import Settings

# A worker stores a data key that it creates within this time.
SETTLE_SECONDS = 2.5


@click.group()
def keys() -> None:
    """Rotate master keys."""


@keys.command()
@add_database_options
@click.option(
    "--prepare",
    is_flag=True,
    help="Only add a new key to master.keys, so that you can copy the file to every machine before the rotation.",
)
def rotate(*, prepare: bool, **options: str | None) -> None:
    """Re-encrypt every data key with a new master key while the service runs.

    With CONFIDE_MASTER_KEYS, first append the new key to it on every machine.
    """
    settings = load_settings_of_database(uses=WITH_KEYS, **options)
    print_line(asyncio.run(_rotate(settings, prepare=prepare)))


async def _rotate(settings: Settings, *, prepare: bool) -> str:
    from confide.crypto.master_keys import (  # noqa: PLC0415 - other commands must not load the server
        FILE_NAME,
        append_master_key,
        create_master_key,
        lock_rotation,
    )
    from confide.server.preparation import (  # noqa: PLC0415 - as above
        build_encryption,
        build_stores,
        open_on_host,
    )

    if prepare and settings.master_keys is not None:
        raise click.UsageError(
            "--prepare needs a key file. With CONFIDE_MASTER_KEYS, append the new key to it instead."
        )
    path = settings.data / FILE_NAME
    stores = build_stores(settings, is_unsafe_accepted=True)
    with lock_rotation(settings.data):
        try:
            await open_on_host(settings, stores)
            is_new = settings.master_keys is None and await build_encryption(settings, stores).is_rotated()
            if is_new:
                append_master_key(path, create_master_key())
            if prepare:
                state = "ends with a new master key" if is_new else "has a prepared master key already"
                return f"{path} {state}. Copy the file to every machine, then rotate without --prepare."
            count = await build_encryption(settings, stores).rewrap_all()
            # Workers that create a data key during the rotation may still use the old master key.
            await asyncio.sleep(SETTLE_SECONDS)
            count += await build_encryption(settings, stores).rewrap_all()
        finally:
            await stores.close()
    return f"{count} keys are now wrapped under the last master key. Keep the earlier ones for old backups."
