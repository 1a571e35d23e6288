"""Fill a database for a measurement in batches, with the SQL of a save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confide.clock import read_wall_clock
from confide.configs.model import Kind, NewVersion
from confide.configs.store import SQLITE_APPEND, VersionRow
from confide.crypto.model import EncryptionContext
from confide.database.engine import Many, Transaction
from confide.identity import model
from confide.identity.model import NewUser
from confide.names import ConfigKey
from confide.server.preparation import prepare
from confide.server.process import Process
from confide.server.settings import Settings
from confide.server.wiring import open_process
from confide.strict_json import write

TYPE = "flight-information-system"
TYPES_A_TENANT = 10
BATCH = 2_000
# The response body has 230 bytes.
CONFIGURATION = write(
    {
        "username": "acme_user",
        "password": "acme12345",
        "wsdl_urls": {
            "session_url": "https://session.manager.svc",
            "booking_url": "https://booking.manager.svc",
        },
    }
)


@dataclass(frozen=True)
class Seeded:
    """A filled database, tokens and a login."""

    settings: Settings
    reader: str
    admin: str
    login: str
    password: str


def build_key(number: int) -> ConfigKey:
    return ConfigKey(f"tenant-{number // TYPES_A_TENANT}", f"{TYPE}-{number % TYPES_A_TENANT}")


async def seed(settings: Settings, count: int, *, progress: Callable[[int], None] = lambda _: None) -> Seeded:
    """Fill an empty database with that many configs, an admin and a reader."""
    await prepare(settings, is_unsafe_accepted=True)
    password = "a password of the benchmark"  # noqa: S105 - for a temporary database
    async with open_process(settings, is_unsafe_accepted=True) as process:
        admin = await _create_token(process, "bench-admin", model.parse_grant("admin", "*", "*"), password=password)
        reader = await _create_token(process, "bench-reader", model.parse_grant("reader", "*", "*"), password=password)
        engine: Any = process.stores.database._host_engine
        ((epoch,),) = await engine.query("SELECT epoch FROM store")
        keys: dict[str, bytes] = {}
        for start in range(0, count, BATCH):
            rows = [
                (*await _build_row(process, build_key(number), keys), epoch)
                for number in range(start, min(start + BATCH, count))
            ]
            await engine.transact_long(_append(rows, engine.name))
            progress(len(rows))
    return Seeded(settings, reader, admin, "bench-admin", password)


async def _build_row(process: Process, at: ConfigKey, keys: dict[str, bytes]) -> tuple[Any, ...]:
    if at.tenant not in keys:
        keys.clear()  # configs come sorted by tenant
        keys[at.tenant] = await process.encryption.load_data_key(at.tenant, None)
    data_key_id = keys[at.tenant]
    body = process.encryption.encrypt(CONFIGURATION, EncryptionContext(at, 1, Kind.SAVED), data_key_id=data_key_id)
    new = NewVersion(at, 1, Kind.SAVED, body, data_key_id=data_key_id, saved_by=1, saved_at=read_wall_clock())
    return tuple(VersionRow.from_value(new))


def _append(rows: list[tuple[Any, ...]], engine: str) -> Transaction[None]:
    sql = SQLITE_APPEND.replace("RETURNING id", "")
    yield Many(sql if engine == "sqlite" else sql.replace("$5 IS NULL", "$5::bytea IS NULL"), rows)


async def _create_token(process: Process, login: str, *given: Any, password: str) -> str:
    hashed = await process.hasher.hash(password)
    audit = process.configs.writer._recorder.sign("add user", "added", principal=None)
    await process.stores.users.add(NewUser(login, given, hashed), audit=audit)
    user: Any = await process.stores.users.read(login)
    added: Any = await process.identity.tokens._create(
        user,
        label="bench",
        grants=None,
        expires_at=read_wall_clock() + 10**12,
        principal=None,
        password_hash=user.password,
    )
    return str(added[0])
