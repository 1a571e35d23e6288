"""Acts on the host that open the store themselves: `migrate`, `backup`, `restore`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from confide.cli.options import progress, require_store, settings_of, store_options

if TYPE_CHECKING:
    from confide.server.settings import Settings

NO_KEYS = "The master keys are not in it: without them nothing in it can be read. Keep them elsewhere."


@click.command()
@store_options
def migrate(**given: str | None) -> None:
    """Bring the schema of the store up to date."""
    settings = settings_of(**given)
    applied = asyncio.run(_migrate(settings))
    click.echo(f"Applied {', '.join(applied)}." if applied else "The schema is up to date.")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@store_options
def backup(file: Path, **given: str | None) -> None:
    """Write the whole store to FILE, as of one moment, while it is served."""
    settings = require_store(settings_of(**given))
    if file.exists():
        raise click.ClickException(f"{file} exists already; a backup never overwrites.")
    if not file.absolute().parent.is_dir():
        raise click.ClickException(f"There is no folder {file.absolute().parent}.")
    count = asyncio.run(_backup(settings, file))
    click.echo(f"{count:,} rows in {file}. {NO_KEYS}")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@store_options
def restore(file: Path, **given: str | None) -> None:
    """Fill an empty store from FILE and begin a new epoch; all sessions end, service tokens stay."""
    settings = settings_of(**given)
    count = asyncio.run(_restore(settings, file))
    click.echo(
        f"{count:,} rows restored; a new epoch begins and all sessions have ended. Service tokens that were revoked"
        f" after the backup are valid again: look at confide token list. The master keys of that store must lie in"
        f" {settings.data} before it is served."
    )


async def _migrate(settings: Settings) -> list[str]:
    from confide.server.preparation import stores_of  # noqa: PLC0415 - help must not load a server

    stores = stores_of(settings, accepts_unsafe=True)
    await stores.database.connect()
    try:
        return await stores.database.migrate()
    finally:
        await stores.close()


async def _backup(settings: Settings, file: Path) -> int:
    from confide.database import backup as archives  # noqa: PLC0415 - as above
    from confide.server.preparation import stores_of  # noqa: PLC0415 - as above

    stores = stores_of(settings, accepts_unsafe=True)
    await stores.database.open()
    try:
        with progress("Backing up", "rows") as tell:
            return await archives.write(stores.database, file, progress=tell)
    finally:
        await stores.close()


async def _restore(settings: Settings, file: Path) -> int:
    from confide.crypto.errors import MasterKeyMissing  # noqa: PLC0415 - as above
    from confide.database import backup as archives  # noqa: PLC0415 - as above
    from confide.server.preparation import (  # noqa: PLC0415 - as above
        encryption_of,
        ring_of,
        stores_of,
    )

    count = await asyncio.to_thread(archives.check, file)
    stores = stores_of(settings, accepts_unsafe=True)
    await stores.database.connect()
    try:
        await stores.database.migrate()
        if not await stores.database.is_empty():
            raise click.ClickException("The store is not empty; restore into a new data folder or database.")
        with progress("Restoring", "rows"):
            await stores.database.load(archives.read(file))
        try:
            ring_of(settings)
            await encryption_of(settings, stores).check_all()
        except MasterKeyMissing as missing:
            click.echo(f"Note: {missing}", err=True)
        return count
    finally:
        await stores.close()
