"""`confide migrate`, `backup`, `restore` and `store`, which open the database on the host."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import rich_click as click

from confide.cli.input import add_database_options
from confide.cli.output import print_line, print_table, show_progress
from confide.cli.settings import DATABASE_SETTINGS, WITH_KEYS, WITH_RECORD, load_settings, load_settings_of_database
from confide.time_formats import format_time

if TYPE_CHECKING:
    from confide.server.settings import Settings
    from confide.server.signing import StoreUsers

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
    settings = load_settings_of_database(uses=WITH_KEYS, **options)
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
    settings = load_settings(uses=WITH_RECORD, **options)
    restored = asyncio.run(_restore(settings, file))
    print_line(
        f"{restored.row_count:,} rows restored; a new epoch begins and all sessions have ended. Service tokens that"
        " were revoked after the backup are valid again: check the list. The service needs the original master keys in"
        f" {settings.data}."
    )
    _print_access(restored.access)
    if not restored.is_verified:
        print_line(
            "This backup is not signed, so nothing proves that it is unchanged. The service does not start with it"
            " until you have reviewed the lists above and run `confide store sign --reviewed`."
        )


@click.group()
def store() -> None:
    """Sign the rows of the database."""


@store.command()
@click.option("--reviewed", is_flag=True, help="Sign the rows as they are. List them first without this option.")
@add_database_options
def sign(*, reviewed: bool, **options: str | None) -> None:
    """List the users, admins and live tokens of the database, and sign all rows after a review.

    Stop the service first. It refuses a database whose signatures or their key are gone, and an unsigned backup.
    """
    settings = load_settings_of_database(uses=WITH_RECORD, **options)
    signed = asyncio.run(_sign(settings, is_reviewed=reviewed))
    _print_access(signed.access)
    if reviewed:
        print_line(f"The store is signed. {signed.row_count:,} rows had no valid signature before. Start the service.")
    else:
        print_line(
            f"Nothing was signed. {signed.row_count:,} rows have no valid signature. If these lists are right, run"
            " `confide store sign --reviewed`."
        )


class _Reviewed(NamedTuple):
    """The number of rows, and who can use the restored or signed database."""

    row_count: int
    access: StoreUsers
    is_verified: bool = True


def _print_access(access: StoreUsers) -> None:
    admins = {user.id for user in access.admins}
    print_table(
        ("user", "admin", "disabled", "service account"),
        [
            (
                user.login,
                *("yes" if value else "" for value in (user.id in admins, user.is_disabled, user.password is None)),
            )
            for user in access.users
        ],
    )
    print_table(
        ("live token", "user", "label", "expires"),
        [(str(token.id), token.login, token.label, format_time(token.expires_at)) for token in access.tokens],
    )
    print_line(f"{len(access.users):,} users, {len(admins):,} of them admins; {len(access.tokens):,} live tokens.")


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
    from confide.server.preparation import build_stores, open_on_host  # noqa: PLC0415 - as above

    stores = build_stores(settings, is_unsafe_accepted=True)
    try:
        keys = await open_on_host(settings, stores)
        key = await keys.load_row_key()
        with show_progress("Backing up", "rows") as update:
            return await archives.write(stores.database, file, stores.rows, key=key, progress=update)
    finally:
        await stores.close()


async def _restore(settings: Settings, file: Path) -> _Reviewed:
    from confide.audit.recorder import AuditRecorder  # noqa: PLC0415 - as above
    from confide.clock import read_wall_clock  # noqa: PLC0415 - as above
    from confide.crypto.errors import MasterKeyMissing  # noqa: PLC0415 - as above
    from confide.database import backup as archives  # noqa: PLC0415 - as above
    from confide.server.preparation import (  # noqa: PLC0415 - as above
        build_encryption,
        build_signing,
        build_stores,
        read_master_keys,
    )

    header = archives.read_header(file)
    stores = build_stores(settings, is_unsafe_accepted=True)
    if header.key is not None:
        try:
            build_encryption(settings, stores).use_row_key(header.key)
        except MasterKeyMissing:
            # Without the master keys, nothing proves that the file is unchanged. A damaged one is reported as such.
            await asyncio.to_thread(archives.check, file, None)
            raise
    count = await asyncio.to_thread(archives.check, file, stores.rows)
    await stores.database.connect()
    try:
        await stores.database.migrate()
        if not await stores.database.is_empty():
            raise click.ClickException("The database is not empty. Restore into a new data folder or database.")
        signing = build_signing(settings, stores)
        # A restore that stops here leaves a database that the service refuses.
        signing.require_review()
        with show_progress("Restoring", "rows"):
            await stores.database.load(archives.read(file, stores.rows, header=header))
        access = await signing.read_users()
        if header.key is None:
            try:
                read_master_keys(settings)
                await build_encryption(settings, stores).check_master_keys()
            except MasterKeyMissing as missing:
                print_line(f"Note: {missing}", err=True)
            return _Reviewed(count, access, is_verified=False)
        keys = build_encryption(settings, stores)
        await keys.start()
        is_intact = await signing.adopt_restored(AuditRecorder(stores.audit, keys, read_wall_clock))
        return _Reviewed(count, access, is_verified=is_intact)
    finally:
        await stores.close()


async def _sign(settings: Settings, *, is_reviewed: bool) -> _Reviewed:
    from confide.audit.recorder import AuditRecorder  # noqa: PLC0415 - as above
    from confide.clock import read_wall_clock  # noqa: PLC0415 - as above
    from confide.database.signing import scan_rows  # noqa: PLC0415 - as above
    from confide.server.preparation import (  # noqa: PLC0415 - as above
        build_encryption,
        build_signing,
        build_stores,
    )

    stores = build_stores(settings, is_unsafe_accepted=True)
    await stores.database.connect()
    try:
        await stores.database.migrate()
        keys, signing = build_encryption(settings, stores), build_signing(settings, stores)
        await keys.check_master_keys()
        if not is_reviewed:
            await keys.load_row_key()
            scanned = scan_rows(stores.database.host_engine, stores.rows)
            count = len([row async for row in scanned if not row.is_valid])
            return _Reviewed(count, await signing.read_users())
        await keys.start()
        await stores.database.open()
        access = await signing.read_users()
        count = await signing.sign(AuditRecorder(stores.audit, keys, read_wall_clock), outcome="reviewed")
        return _Reviewed(count, access)
    finally:
        await stores.close()
