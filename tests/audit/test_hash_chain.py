"""S-chain: whatever is done to a chain of entries, the first bad one is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from confide.audit.chain import (
    BEGINNING,
    ChainCheck,
    ChainedEntry,
    Checkpoint,
    compute_link,
    read_checkpoint,
    read_line,
    signed_bytes,
    write_checkpoint,
    write_line,
)
from confide.audit.checkpoint_file import CheckpointFile, is_signed

LENGTH, SIGNED_EVERY = 120, 30
TENANTS = ("acme", "globex", "initech")


def chain_of(entries: list[bytes]) -> list[ChainedEntry]:
    found, before = [], BEGINNING
    for number, entry in enumerate(entries, 1):
        mac = entry[-32:].rjust(32, b"m")
        before = compute_link(before, number, entry, mac)
        found.append(ChainedEntry(number, before, entry, mac))
    return found


WHOLE = chain_of([b'[%d,"save","updated",1,7,null,"r",["%b","crm"],%d,null,"00"]' % (n, TENANTS[n % 3].encode(), n)
                  for n in range(1, LENGTH + 1)])  # fmt: skip
CHECKPOINTS = {
    one.number: Checkpoint(one.number, one.link, 1, b"", b"") for one in WHOLE[SIGNED_EVERY - 1 :: SIGNED_EVERY]
}

Tampering = Callable[[list[ChainedEntry], random.Random], int]


def altered(chain: list[ChainedEntry], chance: random.Random) -> int:
    at = chance.randrange(LENGTH)
    entry = bytearray(chain[at].entry or b"")
    entry[chance.randrange(len(entry))] ^= 1 << chance.randrange(8)
    chain[at] = chain[at]._replace(entry=bytes(entry))
    return at + 1


def deleted(chain: list[ChainedEntry], chance: random.Random) -> int:
    at = chance.randrange(LENGTH - 1)
    del chain[at]
    return at + 1


def inserted(chain: list[ChainedEntry], chance: random.Random) -> int:
    at = chance.randrange(LENGTH)
    forged = chain[at]._replace(entry=b'[0,"save","updated",1,7,null,"r",["acme","crm"],1,null,"00"]')
    chain.insert(at, forged)
    return at + 1


def reordered(chain: list[ChainedEntry], chance: random.Random) -> int:
    one, other = sorted(chance.sample(range(LENGTH), 2))
    chain[one], chain[other] = chain[other], chain[one]
    return one + 1


def cut_short(chain: list[ChainedEntry], chance: random.Random) -> int:
    at = chance.randrange(LENGTH)
    del chain[at:]
    return at + 1


def tenants_swapped(chain: list[ChainedEntry], chance: random.Random) -> int:
    one, other = sorted(chance.sample(range(LENGTH), 2))
    while WHOLE[one].number % 3 == WHOLE[other].number % 3:
        one, other = sorted(chance.sample(range(LENGTH), 2))
    mine, theirs = (TENANTS[chain[at].number % 3].encode() for at in (one, other))
    chain[one] = chain[one]._replace(entry=(chain[one].entry or b"").replace(mine, theirs))
    chain[other] = chain[other]._replace(entry=(chain[other].entry or b"").replace(theirs, mine))
    return one + 1


@pytest.mark.parametrize("tamper", [altered, deleted, inserted, reordered, cut_short, tenants_swapped])
def test_each_of_a_thousand_tamperings_is_found_at_the_right_place(tamper: Tampering) -> None:
    chance = random.Random(7)
    for _ in range(1_000):
        chain = list(WHOLE)
        first = tamper(chain, chance)
        check = ChainCheck(CHECKPOINTS)
        check.follow(chain)
        bad = check.end()
        assert bad is not None
        assert bad.number == first


def test_a_whole_chain_is_whole_and_a_check_that_looks_at_nothing_would_be_noticed() -> None:
    check = ChainCheck(CHECKPOINTS)
    assert check.follow(WHOLE)
    assert check.end() is None
    assert (check.number, check.link) == (LENGTH, WHOLE[-1].link)
    assert ChainCheck(CHECKPOINTS).end() is not None


@pytest.mark.parametrize("at", [0, 10, 40, LENGTH - 1])
def test_a_chain_that_was_made_anew_is_found_by_its_macs_or_at_the_next_signed_place(at: int) -> None:
    entries = [one.entry or b"" for one in WHOLE]
    entries[at] = entries[at].replace(b"updated", b"created")
    # Whoever has no key makes links, and no MACs.
    anew, before = [], BEGINNING
    for number, (entry, was) in enumerate(zip(entries, WHOLE, strict=True), 1):
        before = compute_link(before, number, entry, was.mac)
        anew.append(ChainedEntry(number, before, entry, was.mac))
    check = ChainCheck(CHECKPOINTS)
    check.follow(anew)
    assert check.end() is not None
    assert (check.bad or (0,))[0] == -(-(at + 1) // SIGNED_EVERY) * SIGNED_EVERY
    macs = {one.entry: one.mac for one in WHOLE}
    with_macs = ChainCheck(CHECKPOINTS, mac=lambda entry: macs.get(entry, b""))
    with_macs.follow(anew)
    assert (with_macs.bad or (0,))[0] == at + 1
    assert ChainCheck(CHECKPOINTS, mac=lambda entry: macs.get(entry, b"")).follow(WHOLE)


def test_lines_of_an_export_are_read_as_they_were_written() -> None:
    for one in WHOLE:
        assert read_line(write_line(one)) == one
    assert read_line(b"{}") is None
    assert read_line(write_line(WHOLE[0]) + b"x") is None


def test_what_is_gone_or_no_entry_is_named_by_its_number() -> None:
    lines = [write_line(one) for one in WHOLE]
    gone = write_line(WHOLE[4]._replace(entry=None, mac=b""))
    for line, why in (
        (gone, "missing"),
        (b"", "not an entry"),
        (lines[4][:-9], "not an entry"),
        (lines[4].upper(), "not an entry"),
    ):
        check = ChainCheck(CHECKPOINTS)
        assert not check.follow(map(read_line, [*lines[:4], line, *lines[5:]]))
        assert check.bad is not None
        assert (check.bad.number, why in check.bad.reason) == (5, True)


def test_the_second_place_goes_on_after_a_line_that_was_not_written_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jsonl"
    place = CheckpointFile(path)
    signed = list(CHECKPOINTS.values())[:4]
    for one in signed[:2]:
        place.append(one)
    path.write_bytes(path.read_bytes()[:-20])
    for one in signed[2:]:
        place.append(one)
    assert place.read() == [signed[0], *signed[2:]]
    assert path.stat().st_mode & 0o777 == 0o600


def test_only_the_holder_of_the_key_signs() -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    signature = key.sign(signed_bytes(3, WHOLE[2].link, 5))
    signed = Checkpoint(3, WHOLE[2].link, 5, public, signature)
    assert is_signed(signed, public)
    assert read_checkpoint(write_checkpoint(signed)) == signed
    assert not is_signed(signed, other.public_key().public_bytes_raw())
    for changed in ({"number": 4}, {"link": WHOLE[3].link}, {"at": 6}, {"signature": bytes(64)}):
        fields = {"number": 3, "link": WHOLE[2].link, "at": 5, "public_key": public, "signature": signature} | changed
        assert not is_signed(Checkpoint(**fields), public)  # type: ignore[arg-type]
