"""Ciphertexts decrypt only in their own row, and keys are created, rotated and destroyed as promised."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from confide.clock import read_wall_clock
from confide.crypto import master_keys
from confide.crypto.ciphertext import build_associated_data, decrypt, encrypt, parse
from confide.crypto.envelope import EnvelopeEncryption
from confide.crypto.errors import DecryptionFailed, MasterKeyMissing
from confide.crypto.master_keys import DestroyedKeys, MasterKey, MasterKeys, create_master_key
from confide.crypto.model import EncryptionContext
from confide.errors import Busy
from confide.identity import hasher as passwords
from confide.identity.hash_queue import MAX_PLACES
from confide.identity.hasher import Argon2Hasher
from confide.names import ConfigKey
from confide.server.stores import Stores, open_stores

CIPHER = AESGCM(b"k" * 32)
KEY_ID = b"i" * 16
ROW = ("acme", "crm", "7", "saved")


def test_a_ciphertext_has_the_documented_format() -> None:
    encrypted = encrypt(b"plain", cipher=CIPHER, key_id=KEY_ID, bound_to=ROW)
    assert encrypted[0] == 1
    assert encrypted[1:17] == KEY_ID
    assert len(encrypted) == 1 + 16 + 12 + len(b"plain") + 16
    parts = [b"\x01", KEY_ID, b"acme", b"crm", b"7", b"saved"]
    additional = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert CIPHER.decrypt(encrypted[17:29], encrypted[29:], additional) == b"plain"


@given(st.binary(max_size=300))
def test_decryption_returns_what_was_encrypted(plain: bytes) -> None:
    assert decrypt(encrypt(plain, cipher=CIPHER, key_id=KEY_ID, bound_to=ROW), cipher=CIPHER, bound_to=ROW) == plain


@pytest.mark.parametrize("index", range(4))
def test_a_ciphertext_that_was_moved_to_another_row_cannot_be_decrypted(index: int) -> None:
    encrypted = encrypt(b"plain", cipher=CIPHER, key_id=KEY_ID, bound_to=ROW)
    other_row = (*ROW[:index], "other", *ROW[index + 1 :])
    with pytest.raises(DecryptionFailed):
        decrypt(encrypted, cipher=CIPHER, bound_to=other_row)


def test_each_flipped_bit_is_detected() -> None:
    encrypted = encrypt(b"plain text of a configuration", cipher=CIPHER, key_id=KEY_ID, bound_to=ROW)
    for bit in range(len(encrypted) * 8):
        flipped = bytearray(encrypted)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecryptionFailed):
            decrypt(bytes(flipped), cipher=CIPHER, bound_to=ROW)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_cause_the_expected_error(data: bytes) -> None:
    with pytest.raises(DecryptionFailed):
        decrypt(data, cipher=CIPHER, bound_to=ROW)


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_different_rows_have_different_associated_data(one: list[str], other: list[str]) -> None:
    assert (build_associated_data(KEY_ID, tuple(one)) == build_associated_data(KEY_ID, tuple(other))) == (one == other)


def test_nonces_never_repeat() -> None:
    encrypted = [encrypt(b"", cipher=CIPHER, key_id=KEY_ID, bound_to=ROW) for _ in range(20_000)]
    assert len({parse(one).nonce for one in encrypted}) == len(encrypted)


def test_the_master_key_file_is_created_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
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
    assert ring.active_id == second.id
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "hello", "00 AA==", "zz" * 16 + " " + "A" * 44, "00" * 16, "\n,\n"])
def test_an_invalid_key_ring_is_rejected(text: str) -> None:
    with pytest.raises(MasterKeyMissing):
        MasterKeys(text)


def test_a_duplicate_key_id_is_rejected_and_a_key_hides_its_secret() -> None:
    key = create_master_key()
    with pytest.raises(MasterKeyMissing):
        MasterKeys(f"{key.format_line()},{key.format_line()}")
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)


class Processes:
    """Processes that share one database and a key ring, which a test can change."""

    def __init__(self, store: Stores, folder: Path) -> None:
        self.store = store
        self.ring = [create_master_key()]
        self.destroyed = DestroyedKeys(folder / "destroyed.keys")

    async def start(self) -> EnvelopeEncryption:
        keys = EnvelopeEncryption(
            self.store.data_keys,
            self.store.rows,
            read_master_keys=lambda: MasterKeys("\n".join(key.format_line() for key in self.ring)),
            destroyed=self.destroyed,
            clock=read_wall_clock,
        )
        await keys.start()
        return keys


@pytest.fixture
async def processes(tmp_path: Path):  # type: ignore[no-untyped-def]  # noqa: ANN201 - a fixture that yields
    store = open_stores(f"sqlite:///{tmp_path / 'confide.db'}", is_unsafe=True)
    await store.database.connect()
    await store.database.migrate()
    yield Processes(store, tmp_path)
    await store.close()


CONTEXT = EncryptionContext(ConfigKey("acme", "crm"), 1, "saved")


async def test_another_process_can_decrypt(processes: Processes) -> None:
    one, other = await processes.start(), await processes.start()
    encrypted = one.encrypt(b"plain", CONTEXT, data_key_id=await one.load_data_key("acme", None))
    assert await other.decrypt(encrypted, CONTEXT) == b"plain"
    assert one.compute_mac("audit", b"x") == other.compute_mac("audit", b"x") != one.compute_mac("idempotency", b"x")


async def test_each_tenant_has_its_own_data_key(processes: Processes) -> None:
    keys = await processes.start()
    one, other = await keys.load_data_key("acme", None), await keys.load_data_key("globex", None)
    assert one != other
    stolen = keys.encrypt(b"plain", CONTEXT, data_key_id=other)
    with pytest.raises(DecryptionFailed):
        await (await processes.start()).decrypt(stolen, CONTEXT)


async def test_a_rotation_rewraps_all_data_keys_while_processes_use_the_old_key_ring(processes: Processes) -> None:
    running = await processes.start()
    encrypted = running.encrypt(b"plain", CONTEXT, data_key_id=await running.load_data_key("acme", None))
    processes.ring.append(create_master_key())
    rotation = await processes.start()
    assert await rotation.rewrap_all() == 5
    assert await rotation.rewrap_all() == 0
    assert {key.master_key_id for key in await processes.store.data_keys.list_all()} == {processes.ring[-1].id}
    # A process that has not loaded the data key yet reads the key ring again for the new master key.
    assert await (await processes.start()).decrypt(encrypted, CONTEXT) == b"plain"
    assert await running.decrypt(encrypted, CONTEXT) == b"plain"
    await running.load_data_key("globex", None)
    del processes.ring[0]
    await (await processes.start()).check_master_keys()


async def test_a_key_ring_without_the_master_key_or_with_other_bytes_is_rejected(processes: Processes) -> None:
    await processes.start()
    known = processes.ring[0]
    processes.ring = [create_master_key()]
    with pytest.raises(MasterKeyMissing, match="lacks"):
        await processes.start()
    processes.ring = [MasterKey(known.id, secrets.token_bytes(32))]
    with pytest.raises(MasterKeyMissing, match="did not wrap"):
        await processes.start()


async def test_a_destroyed_data_key_decrypts_nothing_even_after_a_restore(processes: Processes) -> None:
    keys = await processes.start()
    data_key_id = await keys.load_data_key("acme", None)
    encrypted = keys.encrypt(b"plain", CONTEXT, data_key_id=data_key_id)
    backup = await processes.store.data_keys.read(data_key_id)
    keys.forget_keys([data_key_id])
    with pytest.raises(DecryptionFailed):
        await keys.decrypt(encrypted, CONTEXT)
    assert backup is not None
    # As after a restore of an older backup: the database has the wrapped key again.
    assert (await processes.store.data_keys.read(data_key_id)) == replace(backup)
    with pytest.raises(DecryptionFailed):
        await (await processes.start()).decrypt(encrypted, CONTEXT)


def test_the_list_of_destroyed_keys_has_each_key_once(tmp_path: Path) -> None:
    destroyed = DestroyedKeys(tmp_path / "destroyed.keys")
    assert destroyed.read_ids() == frozenset()
    destroyed.add([b"a" * 16])
    destroyed.add([b"a" * 16, b"b" * 16])
    assert destroyed.read_ids() == {b"a" * 16, b"b" * 16}
    assert (tmp_path / "destroyed.keys").read_text().count("\n") == 2


async def test_only_the_right_password_matches_its_hash() -> None:
    hasher = Argon2Hasher()
    known = await hasher.hash("violet kettle")
    assert known.startswith("$argon2id$v=19$m=47104,t=1,p=1$")
    assert await hasher.verify("violet kettle", known)
    assert not await hasher.verify("violet kettle ", known)
    assert not await hasher.verify("violet kettle", None)
    assert not hasher.is_outdated(known)
    assert hasher.is_outdated(known.replace("m=47104", "m=19456"))
    hasher.close()


async def test_an_altered_hash_with_a_huge_memory_cost_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []

    class Recorder:
        @staticmethod
        def verify_phc_encoded(_password: bytes, known: str) -> None:
            computed.append(known)

    hasher = Argon2Hasher()
    monkeypatch.setattr(passwords, "Argon2id", Recorder)
    for hostile in ("$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$" + "A" * 43, "$argon2id$garbage", "plain"):
        assert not await hasher.verify("x", hostile)
    assert computed == []
    hasher.close()


async def test_hashes_beyond_the_queue_limit_are_rejected() -> None:
    hasher = Argon2Hasher()
    results = await asyncio.gather(*(hasher.hash("violet kettle") for _ in range(40)), return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 40 - MAX_PLACES
    hasher.close()
