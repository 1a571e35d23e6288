"""Sealed bytes open where they belong and nowhere else; keys live and die as they should."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from confide.clock import now
from confide.crypto import master_keys
from confide.crypto.ciphertext import authenticated, decrypt, encrypt, split
from confide.crypto.envelope import EnvelopeEncryption
from confide.crypto.errors import DecryptionFailed, MasterKeyMissing
from confide.crypto.master_keys import DestroyedKeys, MasterKey, MasterKeys, create_master_key
from confide.crypto.model import EncryptionContext
from confide.errors import Busy
from confide.identity import hasher as passwords
from confide.identity.hasher import Argon2Hasher
from confide.names import Key
from confide.server.stores import Stores, open_stores

KEY = AESGCM(b"k" * 32)
KEY_ID = b"i" * 16
PLACE = ("acme", "crm", "7", "saved")


def test_format_1_is_laid_out_as_written() -> None:
    sealed = encrypt(b"plain", key=KEY, key_id=KEY_ID, bound_to=PLACE)
    assert sealed[0] == 1
    assert sealed[1:17] == KEY_ID
    assert len(sealed) == 1 + 16 + 12 + len(b"plain") + 16
    parts = [b"\x01", KEY_ID, b"acme", b"crm", b"7", b"saved"]
    additional = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert KEY.decrypt(sealed[17:29], sealed[29:], additional) == b"plain"


@given(st.binary(max_size=300))
def test_what_was_sealed_opens(plain: bytes) -> None:
    assert decrypt(encrypt(plain, key=KEY, key_id=KEY_ID, bound_to=PLACE), key=KEY, bound_to=PLACE) == plain


@pytest.mark.parametrize("place", range(4))
def test_a_row_that_was_moved_does_not_open(place: int) -> None:
    sealed = encrypt(b"plain", key=KEY, key_id=KEY_ID, bound_to=PLACE)
    moved = (*PLACE[:place], "other", *PLACE[place + 1 :])
    with pytest.raises(DecryptionFailed):
        decrypt(sealed, key=KEY, bound_to=moved)


def test_no_flipped_bit_goes_unnoticed() -> None:
    sealed = encrypt(b"plain text of a configuration", key=KEY, key_id=KEY_ID, bound_to=PLACE)
    for bit in range(len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecryptionFailed):
            decrypt(bytes(flipped), key=KEY, bound_to=PLACE)


@given(st.binary(max_size=60))
def test_bytes_of_anywhere_are_broken_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(DecryptionFailed):
        decrypt(data, key=KEY, bound_to=PLACE)


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_different_places_are_never_written_alike(one: list[str], other: list[str]) -> None:
    assert (authenticated(KEY_ID, tuple(one)) == authenticated(KEY_ID, tuple(other))) == (one == other)


def test_nonces_are_never_alike() -> None:
    sealed = [encrypt(b"", key=KEY, key_id=KEY_ID, bound_to=PLACE) for _ in range(20_000)]
    assert len({split(one).nonce for one in sealed}) == len(sealed)


def test_the_file_of_master_keys_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "master.keys"
    first = create_master_key()
    master_keys.write_master_keys(path, [first])
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        master_keys.write_master_keys(path, [create_master_key()])
    second = create_master_key()
    master_keys.append_master_key(path, second)
    ring = MasterKeys(path.read_text())
    assert first.id in ring
    assert ring.active == second.id
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "hello", "00 AA==", "zz" * 16 + " " + "A" * 44, "00" * 16, "\n,\n"])
def test_what_is_no_ring_is_refused(text: str) -> None:
    with pytest.raises(MasterKeyMissing):
        MasterKeys(text)


def test_one_id_twice_is_no_ring_and_a_key_never_shows_itself() -> None:
    key = create_master_key()
    with pytest.raises(MasterKeyMissing):
        MasterKeys(f"{key.line()},{key.line()}")
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)


class Rig:
    """Tenant keys on a real store, with a ring that can change under them."""

    def __init__(self, store: Stores, folder: Path) -> None:
        self.store = store
        self.ring = [create_master_key()]
        self.destroyed = DestroyedKeys(folder / "destroyed.keys")

    async def keys(self) -> EnvelopeEncryption:
        keys = EnvelopeEncryption(
            self.store.data_keys,
            ring=lambda: MasterKeys("\n".join(key.line() for key in self.ring)),
            destroyed=self.destroyed,
            clock=now,
        )
        await keys.start()
        return keys


@pytest.fixture
async def rig(tmp_path: Path):  # type: ignore[no-untyped-def]  # noqa: ANN201 - a fixture that yields
    store = open_stores(f"sqlite:///{tmp_path / 'confide.db'}", is_unsafe=True)
    await store.database.connect()
    await store.database.migrate()
    yield Rig(store, tmp_path)
    await store.close()


CONTEXT = EncryptionContext(Key("acme", "crm"), 1, "saved")


async def test_another_process_opens_what_one_sealed(rig: Rig) -> None:
    one, other = await rig.keys(), await rig.keys()
    sealed = one.encrypt(b"plain", CONTEXT, key_id=await one.load_data_key("acme", None))
    assert await other.decrypt(sealed, CONTEXT) == b"plain"
    assert one.compute_mac("audit", b"x") == other.compute_mac("audit", b"x") != one.compute_mac("idempotency", b"x")


async def test_each_tenant_has_a_key_of_its_own(rig: Rig) -> None:
    keys = await rig.keys()
    one, other = await keys.load_data_key("acme", None), await keys.load_data_key("globex", None)
    assert one != other
    stolen = keys.encrypt(b"plain", CONTEXT, key_id=other)
    with pytest.raises(DecryptionFailed):
        await (await rig.keys()).decrypt(stolen, CONTEXT)


async def test_a_new_master_key_rewraps_while_the_old_ring_still_runs(rig: Rig) -> None:
    running = await rig.keys()
    sealed = running.encrypt(b"plain", CONTEXT, key_id=await running.load_data_key("acme", None))
    rig.ring.append(create_master_key())
    lock_rotation = await rig.keys()
    assert await lock_rotation.rewrap_all() == 4
    assert await lock_rotation.rewrap_all() == 0
    assert {key.master_key_id for key in await rig.store.data_keys.list_all()} == {rig.ring[-1].id}
    # One that has not opened the key yet meets the new master key and reads its ring again.
    assert await (await rig.keys()).decrypt(sealed, CONTEXT) == b"plain"
    assert await running.decrypt(sealed, CONTEXT) == b"plain"
    await running.load_data_key("globex", None)
    del rig.ring[0]
    await (await rig.keys()).check_master_keys()


async def test_a_ring_without_the_key_or_with_other_bytes_is_refused(rig: Rig) -> None:
    await rig.keys()
    known = rig.ring[0]
    rig.ring = [create_master_key()]
    with pytest.raises(MasterKeyMissing, match="lacks"):
        await rig.keys()
    rig.ring = [MasterKey(known.id, secrets.token_bytes(32))]
    with pytest.raises(MasterKeyMissing, match="did not wrap"):
        await rig.keys()


async def test_a_destroyed_key_never_opens_again_restored_or_not(rig: Rig) -> None:
    keys = await rig.keys()
    key_id = await keys.load_data_key("acme", None)
    sealed = keys.encrypt(b"plain", CONTEXT, key_id=key_id)
    kept = await rig.store.data_keys.read(key_id)
    keys.forget_keys([key_id])
    with pytest.raises(DecryptionFailed):
        await keys.decrypt(sealed, CONTEXT)
    assert kept is not None
    # As after a backup from before: the wrapped bytes are back in the store.
    assert (await rig.store.data_keys.read(key_id)) == replace(kept)
    with pytest.raises(DecryptionFailed):
        await (await rig.keys()).decrypt(sealed, CONTEXT)


def test_the_list_of_destroyed_keys_names_each_once(tmp_path: Path) -> None:
    destroyed = DestroyedKeys(tmp_path / "destroyed.keys")
    assert destroyed.ids() == frozenset()
    destroyed.add([b"a" * 16])
    destroyed.add([b"a" * 16, b"b" * 16])
    assert destroyed.ids() == {b"a" * 16, b"b" * 16}
    assert (tmp_path / "destroyed.keys").read_text().count("\n") == 2


async def test_a_password_is_known_again_and_only_that_one() -> None:
    hasher = Argon2Hasher()
    known = await hasher.hash("violet kettle")
    assert known.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
    assert await hasher.verify("violet kettle", known)
    assert not await hasher.verify("violet kettle ", known)
    assert not await hasher.verify("violet kettle", None)
    assert not hasher.is_outdated(known)
    assert hasher.is_outdated(known.replace("m=47104", "m=19456"))
    hasher.close()


async def test_a_hash_altered_into_an_attack_on_memory_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Recorder:
        @staticmethod
        def verify_phc_encoded(_password: bytes, known: str) -> None:
            asked.append(known)

    hasher = Argon2Hasher()
    monkeypatch.setattr(passwords, "Argon2id", Recorder)
    for hostile in ("$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$" + "A" * 43, "$argon2id$garbage", "plain"):
        assert not await hasher.verify("x", hostile)
    assert asked == []
    hasher.close()


async def test_too_many_waiting_hashes_are_refused_at_once() -> None:
    hasher = Argon2Hasher()
    results = await asyncio.gather(*(hasher.hash("violet kettle") for _ in range(40)), return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 40 - passwords.MAX_RUNNING - passwords.MAX_WAITING
    hasher.close()
