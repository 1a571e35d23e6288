"""A change to a chain of audit entries is detected, and the first invalid entry is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from confide.audit.chain import (
    FIRST_LINK,
    ChainCheck,
    ChainedEntry,
    Checkpoint,
    LostStretch,
    RecordedLoss,
    compute_link,
    encode_signed_part,
    find_recorded_loss,
    format_checkpoint,
    format_line,
    parse_checkpoint,
    parse_line,
)
from confide.audit.checkpoint_file import CheckpointFile, has_valid_signature
from confide.audit.model import BEGIN_EPOCH, COMMITS_LOST, AuditEntry, EpochRecord
from confide.changes.model import Position
from confide.cli.audit import verify
from confide.cli.output import EXIT_CHECK_FAILED

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
CHECKPOINTS = [Checkpoint(one.number, one.link, 1, b"", b"") for one in CHAIN[SIGNED_EVERY - 1 :: SIGNED_EVERY]]

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


LOST_AT = 1_000


def build_chain_after_loss(*, kept: int, signed: int) -> list[ChainedEntry]:
    """Build a chain that lost its end in a failover, and has other entries since, the first about the loss."""
    record = EpochRecord("2" * 16, "1" * 16, signed, Position(8, 9), (), None)
    entry = AuditEntry(LOST_AT, BEGIN_EPOCH, COMMITS_LOST, version=2, subject=record.format())
    later = [one.entry.replace(b"updated", b"created") for one in CHAIN[kept:] if one.entry]
    return build_chain([*(one.entry or b"" for one in CHAIN[:kept]), entry.encode(), *later])


def find_losses(chain: list[ChainedEntry]) -> list[RecordedLoss]:
    return [loss for one in chain if (loss := find_recorded_loss(one)) is not None]


def sign(entry: ChainedEntry, at: int) -> Checkpoint:
    return Checkpoint(entry.number, entry.link, at, b"", b"")


def test_checkpoints_of_lost_entries_are_a_stretch_to_confirm() -> None:
    """The end was lost after entry 70. Since then the chain grew over the numbers of two lost checkpoints."""
    chain = build_chain_after_loss(kept=70, signed=60)[:110]
    checkpoints = [
        *CHECKPOINTS[:2],
        *(sign(CHAIN[n - 1], LOST_AT - 1) for n in (90, 120)),
        sign(chain[89], LOST_AT + 9),
    ]
    check = ChainCheck(checkpoints, losses=find_losses(chain))
    assert check.verify_next(chain)
    assert check.finish() is None
    assert check.list_lost() == [LostStretch(61, 120, LOST_AT - 1, LOST_AT)]


@pytest.mark.parametrize(
    ("number", "at", "bad"),
    [
        (90, LOST_AT + 1, 90),  # signed after the loss
        (30, LOST_AT - 1, 30),  # among the entries that were not lost
        (120, LOST_AT + 1, 111),  # signed after the loss, and missing now
    ],
)
def test_a_loss_explains_no_other_checkpoint(number: int, at: int, bad: int) -> None:
    chain = build_chain_after_loss(kept=70, signed=60)[:110]
    altered = Checkpoint(number, b"x" * 32, at, b"", b"")
    check = ChainCheck([altered, sign(chain[109], LOST_AT + 9)], losses=find_losses(chain))
    check.verify_next(chain)
    found = check.finish()
    assert found is not None
    assert found.number == bad


def test_without_the_key_a_loss_counts_only_if_a_checkpoint_covers_its_entry() -> None:
    """An attacker can append an entry about a loss, but cannot sign it."""
    chain = build_chain_after_loss(kept=70, signed=60)[:110]
    lost = sign(CHAIN[89], LOST_AT - 1)
    forged = ChainCheck([*CHECKPOINTS[:2], lost], losses=find_losses(chain))
    forged.verify_next(chain)
    found = forged.finish()
    assert found is not None
    assert (found.number, "says why, is not signed" in found.reason) == (90, True)
    with_key = ChainCheck(
        [*CHECKPOINTS[:2], lost], losses=find_losses(chain), mac=lambda entry: entry[-32:].rjust(32, b"m")
    )
    with_key.verify_next(chain)
    assert with_key.finish() is None


def test_a_loss_is_read_from_its_entry_alone() -> None:
    (loss,) = find_losses(build_chain_after_loss(kept=70, signed=60))
    assert loss == RecordedLoss(71, LOST_AT, 60)
    for entry in (
        b'[1,"begin epoch","commits lost",]',
        b'[1,"begin epoch","commits lost",null,null]',
        b'["begin epoch"]',
    ):
        assert find_recorded_loss(ChainedEntry(1, b"", entry, b"")) is None


def test_an_offline_verification_asks_to_confirm_a_loss(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()

    def sign_with_key(entry: ChainedEntry, at: int) -> bytes:
        signature = key.sign(encode_signed_part(entry.number, entry.link, at))
        return format_checkpoint(Checkpoint(entry.number, entry.link, at, public, signature))

    chain = build_chain_after_loss(kept=70, signed=60)[:110]
    lines = [*map(format_line, chain), sign_with_key(CHAIN[59], 5), sign_with_key(chain[-1], LOST_AT + 9)]
    export, kept = tmp_path / "audit.jsonl", tmp_path / "checkpoints.jsonl"
    export.write_bytes(b"\n".join(lines))
    kept.write_bytes(sign_with_key(CHAIN[89], LOST_AT - 1))
    arguments = [str(export), "--key", public.hex(), "--checkpoints", str(kept)]
    result = CliRunner().invoke(verify, arguments, standalone_mode=False)
    assert result.return_value == EXIT_CHECK_FAILED
    assert "LOST, CONFIRM: entries 61 to 90, or some of them." in result.output
    assert "unaltered" not in result.output


def test_the_last_checkpoints_of_a_file_are_read_alone(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "checkpoints.jsonl")
    assert file.read_last(2) == []
    signed = [Checkpoint(n, bytes([n]) * 32, n, bytes(32), bytes(64)) for n in range(1, 20)]
    for one in signed:
        file.append(one)
    assert file.read_last(5) == signed[-5:]
    assert file.read_last(100) == signed


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
    signed = CHECKPOINTS[:4]
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
