"""A store filled for a measurement, through the store's own append, in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confide.clock import now
from confide.configs.model import Kind, NewVersion
from confide.configs.store import APPEND, saved_args
from confide.crypto.model import EncryptionContext
from confide.database.engine import Many, Transaction
from confide.identity import model
from confide.identity.model import NewUser
from confide.names import Key
from confide.server.preparation import prepare
from confide.server.settings import Settings
from confide.server.wiring import Parts, parts_of
from confide.strict_json import write

TYPE = "flight-information-system"
TYPES_A_TENANT = 10
BATCH = 2_000
# Its answer has 230 bytes of body.
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
    """A filled store and tokens for it."""

    settings: Settings
    reader: str
    admin: str
    login: str
    password: str


def key(number: int) -> Key:
    return Key(f"tenant-{number // TYPES_A_TENANT}", f"{TYPE}-{number % TYPES_A_TENANT}")


async def seed(settings: Settings, count: int, *, progress: Callable[[int], None] = lambda _: None) -> Seeded:
    """Fill an empty store with that many configs, a reader's token and an admin's."""
    await prepare(settings, accepts_unsafe=True)
    password = "a password of the benchmark"  # noqa: S105 - of a store that is thrown away
    async with parts_of(settings, accepts_unsafe=True) as parts:
        admin = await _token(parts, "bench-admin", model.grant("admin", "*", "*"), password=password)
        reader = await _token(parts, "bench-reader", model.grant("reader", "*", "*"), password=password)
        engine: Any = parts.store._engine  # type: ignore[attr-defined]
        keys: dict[str, bytes] = {}
        for begin in range(0, count, BATCH):
            rows = [await _row(parts, key(number), keys) for number in range(begin, min(begin + BATCH, count))]
            await engine.transact_long(_append(rows, engine.name))
            progress(len(rows))
    return Seeded(settings, reader, admin, "bench-admin", password)


async def _row(parts: Parts, at: Key, keys: dict[str, bytes]) -> tuple[Any, ...]:
    if at.tenant not in keys:
        keys.clear()  # tenants come one after the other
        keys[at.tenant] = await parts.keys.key_for_saving(at.tenant, None)
    key_id = keys[at.tenant]
    body = parts.keys.seal(CONFIGURATION, EncryptionContext(at, 1, Kind.SAVED), key_id=key_id)
    new = NewVersion(at, 1, Kind.SAVED, key_id, body, saved_by=1, saved_at=now())
    return saved_args(new)


def _append(rows: list[tuple[Any, ...]], engine: str) -> Transaction[None]:
    sql = APPEND.replace("RETURNING id", "")
    yield Many(sql if engine == "sqlite" else sql.replace("$5 IS NULL", "$5::bytea IS NULL"), rows)


async def _token(parts: Parts, login: str, *given: Any, password: str) -> str:
    hashed = await parts.hasher.hash(password)
    entry, mac = parts.services.configs._auditor.entry("add user", "added", principal=None)
    await parts.store.accounts.add(NewUser(login, given, hashed), entry=entry, mac=mac)
    user = await parts.store.accounts.read(login)
    added = await parts.services.tokens._added(
        user, label="bench", grants=None, expires_at=now() + 10**12, principal=None, begun_with=user.password
    )
    return added[0]
