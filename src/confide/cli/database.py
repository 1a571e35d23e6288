"""`confide migrate`, `backup` and `restore`, which open the database on the host."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from confide.cli.input import add_database_options
from confide.cli.output import print_line, show_progress
from confide.cli.settings import DATABASE_SETTINGS, WITH_KEYS, load_settings, load_settings_of_database

if TYPE_CHECKING:
    from confide.server.settings import Settings

MASTER_KEYS_NOTE = "The master keys are not in it. Without them no config can be decrypted: back them up separately."


@click.command()
@add_database_options
def migrate(**options: str | None) -> None:
    """Migrate the database schema to the newest version."""
    settings = load_settings(uses=DATABASE_SETTINGS, **options)
    applied = asyncio.run(_migrate(settings))
    print_line(f"Applied {', '.join(applied)}." if applied else "The schema is up to date.")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@add_database_options
def backup(file: Path, **options: str | None) -> None:
    """Write a consistent backup to FILE while the service runs."""
    settings = load_settings_of_database(uses=DATABASE_SETTINGS, **options)
    if file.exists():
        raise click.ClickException(f"{file} already exists and a backup never overwrites. Choose another name.")
    if not file.absolute().parent.is_dir():
        raise click.ClickException(f"Folder {file.absolute().parent} does not exist. Create it first.")
    count = asyncio.run(_backup(settings, file))
    print_line(f"{count:,} rows in {file}. {MASTER_KEYS_NOTE}")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@add_database_options
def restore(file: Path, **options: str | None) -> None:
    """Restore a backup into an empty database and begin a new epoch. All sessions end, service tokens stay."""
    settings = load_settings(uses=WITH_KEYS, **options)
    count = asyncio.run(_restore(settings, file))
    print_line(
        f"{count:,} rows restored; a new epoch begins and all sessions have ended. Service tokens that were revoked"
        f" after the backup are valid again: check `confide token list`. Copy the original master keys to"
        f" {settings.data} before you start the service."
    )


async def _migrate(settings: Settings) -> list[str]:
    from confide.server.preparation import build_stores  # noqa: PLC0415 - other commands must not load the server

    stores = build_stores(settings, is_unsafe_accepted=True)
    await stores.database.connect()
    try:
        return await stores.database.migrate()
    finally:
        await stores.close()


async def _backup(settings: Settings, file: Path) -> int:
    from confide.database import backup as archives  # noqa: PLC0415 - as above
    from confide.server.preparation import build_stores  # noqa: PLC0415 - as above

    stores = build_stores(settings, is_unsafe_accepted=True)
    await stores.database.open()
    try:
        with show_progress("Backing up", "rows") as update:
            return await archives.write(stores.database, file, progress=update)
    finally:
        await stores.close()


async def _restore(settings: Settings, file: Path) -> int:
    from confide.crypto.errors import MasterKeyMissing  # noqa: PLC0415 - as above
    from confide.database import backup as archives  # noqa: PLC0415 - as above
    from confide.server.preparation import (  # noqa: PLC0415 - as above
        build_encryption,
        build_stores,
        read_master_keys,
    )

    count = await asyncio.to_thread(archives.check, file)
    stores = build_stores(settings, is_unsafe_accepted=True)
    await stores.database.connect()
    try:
        await stores.database.migrate()
        if not await stores.database.is_empty():
            raise click.ClickException("The database is not empty. Restore into a new data folder or database.")
        with show_progress("Restoring", "rows"):
            await stores.database.load(archives.read(file))
        try:
            read_master_keys(settings)
            await build_encryption(settings, stores).check_master_keys()
        except MasterKeyMissing as missing:
            print_line(f"Note: {missing}", err=True)
        return count
    finally:
        await stores.close()
