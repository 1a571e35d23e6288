"""The contract of the stores, which is the same on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from confide.changes import positions
from confide.changes.errors import PositionGone
from confide.changes.model import Position
from confide.configs.errors import IdempotencyKeyTaken
from confide.configs.model import IdempotencyRecord, Kind, Outcome
from confide.crypto.model import WrappedKey
from confide.database.identity import READ_EPOCH
from confide.database.model import DatabaseIdentity, Rows
from confide.errors import Busy
from confide.identity.errors import LastAdmin, UserExists
from confide.identity.login_limits import MAX_OVER_ALL_LOGINS, AttemptKeys
from confide.identity.model import NewToken, NewUser, Scope, UserChange
from confide.names import ConfigKey
from confide.server.settings import Settings
from confide.server.stores import Stores, open_stores
from support.app import ADMIN, build_grants
from support.rows import AUDIT, ENTRY, KEY, append, build_draft, build_version

EVERYTHING = [[Scope("*", "*")]]


@pytest.fixture
async def opened(settings: Settings) -> AsyncIterator[tuple[Stores, DatabaseIdentity]]:
    settings.data.mkdir(exist_ok=True)
    store = open_stores(settings.database_url, is_unsafe=True)
    await store.database.connect()
    await store.database.migrate()
    identity = await store.database.open()
    yield store, identity
    await store.close()


@pytest.fixture
def store(opened: tuple[Stores, DatabaseIdentity]) -> Stores:
    return opened[0]


async def list_audit_rows(store: Stores) -> list[tuple[object, ...]]:
    return [tuple(row) async for table, row in store.database.dump() if table == "audit"]


async def test_a_read_returns_the_appended_version(store: Stores) -> None:
    assert await append(store, build_version(1, body=b"\x00\xff"))
    found = await store.configs.read(KEY)
    assert found is not None
    assert (found.version, found.kind, found.body) == (1, Kind.SAVED, b"\x00\xff")


async def test_a_second_append_of_a_version_stores_nothing(store: Stores) -> None:
    assert await append(store, build_version(1, body=b"first"))
    replay = IdempotencyRecord(1, "POST /config", "k", b"mac", 1, Outcome.CREATED)
    assert not await append(store, build_version(1, body=b"second"), replay)
    found = await store.configs.read(KEY)
    assert found is not None
    assert found.body == b"first"
    assert len(await list_audit_rows(store)) == 1
    assert await store.configs.read_idempotency_record(replay, not_before=0) is None


async def test_one_of_many_concurrent_appends_of_a_version_wins(store: Stores) -> None:
    won = await asyncio.gather(*(append(store, build_version(1, body=b"%d" % n)) for n in range(32)))
    assert sum(won) == 1
    assert len(await list_audit_rows(store)) == 1


async def test_each_of_many_concurrent_appends_has_its_own_version_and_audit_entry(store: Stores) -> None:
    keys = [ConfigKey("acme", f"type{number}") for number in range(40)]
    assert await append(store, build_version(1, key=keys[7], body=b"competitor"))
    won = await asyncio.gather(
        *(append(store, build_version(1, key=key, body=key.integration_type.encode())) for key in keys)
    )
    assert [number for number, is_won in enumerate(won) if not is_won] == [7]
    found = await asyncio.gather(*(store.configs.read(key) for key in [*keys, ConfigKey("acme", "none")]))
    assert [one and one.body for one in found] == [
        b"competitor" if key is keys[7] else key.integration_type.encode() for key in keys
    ] + [None]
    rows = {row[0]: row async for table, row in store.database.dump() if table == "changes"}
    change_ids = [row[-1] for row in await list_audit_rows(store)]
    assert sorted(map(str, change_ids)) == sorted(map(str, rows))


async def test_a_stored_save_succeeds_although_the_pool_is_busy_after_another_one_lost_its_race(
    store: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = store.engine.query

    async def query_while_busy(sql: str, *args: Any) -> Rows:
        if sql == READ_EPOCH:
            raise Busy
        return await query(sql, *args)

    monkeypatch.setattr(store.engine, "query", query_while_busy)
    keys = [ConfigKey("acme", f"type{number}") for number in range(8)]
    assert await append(store, build_version(1, key=keys[7]))
    won = await asyncio.gather(*(append(store, build_version(1, key=key)) for key in keys), return_exceptions=True)
    assert won == [True] * 7 + [False]


async def test_an_existing_idempotency_record_rolls_the_version_back(store: Stores) -> None:
    replay = IdempotencyRecord(1, "POST /config", "k", b"mac", 1, Outcome.CREATED)
    assert await append(store, build_version(1), replay)
    with pytest.raises(IdempotencyKeyTaken):
        await append(store, build_version(2), replay)
    found = await store.configs.read(KEY)
    assert found is not None
    assert found.version == 1
    assert await store.configs.read_idempotency_record(replay, not_before=0) == replay


async def test_an_unchanged_save_keeps_an_idempotency_record(store: Stores) -> None:
    replay = IdempotencyRecord(1, "POST /config", "k", b"mac", 7, Outcome.UNCHANGED)
    await store.configs.insert_idempotency_record(replay, saved_at=100)
    with pytest.raises(IdempotencyKeyTaken):
        await store.configs.insert_idempotency_record(replay, saved_at=100)
    assert await store.configs.read_idempotency_record(replay, not_before=100) == replay
    assert await store.configs.read_idempotency_record(replay, not_before=101) is None
    await store.configs.delete_idempotency_records(before=101)
    await store.configs.insert_idempotency_record(replace(replay, version=8), saved_at=200)


async def test_a_version_with_a_destroyed_data_key_is_not_appended(store: Stores) -> None:
    assert not await append(store, build_version(1, data_key_id=b"k" * 16))
    await store.data_keys.add_if_none(WrappedKey(b"k" * 16, "config", "acme", b"m" * 16, b"wrapped"), made_at=1)
    assert await append(store, build_version(1, data_key_id=b"k" * 16))
    destroyed = await store.data_keys.destroy_tenant("acme", user_id=1, at=2, audit=AUDIT)
    assert destroyed == (1, [b"k" * 16])
    assert not await append(store, build_version(3, data_key_id=b"k" * 16))


async def test_saves_during_the_destruction_of_a_tenant_leave_no_undecryptable_version(store: Stores) -> None:
    await store.data_keys.add_if_none(WrappedKey(b"k" * 16, "config", "acme", b"m" * 16, b"wrapped"), made_at=1)
    keys = [ConfigKey("acme", f"type{n}") for n in range(24)]
    saves = [append(store, build_version(1, key=key, data_key_id=b"k" * 16)) for key in keys]
    await asyncio.gather(*saves, store.data_keys.destroy_tenant("acme", user_id=1, at=2, audit=AUDIT))
    for key in keys:
        found = await store.configs.read(key)
        assert found is None or found.kind is Kind.DELETED


async def test_concurrent_callers_get_the_same_active_data_key_of_a_tenant(store: Stores) -> None:
    candidates = [WrappedKey(bytes([n]) * 16, "config", "acme", b"m" * 16, b"%d" % n) for n in range(16)]
    active = await asyncio.gather(*(store.data_keys.add_if_none(new, made_at=1) for new in candidates))
    assert len({key.id for key in active}) == 1
    assert len(await store.data_keys.list_all()) == 1


async def test_a_rewrap_replaces_only_the_wrapping_that_was_read(store: Stores) -> None:
    old = WrappedKey(b"k" * 16, "config", "acme", b"1" * 16, b"old")
    await store.data_keys.add_if_none(old, made_at=1)
    await store.data_keys.rewrap(replace(old, master_key_id=b"2" * 16, wrapped=b"new"), instead_of=b"9" * 16)
    assert await store.data_keys.read(old.id) == old
    await store.data_keys.rewrap(replace(old, master_key_id=b"2" * 16, wrapped=b"new"), instead_of=b"1" * 16)
    assert await store.data_keys.read(old.id) == replace(old, master_key_id=b"2" * 16, wrapped=b"new")


async def test_a_page_starts_after_the_previous_one_and_lists_no_deleted_config(store: Stores) -> None:
    for tenant in ("acme", "acme-2", "globex"):
        for number in (1, 2):
            await append(store, build_version(number, key=ConfigKey(tenant, "crm")))
        await append(store, build_version(1, key=ConfigKey(tenant, "fis")))
    await append(store, build_version(2, key=ConfigKey("acme", "fis"), body=None))
    first = await store.configs.list_page(EVERYTHING, after=None, limit=3)
    assert [(*summary.key, summary.version) for summary in first] == [
        ("acme", "crm", 2),
        ("acme-2", "crm", 2),
        ("acme-2", "fis", 1),
    ]
    rest = await store.configs.list_page(EVERYTHING, after=first[-1].key, limit=10)
    assert [summary.key for summary in rest] == [("globex", "crm"), ("globex", "fis")]


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        ([[Scope("acme", "*")]], ["acme:crm"]),
        ([[Scope("acme*", "*")]], ["acme:crm", "acme-2:crm"]),
        ([[Scope("*", "c*")], [Scope("globex", "crm"), Scope("acme", "crm")]], ["acme:crm", "globex:crm"]),
        ([[Scope("*", "*")], [Scope("acme", "fis")]], []),
        ([[Scope("*", "*")], []], []),
    ],
)
async def test_a_list_contains_configs_that_a_scope_of_each_group_covers(
    store: Stores, scopes: list[list[Scope]], expected: list[str]
) -> None:
    for tenant in ("acme", "acme-2", "globex"):
        await append(store, build_version(1, key=ConfigKey(tenant, "crm")))
    summaries = await store.configs.list_page(scopes, after=None, limit=10)
    assert [":".join(summary.key) for summary in summaries] == expected


async def test_names_are_compared_exactly_and_listed_in_byte_order(store: Stores) -> None:
    for tenant in ("b", "A", "a", "B", "a.b", "a-b", "a_b"):
        await append(store, build_version(1, key=ConfigKey(tenant, "t")))
    summaries = await store.configs.list_page(EVERYTHING, after=None, limit=10)
    assert [summary.key.tenant for summary in summaries] == sorted(["b", "A", "a", "B", "a.b", "a-b", "a_b"])


async def test_the_change_log_has_each_change_once_and_in_order(store: Stores) -> None:
    await store.users.add(NewUser("ada", build_grants(*ADMIN), "hash"), audit=AUDIT)
    for number in range(1, 6):
        await append(store, build_version(number))
    seen, position = [], Position(0, 0)
    while changes := await store.configs.read_changes_after(position, limit=2):
        seen += changes
        position = changes[-1].position
    assert [change.kind for change in seen] == ["user-added", *["saved"] * 5]
    assert [change.version for change in seen] == [None, 1, 2, 3, 4, 5]
    assert sorted(change.position for change in seen) == [change.position for change in seen]


async def test_a_position_of_another_epoch_is_rejected(opened: tuple[Stores, DatabaseIdentity], engine: str) -> None:
    identity = opened[1]
    text = positions.format_position(identity.epoch.id, Position(5, 7), has_xid=engine == "postgresql")
    assert positions.parse_position(text, identity.epoch.id, has_xid=identity.has_xid).id == 7
    with pytest.raises(PositionGone):
        positions.parse_position(text, "0" * 16, has_xid=identity.has_xid)


async def test_only_one_first_user_can_be_added(store: Stores) -> None:
    def first(number: int) -> NewUser:
        return NewUser(f"user{number}", build_grants(*ADMIN), "hash")

    ids = await asyncio.gather(*(store.users.add_first(first(n), audit=AUDIT) for n in range(8)))
    assert sum(id_ is not None for id_ in ids) == 1
    assert len(await store.users.list_all()) == 1
    assert await store.users.add_first(first(9), audit=AUDIT) is None


async def test_a_login_is_unique(store: Stores) -> None:
    await store.users.add(NewUser("ada", (), "hash"), audit=AUDIT)
    with pytest.raises(UserExists):
        await store.users.add(NewUser("ada", (), "other"), audit=AUDIT)
    user = await store.users.read("ada")
    assert user is not None
    assert user.password == "hash"


async def test_two_admins_cannot_remove_each_others_role_concurrently(store: Stores) -> None:
    for login in ("ada", "bob"):
        await store.users.add(NewUser(login, build_grants(*ADMIN), "hash"), audit=AUDIT)
    without_role = UserChange(grants=())
    results = await asyncio.gather(
        *(store.users.change(login, without_role, audit=AUDIT) for login in ("ada", "bob")),
        return_exceptions=True,
    )
    assert sum(isinstance(result, LastAdmin) for result in results) == 1


@pytest.mark.parametrize("action", ["remove role", "disable", "remove"])
async def test_the_last_admin_cannot_be_removed(store: Stores, action: str) -> None:
    await store.users.add(NewUser("ada", build_grants(*ADMIN), "hash"), audit=AUDIT)
    await store.users.add(NewUser("robot", build_grants(*ADMIN), None), audit=AUDIT)
    change = UserChange(grants=()) if action == "remove role" else UserChange(is_disabled=True)
    act: Coroutine[Any, Any, object] = store.users.remove("ada", audit=AUDIT)
    if action != "remove":
        act.close()
        act = store.users.change("ada", change, audit=AUDIT)
    with pytest.raises(LastAdmin):
        await act
    assert await store.users.read("ada") is not None


async def test_a_token_is_read_by_its_hash_and_removed_only_by_its_owner(store: Stores) -> None:
    user_id = await store.users.add(NewUser("ada", build_grants(*ADMIN), "hash"), audit=AUDIT)
    new = NewToken(b"h" * 32, user_id, is_session=False, label="worker", grants=None, expires_at=9)
    token_id = await store.tokens.add(new, made_at=1, audit=AUDIT)
    assert token_id is not None
    found = await store.tokens.read(b"h" * 32)
    assert found is not None
    assert (found[0].id, found[0].label, found[1].login) == (token_id, "worker", "ada")
    assert not await store.tokens.remove(token_id, owner_id=user_id + 1, audit=AUDIT)
    assert await store.tokens.remove(token_id, owner_id=user_id, audit=AUDIT)
    assert await store.tokens.read(b"h" * 32) is None


def build_token(user_id: int, number: int, *, is_session: bool) -> NewToken:
    password_hash = "hash" if is_session else None
    return NewToken(bytes([number]) * 32, user_id, is_session, "t", None, expires_at=9, password_hash=password_hash)


async def test_a_session_is_not_added_if_the_password_changed_during_the_login(store: Stores) -> None:
    """A service token needs only an existing user."""
    user_id = await store.users.add(NewUser("ada", build_grants(*ADMIN), "hash"), audit=AUDIT)
    session = build_token(user_id, 1, is_session=True)
    await store.users.change("ada", UserChange(password="new"), audit=AUDIT)
    assert await store.tokens.add(session, made_at=1, audit=AUDIT) is None
    assert await store.tokens.add(build_token(user_id, 2, is_session=False), made_at=1, audit=AUDIT) is not None
    without_user = build_token(user_id + 1, 3, is_session=False)
    assert await store.tokens.add(without_user, made_at=1, audit=AUDIT) is None


async def test_concurrent_logins_and_changes_of_a_user_leave_no_session(store: Stores) -> None:
    await store.users.add(NewUser("root", build_grants(*ADMIN), "hash"), audit=AUDIT)
    for number in range(10):
        user_id = await store.users.add(NewUser("ada", (), "hash"), audit=AUDIT)
        acts = [
            store.tokens.add(build_token(user_id, number, is_session=True), made_at=1, audit=AUDIT),
            store.users.set_password(user_id, "new", keep=0, audit=AUDIT),
            store.users.remove("ada", audit=AUDIT),
        ]
        await asyncio.gather(*acts[number % 3 :], *acts[: number % 3])
        assert await store.tokens.list_all(user_id) == []


@pytest.mark.parametrize("is_keeping_tokens", [False, True])
async def test_a_new_password_ends_all_other_tokens_but_service_tokens_can_stay(
    store: Stores, *, is_keeping_tokens: bool
) -> None:
    user_id = await store.users.add(NewUser("ada", build_grants(*ADMIN), "hash"), audit=AUDIT)
    ids: list[int] = []
    for number, is_session in enumerate((True, True, False)):
        new = build_token(user_id, number, is_session=is_session)
        added = await store.tokens.add(new, made_at=1, audit=AUDIT)
        assert added is not None
        ids.append(added)
    await store.users.set_password(user_id, "new", keep=ids[0], is_keeping_tokens=is_keeping_tokens, audit=AUDIT)
    kept = [ids[0], ids[2]] if is_keeping_tokens else [ids[0]]
    assert [token.id for token in await store.tokens.list_all(user_id)] == kept


async def test_a_token_is_not_added_after_the_token_that_makes_it_was_removed(store: Stores) -> None:
    user_id = await store.users.add(NewUser("ada", build_grants(*ADMIN), "hash"), audit=AUDIT)
    maker_id = await store.tokens.add(build_token(user_id, 1, is_session=False), made_at=1, audit=AUDIT)
    assert maker_id is not None
    made = [replace(build_token(user_id, number, is_session=False), maker_id=maker_id) for number in (2, 3)]
    assert await store.tokens.add(made[0], made_at=1, audit=AUDIT) is not None
    await store.users.set_password(user_id, "new", keep=0, audit=AUDIT)
    assert await store.tokens.add(made[1], made_at=1, audit=AUDIT) is None


NOON = 1_000_000_000_000
WINDOW = 15 * 60 * 1_000_000


def build_keys(login: str, address: str, *, is_proxy: bool = False) -> AttemptKeys:
    return AttemptKeys(login.encode(), b"known " + login.encode(), f"all {address}".encode(), address, is_proxy)


async def begin(
    store: Stores, login: str, address: str, *, is_proxy: bool = False, is_known: bool = False, now: int = NOON
) -> Any:
    keys = build_keys(login, address, is_proxy=is_proxy)
    return await store.users.begin_attempt(keys, is_known=is_known, now=now)


async def test_concurrent_login_attempts_are_limited(store: Stores) -> None:
    waits = await asyncio.gather(*(begin(store, "login", "192.0.2.1") for _ in range(40)))
    assert waits.count(None) == 5
    assert all(0 < wait <= 901 for wait in waits if wait is not None)


async def test_twenty_failures_from_any_addresses_block_only_that_login(store: Stores) -> None:
    for number in range(20):
        assert await begin(store, "login", f"192.0.2.{number}") is None
    assert await begin(store, "login", "192.0.2.99") is not None
    assert await begin(store, "login", "192.0.2.99", is_known=True) is None
    assert await begin(store, "other", "192.0.2.99") is None
    assert await begin(store, "login", "192.0.2.99", now=NOON + WINDOW + 1) is None


async def test_the_failures_of_an_address_are_limited_over_all_logins(store: Stores) -> None:
    waits = await asyncio.gather(*(begin(store, f"login{number}", "192.0.2.1") for number in range(60)))
    assert waits.count(None) == MAX_OVER_ALL_LOGINS
    assert await begin(store, "one-more", "192.0.2.2") is None
    assert await begin(store, "one-more", "192.0.2.1", is_known=True) is None
    # A success gives back only its own attempt.
    await store.users.record_success(build_keys("login0", "192.0.2.1"), now=NOON)
    assert await begin(store, "last", "192.0.2.1", is_known=True) is None
    assert await begin(store, "none", "192.0.2.1") is not None


async def test_an_attempt_through_a_proxy_has_only_the_limits_of_its_login(store: Stores) -> None:
    for number in range(MAX_OVER_ALL_LOGINS + 5):
        assert await begin(store, f"login{number % 20}", "192.0.2.1", is_proxy=True) is None
    waits = [await begin(store, "login0", "192.0.2.1", is_proxy=True) for _ in range(4)]
    assert waits.count(None) == 2  # it has failed three times above


async def test_a_successful_login_clears_the_failures_of_its_address(store: Stores) -> None:
    for _ in range(5):
        assert await begin(store, "login", "192.0.2.1") is None
    await store.users.record_success(build_keys("login", "192.0.2.1"), now=NOON)
    assert await begin(store, "login", "192.0.2.1") is None


async def test_a_login_is_known_for_thirty_days_where_it_succeeded(store: Stores) -> None:
    keys = build_keys("login", "192.0.2.1")
    assert not await store.users.is_known_login(keys, now=NOON)
    for day in range(2):
        await store.users.record_success(keys, now=NOON + day)
    assert not await store.users.is_known_login(build_keys("login", "192.0.2.2"), now=NOON)
    assert not await store.users.is_known_login(build_keys("other", "192.0.2.1"), now=NOON)
    days = 24 * 60 * 60 * 1_000_000
    # An attempt deletes what is old.
    await begin(store, "other", "192.0.2.9", now=NOON + 29 * days)
    assert await store.users.is_known_login(keys, now=NOON + 29 * days)
    assert not await store.users.is_known_login(keys, now=NOON + 30 * days + 2)
    await begin(store, "other", "192.0.2.9", now=NOON + 30 * days + 2)
    assert not await store.users.is_known_login(keys, now=NOON)


async def test_an_attempt_that_was_not_verified_is_taken_back(store: Stores) -> None:
    for _ in range(10):
        assert await begin(store, "login", "192.0.2.1") is None
        await store.users.delete_latest_attempt(build_keys("login", "192.0.2.1"))


async def test_the_failures_of_a_login_are_cleared_for_all_addresses(store: Stores) -> None:
    for number in range(20):
        assert await begin(store, "login", f"192.0.2.{number}") is None
    await store.users.clear_attempts(b"login")
    assert await begin(store, "login", "192.0.2.99") is None


async def test_an_audit_entry_references_its_change(store: Stores) -> None:
    await store.audit.insert(build_draft(replace(ENTRY, action="read", outcome="denied", version=None)))
    await append(store, build_version(1))
    denied, saved = await list_audit_rows(store)
    assert denied[-1] is None
    changes = [row async for table, row in store.database.dump() if table == "changes"]
    assert saved[-1] == changes[0][0]
