"""A change to a chain of audit entries is detected, and the first invalid entry is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from confide.audit.chain import (
    FIRST_LINK,
    ChainCheck,
    ChainedEntry,
    Checkpoint,
    compute_link,
    encode_signed_part,
    format_checkpoint,
    format_line,
    parse_checkpoint,
    parse_line,
)
from confide.audit.checkpoint_file import CheckpointFile, has_valid_signature

LENGTH, SIGNED_EVERY = 120, 30
TENANTS = ("acme", "globex", "initech")


def build_chain(entries: list[bytes]) -> list[ChainedEntry]:
    chain, link = [], FIRST_LINK
    for number, entry in enumerate(entries, 1):
        mac = entry[-32:].rjust(32, b"m")
        link = compute_link(link, number, entry, mac)
        chain.append(ChainedEntry(number, link, entry, mac))
    return chain


CHAIN = build_chain([b'[%d,"save","updated",1,7,null,"r",["%b","crm"],%d,null,"00"]' % (n, TENANTS[n % 3].encode(), n)
                  for n in range(1, LENGTH + 1)])  # fmt: skip
CHECKPOINTS = {
    one.number: Checkpoint(one.number, one.link, 1, b"", b"") for one in CHAIN[SIGNED_EVERY - 1 :: SIGNED_EVERY]
}

Tampering = Callable[[list[ChainedEntry], random.Random], int]


def alter_entry(chain: list[ChainedEntry], generator: random.Random) -> int:
    at = generator.randrange(LENGTH)
    entry = bytearray(chain[at].entry or b"")
    entry[generator.randrange(len(entry))] ^= 1 << generator.randrange(8)
    chain[at] = chain[at]._replace(entry=bytes(entry))
    return at + 1


def delete_entry(chain: list[ChainedEntry], generator: random.Random) -> int:
    at = generator.randrange(LENGTH - 1)
    del chain[at]
    return at + 1


def insert_entry(chain: list[ChainedEntry], generator: random.Random) -> int:
    at = generator.randrange(LENGTH)
    forged = chain[at]._replace(entry=b'[0,"save","updated",1,7,null,"r",["acme","crm"],1,null,"00"]')
    chain.insert(at, forged)
    return at + 1


def swap_entries(chain: list[ChainedEntry], generator: random.Random) -> int:
    one, other = sorted(generator.sample(range(LENGTH), 2))
    chain[one], chain[other] = chain[other], chain[one]
    return one + 1


def truncate(chain: list[ChainedEntry], generator: random.Random) -> int:
    at = generator.randrange(LENGTH)
    del chain[at:]
    return at + 1


def swap_tenants(chain: list[ChainedEntry], generator: random.Random) -> int:
    one, other = sorted(generator.sample(range(LENGTH), 2))
    while CHAIN[one].number % 3 == CHAIN[other].number % 3:
        one, other = sorted(generator.sample(range(LENGTH), 2))
    mine, theirs = (TENANTS[chain[at].number % 3].encode() for at in (one, other))
    chain[one] = chain[one]._replace(entry=(chain[one].entry or b"").replace(mine, theirs))
    chain[other] = chain[other]._replace(entry=(chain[other].entry or b"").replace(theirs, mine))
    return one + 1


@pytest.mark.parametrize("tamper", [alter_entry, delete_entry, insert_entry, swap_entries, truncate, swap_tenants])
def test_a_check_names_the_first_entry_of_each_tampering(tamper: Tampering) -> None:
    generator = random.Random(7)
    for _ in range(1_000):
        chain = list(CHAIN)
        first = tamper(chain, generator)
        check = ChainCheck(CHECKPOINTS)
        check.verify_next(chain)
        bad = check.finish()
        assert bad is not None
        assert bad.number == first


def test_an_unaltered_chain_passes_and_an_unread_chain_fails() -> None:
    check = ChainCheck(CHECKPOINTS)
    assert check.verify_next(CHAIN)
    assert check.finish() is None
    assert (check.number, check.link) == (LENGTH, CHAIN[-1].link)
    assert ChainCheck(CHECKPOINTS).finish() is not None


@pytest.mark.parametrize("at", [0, 10, 40, LENGTH - 1])
def test_a_recomputed_chain_fails_at_the_altered_entry_with_macs_and_at_the_next_checkpoint_without(at: int) -> None:
    entries = [one.entry or b"" for one in CHAIN]
    entries[at] = entries[at].replace(b"updated", b"created")
    # An attacker without the key can compute links, but no MACs.
    recomputed, link = [], FIRST_LINK
    for number, (entry, original) in enumerate(zip(entries, CHAIN, strict=True), 1):
        link = compute_link(link, number, entry, original.mac)
        recomputed.append(ChainedEntry(number, link, entry, original.mac))
    check = ChainCheck(CHECKPOINTS)
    check.verify_next(recomputed)
    assert check.finish() is not None
    assert (check.bad or (0,))[0] == -(-(at + 1) // SIGNED_EVERY) * SIGNED_EVERY
    macs = {one.entry: one.mac for one in CHAIN}
    with_macs = ChainCheck(CHECKPOINTS, mac=lambda entry: macs.get(entry, b""))
    with_macs.verify_next(recomputed)
    assert (with_macs.bad or (0,))[0] == at + 1
    assert ChainCheck(CHECKPOINTS, mac=lambda entry: macs.get(entry, b"")).verify_next(CHAIN)


def test_an_exported_line_is_parsed_to_the_same_entry() -> None:
    for one in CHAIN:
        assert parse_line(format_line(one)) == one
    assert parse_line(b"{}") is None
    assert parse_line(format_line(CHAIN[0]) + b"x") is None


def test_a_missing_entry_and_an_invalid_line_are_named_by_number() -> None:
    lines = [format_line(one) for one in CHAIN]
    missing = format_line(CHAIN[4]._replace(entry=None, mac=b""))
    for line, reason in (
        (missing, "missing"),
        (b"", "not an entry"),
        (lines[4][:-9], "not an entry"),
        (lines[4].upper(), "not an entry"),
    ):
        check = ChainCheck(CHECKPOINTS)
        assert not check.verify_next(map(parse_line, [*lines[:4], line, *lines[5:]]))
        assert check.bad is not None
        assert (check.bad.number, reason in check.bad.reason) == (5, True)


def test_a_checkpoint_file_continues_after_an_incomplete_line(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jsonl"
    file = CheckpointFile(path)
    signed = list(CHECKPOINTS.values())[:4]
    for one in signed[:2]:
        file.append(one)
    path.write_bytes(path.read_bytes()[:-20])
    for one in signed[2:]:
        file.append(one)
    assert file.read() == [signed[0], *signed[2:]]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_checkpoint_is_valid_only_for_its_key_and_unaltered_fields() -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    signature = key.sign(encode_signed_part(3, CHAIN[2].link, 5))
    signed = Checkpoint(3, CHAIN[2].link, 5, public, signature)
    assert has_valid_signature(signed, public)
    assert parse_checkpoint(format_checkpoint(signed)) == signed
    assert not has_valid_signature(signed, other.public_key().public_bytes_raw())
    for changed in ({"number": 4}, {"link": CHAIN[3].link}, {"at": 6}, {"signature": bytes(64)}):
        fields = {"number": 3, "link": CHAIN[2].link, "at": 5, "public_key": public, "signature": signature} | changed
        assert not has_valid_signature(Checkpoint(**fields), public)  # type: ignore[arg-type]
