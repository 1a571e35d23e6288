"""The contract of a store, the same on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from confide.audit.model import SignedEntry
from confide.changes import positions
from confide.changes.errors import PositionGone
from confide.changes.model import Position
from confide.configs.model import IdempotencyKeyTaken, IdempotencyRecord, Kind, Outcome
from confide.crypto.model import WrappedKey
from confide.database.model import DatabaseIdentity
from confide.identity.errors import LastAdmin, UserExists
from confide.identity.model import NewToken, NewUser, Scope, UserChange
from confide.names import Key
from confide.server.settings import Settings
from confide.server.stores import Stores, open_stores
from support.app import ADMIN, grants_of
from support.rows import AUDIT, ENTRY, KEY, append, version

EVERYTHING = [[Scope("*", "*")]]


@pytest.fixture
async def opened(settings: Settings) -> AsyncIterator[tuple[Stores, DatabaseIdentity]]:
    settings.data.mkdir(exist_ok=True)
    store = open_stores(settings.database_url, is_unsafe=True)
    await store.database.connect()
    await store.database.migrate()
    home = await store.database.open()
    yield store, home
    await store.close()


@pytest.fixture
def store(opened: tuple[Stores, DatabaseIdentity]) -> Stores:
    return opened[0]


async def audits(store: Stores) -> list[tuple[object, ...]]:
    return [tuple(row) async for table, row in store.database.dump() if table == "audit"]


async def test_a_version_is_read_as_it_was_appended(store: Stores) -> None:
    assert await append(store, version(1, body=b"\x00\xff"))
    found = await store.configs.read(KEY)
    assert found is not None
    assert (found.version, found.kind, found.body) == (1, Kind.SAVED, b"\x00\xff")


async def test_the_same_version_is_appended_once_and_leaves_nothing_else_behind(store: Stores) -> None:
    assert await append(store, version(1, body=b"first"))
    replay = IdempotencyRecord(1, "POST /config", "k", b"mac", 1, Outcome.CREATED)
    assert not await append(store, version(1, body=b"second"), replay)
    found = await store.configs.read(KEY)
    assert found is not None
    assert found.body == b"first"
    assert len(await audits(store)) == 1
    assert await store.configs.read_idempotency_record(replay, not_before=0) is None


async def test_of_many_appends_of_one_version_one_wins(store: Stores) -> None:
    won = await asyncio.gather(*(append(store, version(1, body=b"%d" % n)) for n in range(32)))
    assert sum(won) == 1
    assert len(await audits(store)) == 1


async def test_of_many_appends_at_once_each_has_its_own_version_and_audit_entry(store: Stores) -> None:
    keys = [Key("acme", f"type{number}") for number in range(40)]
    assert await append(store, version(1, key=keys[7], body=b"rival"))
    won = await asyncio.gather(
        *(append(store, version(1, key=key, body=key.integration_type.encode())) for key in keys)
    )
    assert [number for number, is_won in enumerate(won) if not is_won] == [7]
    found = await asyncio.gather(*(store.configs.read(key) for key in [*keys, Key("acme", "none")]))
    assert [one and one.body for one in found] == [
        b"rival" if key is keys[7] else key.integration_type.encode() for key in keys
    ] + [None]
    rows = {row[0]: row async for table, row in store.database.dump() if table == "changes"}
    explained = [row[-1] for row in await audits(store)]
    assert sorted(map(str, explained)) == sorted(map(str, rows))


async def test_an_idempotency_record_taken_undoes_the_version(store: Stores) -> None:
    replay = IdempotencyRecord(1, "POST /config", "k", b"mac", 1, Outcome.CREATED)
    assert await append(store, version(1), replay)
    with pytest.raises(IdempotencyKeyTaken):
        await append(store, version(2), replay)
    found = await store.configs.read(KEY)
    assert found is not None
    assert found.version == 1
    assert await store.configs.read_idempotency_record(replay, not_before=0) == replay


async def test_an_idempotency_record_is_kept_for_a_request_that_changed_nothing(store: Stores) -> None:
    replay = IdempotencyRecord(1, "POST /config", "k", b"mac", 7, Outcome.UNCHANGED)
    await store.configs.insert_idempotency_record(replay, saved_at=100)
    with pytest.raises(IdempotencyKeyTaken):
        await store.configs.insert_idempotency_record(replay, saved_at=100)
    assert await store.configs.read_idempotency_record(replay, not_before=100) == replay
    assert await store.configs.read_idempotency_record(replay, not_before=101) is None
    await store.configs.delete_idempotency_records(before=101)
    await store.configs.insert_idempotency_record(replace(replay, version=8), saved_at=200)


async def test_a_save_under_a_key_that_is_gone_is_not_appended(store: Stores) -> None:
    assert not await append(store, version(1, key_id=b"k" * 16))
    await store.data_keys.add_if_none(WrappedKey(b"k" * 16, "config", "acme", b"m" * 16, b"wrapped"), made_at=1)
    assert await append(store, version(1, key_id=b"k" * 16))
    destroyed = await store.data_keys.destroy_tenant("acme", user_id=1, at=2, audit=AUDIT)
    assert destroyed == (1, [b"k" * 16])
    assert not await append(store, version(3, key_id=b"k" * 16))


async def test_saves_and_the_end_of_a_tenant_never_leave_a_body_under_a_dead_key(store: Stores) -> None:
    await store.data_keys.add_if_none(WrappedKey(b"k" * 16, "config", "acme", b"m" * 16, b"wrapped"), made_at=1)
    keys = [Key("acme", f"type{n}") for n in range(24)]
    saves = [append(store, version(1, key=key, key_id=b"k" * 16)) for key in keys]
    await asyncio.gather(*saves, store.data_keys.destroy_tenant("acme", user_id=1, at=2, audit=AUDIT))
    for key in keys:
        found = await store.configs.read(key)
        assert found is None or found.kind is Kind.DELETED


async def test_a_tenant_has_one_active_key_however_many_ask(store: Stores) -> None:
    news = [WrappedKey(bytes([n]) * 16, "config", "acme", b"m" * 16, b"%d" % n) for n in range(16)]
    made = await asyncio.gather(*(store.data_keys.add_if_none(new, made_at=1) for new in news))
    assert len({key.id for key in made}) == 1
    assert len(await store.data_keys.list_all()) == 1


async def test_a_key_is_rewrapped_only_in_place_of_what_was_read(store: Stores) -> None:
    old = WrappedKey(b"k" * 16, "config", "acme", b"1" * 16, b"old")
    await store.data_keys.add_if_none(old, made_at=1)
    await store.data_keys.rewrap(replace(old, master_key_id=b"2" * 16, wrapped=b"new"), instead_of=b"9" * 16)
    assert await store.data_keys.read(old.id) == old
    await store.data_keys.rewrap(replace(old, master_key_id=b"2" * 16, wrapped=b"new"), instead_of=b"1" * 16)
    assert await store.data_keys.read(old.id) == replace(old, master_key_id=b"2" * 16, wrapped=b"new")


async def test_a_list_goes_on_where_it_stopped_and_shows_no_retired_config(store: Stores) -> None:
    for tenant in ("acme", "acme-2", "globex"):
        for number in (1, 2):
            await append(store, version(number, key=Key(tenant, "crm")))
        await append(store, version(1, key=Key(tenant, "fis")))
    await append(store, version(2, key=Key("acme", "fis"), body=None))
    first = await store.configs.list_page(EVERYTHING, after=None, limit=3)
    assert [(*line.key, line.version) for line in first] == [
        ("acme", "crm", 2),
        ("acme-2", "crm", 2),
        ("acme-2", "fis", 1),
    ]
    rest = await store.configs.list_page(EVERYTHING, after=first[-1].key, limit=10)
    assert [line.key for line in rest] == [("globex", "crm"), ("globex", "fis")]


@pytest.mark.parametrize(
    ("scopes", "seen"),
    [
        ([[Scope("acme", "*")]], ["acme:crm"]),
        ([[Scope("acme*", "*")]], ["acme:crm", "acme-2:crm"]),
        ([[Scope("*", "c*")], [Scope("globex", "crm"), Scope("acme", "crm")]], ["acme:crm", "globex:crm"]),
        ([[Scope("*", "*")], [Scope("acme", "fis")]], []),
        ([[Scope("*", "*")], []], []),
    ],
)
async def test_a_list_holds_only_what_one_scope_of_each_group_covers(
    store: Stores, scopes: list[list[Scope]], seen: list[str]
) -> None:
    for tenant in ("acme", "acme-2", "globex"):
        await append(store, version(1, key=Key(tenant, "crm")))
    lines = await store.configs.list_page(scopes, after=None, limit=10)
    assert [":".join(line.key) for line in lines] == seen


async def test_names_are_compared_exactly_and_listed_in_byte_order(store: Stores) -> None:
    for tenant in ("b", "A", "a", "B", "a.b", "a-b", "a_b"):
        await append(store, version(1, key=Key(tenant, "t")))
    lines = await store.configs.list_page(EVERYTHING, after=None, limit=10)
    assert [line.key.tenant for line in lines] == sorted(["b", "A", "a", "B", "a.b", "a-b", "a_b"])


async def test_the_log_tells_every_change_once_and_in_order(store: Stores) -> None:
    await store.users.add(NewUser("ada", grants_of(*ADMIN), "hash"), audit=AUDIT)
    for number in range(1, 6):
        await append(store, version(number))
    seen, position = [], Position(0, 0)
    while changes := await store.configs.read_changes_after(position, limit=2):
        seen += changes
        position = changes[-1].position
    assert [change.kind for change in seen] == ["user-added", *["saved"] * 5]
    assert [change.version for change in seen] == [None, 1, 2, 3, 4, 5]
    assert sorted(change.position for change in seen) == [change.position for change in seen]


async def test_a_position_of_another_epoch_is_gone(opened: tuple[Stores, DatabaseIdentity], engine: str) -> None:
    home = opened[1]
    text = positions.format_position(home.epoch, Position(5, 7), has_xid=engine == "postgres")
    assert positions.parse_position(text, home.epoch, has_xid=home.has_xid).id == 7
    with pytest.raises(PositionGone):
        positions.parse_position(text, "0" * 16, has_xid=home.has_xid)


async def test_of_many_first_users_one_becomes_admin_and_nothing_reopens_that(store: Stores) -> None:
    def first(number: int) -> NewUser:
        return NewUser(f"user{number}", grants_of(*ADMIN), "hash")

    ids = await asyncio.gather(*(store.users.add_first(first(n), audit=AUDIT) for n in range(8)))
    assert sum(id_ is not None for id_ in ids) == 1
    assert len(await store.users.list_all()) == 1
    assert await store.users.add_first(first(9), audit=AUDIT) is None


async def test_a_login_is_taken_once(store: Stores) -> None:
    await store.users.add(NewUser("ada", (), "hash"), audit=AUDIT)
    with pytest.raises(UserExists):
        await store.users.add(NewUser("ada", (), "other"), audit=AUDIT)
    user = await store.users.read("ada")
    assert user is not None
    assert user.password == "hash"


async def test_two_admins_cannot_lower_each_other_at_once(store: Stores) -> None:
    for login in ("ada", "bob"):
        await store.users.add(NewUser(login, grants_of(*ADMIN), "hash"), audit=AUDIT)
    lower = UserChange(grants=())
    done = await asyncio.gather(
        *(store.users.change(login, lower, audit=AUDIT) for login in ("ada", "bob")),
        return_exceptions=True,
    )
    assert sum(isinstance(result, LastAdmin) for result in done) == 1


@pytest.mark.parametrize("how", ["lower", "disable", "remove"])
async def test_the_last_admin_stays(store: Stores, how: str) -> None:
    await store.users.add(NewUser("ada", grants_of(*ADMIN), "hash"), audit=AUDIT)
    await store.users.add(NewUser("robot", grants_of(*ADMIN), None), audit=AUDIT)
    change = UserChange(grants=()) if how == "lower" else UserChange(is_disabled=True)
    act: Coroutine[Any, Any, object] = store.users.remove("ada", audit=AUDIT)
    if how != "remove":
        act.close()
        act = store.users.change("ada", change, audit=AUDIT)
    with pytest.raises(LastAdmin):
        await act
    assert await store.users.read("ada") is not None


async def test_a_token_is_found_by_its_hash_with_its_user_and_ends_with_it(store: Stores) -> None:
    user_id = await store.users.add(NewUser("ada", grants_of(*ADMIN), "hash"), audit=AUDIT)
    new = NewToken(b"h" * 32, user_id, is_session=False, label="worker", grants=None, expires_at=9)
    token_id = await store.tokens.add(new, made_at=1, audit=AUDIT)
    assert token_id is not None
    found = await store.tokens.read(b"h" * 32)
    assert found is not None
    assert (found[0].id, found[0].label, found[1].login) == (token_id, "worker", "ada")
    assert not await store.tokens.remove(token_id, owner_id=user_id + 1, audit=AUDIT)
    assert await store.tokens.remove(token_id, owner_id=user_id, audit=AUDIT)
    assert await store.tokens.read(b"h" * 32) is None


def token_of(user_id: int, number: int, *, is_session: bool) -> NewToken:
    password_hash = "hash" if is_session else None
    return NewToken(bytes([number]) * 32, user_id, is_session, "t", None, expires_at=9, password_hash=password_hash)


async def test_a_session_begun_with_a_password_that_was_changed_meanwhile_is_none(store: Stores) -> None:
    """As for one that was disabled or removed meanwhile; a service token asks only that there is a user."""
    user_id = await store.users.add(NewUser("ada", grants_of(*ADMIN), "hash"), audit=AUDIT)
    session = token_of(user_id, 1, is_session=True)
    await store.users.change("ada", UserChange(password="new"), audit=AUDIT)
    assert await store.tokens.add(session, made_at=1, audit=AUDIT) is None
    assert await store.tokens.add(token_of(user_id, 2, is_session=False), made_at=1, audit=AUDIT) is not None
    gone = token_of(user_id + 1, 3, is_session=False)
    assert await store.tokens.add(gone, made_at=1, audit=AUDIT) is None


async def test_logins_and_changes_of_a_user_at_once_end_in_one_of_the_two_orders(store: Stores) -> None:
    await store.users.add(NewUser("root", grants_of(*ADMIN), "hash"), audit=AUDIT)
    for number in range(10):
        user_id = await store.users.add(NewUser("ada", (), "hash"), audit=AUDIT)
        acts = [
            store.tokens.add(token_of(user_id, number, is_session=True), made_at=1, audit=AUDIT),
            store.users.set_password(user_id, "new", keep=0, audit=AUDIT),
            store.users.remove("ada", audit=AUDIT),
        ]
        await asyncio.gather(*acts[number % 3 :], *acts[: number % 3])
        assert await store.tokens.list_all(user_id) == []


async def test_a_new_password_ends_all_other_sessions_and_no_service_token(store: Stores) -> None:
    user_id = await store.users.add(NewUser("ada", grants_of(*ADMIN), "hash"), audit=AUDIT)
    ids: list[int] = []
    for number, is_session in enumerate((True, True, False)):
        new = token_of(user_id, number, is_session=is_session)
        added = await store.tokens.add(new, made_at=1, audit=AUDIT)
        assert added is not None
        ids.append(added)
    await store.users.set_password(user_id, "new", keep=ids[0], audit=AUDIT)
    assert [token.id for token in await store.tokens.list_all(user_id)] == [ids[0], ids[2]]


async def test_a_burst_of_guesses_cannot_outrun_the_count(store: Stores) -> None:
    tries = [store.users.begin_attempt(b"login", "192.0.2.1", now=1_000_000_000) for _ in range(40)]
    waits = await asyncio.gather(*tries)
    assert waits.count(None) == 5
    assert all(0 < wait <= 901 for wait in waits if wait is not None)


async def test_twenty_failures_from_anywhere_close_a_login_and_only_that_one(store: Stores) -> None:
    for number in range(20):
        assert await store.users.begin_attempt(b"login", f"192.0.2.{number}", now=1_000_000_000) is None
    assert await store.users.begin_attempt(b"login", "192.0.2.99", now=1_000_000_000) is not None
    assert await store.users.begin_attempt(b"other", "192.0.2.99", now=1_000_000_000) is None
    later = 1_000_000_000 + 15 * 60 * 1_000_000 + 1
    assert await store.users.begin_attempt(b"login", "192.0.2.99", now=later) is None


async def test_a_login_that_succeeds_clears_what_was_counted_from_its_address(store: Stores) -> None:
    for _ in range(5):
        assert await store.users.begin_attempt(b"login", "192.0.2.1", now=1_000_000_000) is None
    await store.users.clear_attempts(b"login", "192.0.2.1")
    assert await store.users.begin_attempt(b"login", "192.0.2.1", now=1_000_000_000) is None


async def test_an_audit_entry_names_the_change_that_it_explains(store: Stores) -> None:
    await store.audit.insert(SignedEntry(replace(ENTRY, action="read", outcome="denied"), AUDIT.mac))
    await append(store, version(1))
    denied, saved = await audits(store)
    assert denied[-1] is None
    changes = [row async for table, row in store.database.dump() if table == "changes"]
    assert saved[-1] == changes[0][0]
