"""The origin of an audit entry is part of it, and a check follows the numbers of each process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from confide.audit.chain import ChainedEntry
from confide.audit.model import BEGIN_EPOCH, COMMITS_LOST, AuditEntry, RowState
from confide.audit.origin import EntryJournal, EntryOrigin, parse_origin
from confide.audit.origin_check import OriginCheck
from confide.database.signed_rows import RowName

ENTRY = AuditEntry(at=1, action="save", outcome="created")
SECOND = 1_000_000


def create_journal() -> EntryJournal:
    return EntryJournal(lambda _: b"m" * 32)


def check(entries: list[AuditEntry], *, is_partial: bool = False) -> OriginCheck:
    found = OriginCheck(is_partial=is_partial)
    for number, entry in enumerate(entries, 1):
        found.add(ChainedEntry(number, b"", entry.encode(), b""))
    return found


def write(journal: EntryJournal, *seconds: int) -> list[AuditEntry]:
    return [journal.sign(replace(ENTRY, at=second * SECOND), ()).entry for second in seconds]


@pytest.mark.parametrize("digest", [None, b"d" * 32])
@pytest.mark.parametrize("given_up", [(), (3, 4)])
@pytest.mark.parametrize(
    "rows", [(), (RowState("users", "3", 2), RowState("types", "crm 4", 1)), (RowState("tokens", "7", 1, 17),)]
)
def test_an_origin_is_read_as_it_was_written(
    digest: bytes | None, given_up: tuple[int, ...], rows: tuple[RowState, ...]
) -> None:
    origin = EntryOrigin(b"w" * 8, 5, given_up, rows)
    assert parse_origin(origin.encode(digest)) == origin


def test_a_digest_without_an_origin_has_none() -> None:
    assert parse_origin(b"\2" * 32) is None
    assert parse_origin(b"") is None


def test_no_origin_has_the_length_of_a_digest() -> None:
    for length in range(1, 30):
        origin = EntryOrigin(b"w" * 8, 5, (), (RowState("t" * length, "1", 1),))
        encoded = origin.encode(None)
        assert len(encoded) != 32
        assert parse_origin(encoded) == origin


def test_entries_in_any_order_have_no_gap() -> None:
    entries = write(create_journal(), *range(0, 400, 40))
    assert list(check([*entries[5:], *entries[:5]]).list_missing()) == []
    assert check(entries).findings == []


def test_a_missing_number_is_found_when_its_process_wrote_for_half_a_minute_more() -> None:
    entries = write(create_journal(), 0, 1, 2, 20, 40)
    assert len(list(check([entries[0], *entries[2:]]).list_missing())) == 1
    assert list(check([entries[0], *entries[2:4]]).list_missing()) == []


def test_a_number_that_was_given_up_is_not_missing() -> None:
    journal = create_journal()
    first = write(journal, 0)
    draft = journal.draft(ENTRY)
    draft.sign()
    draft.give_up()
    # The entry that names it is given up as well.
    another = journal.draft(ENTRY)
    another.sign()
    another.give_up()
    another.give_up()
    assert list(check([*first, *write(journal, 50, 100)]).list_missing()) == []


def test_a_draft_that_no_transaction_signed_gives_up_nothing() -> None:
    journal = create_journal()
    journal.draft(ENTRY).give_up()
    assert parse_origin(write(journal, 1)[0].digest or b"") == EntryOrigin(journal._writer, 1, (), ())


def test_a_copy_is_found_even_after_a_gap() -> None:
    entries = write(create_journal(), 0, 1, 2)
    assert check([*entries, entries[1]]).findings == ["entry 4 is a copy of another entry"]


def test_numbers_that_a_failover_lost_are_not_missing() -> None:
    entries = write(create_journal(), 0, 100, 101, 102, 200, 300)
    loss = AuditEntry(150 * SECOND, BEGIN_EPOCH, COMMITS_LOST, version=2, subject="epoch " + "0" * 16 + " after "
                      + "0" * 16 + "; signed 0; last none; missing changes 0")  # fmt: skip
    assert list(check([*entries[:2], entries[3], loss, *entries[4:]]).list_missing()) == []
    assert list(check([*entries[:2], loss, *entries[4:]]).list_missing()) == []


def test_a_check_that_begins_later_expects_no_earlier_number() -> None:
    entries = write(create_journal(), 0, 50, 100, 150)
    partial = check(entries[2:], is_partial=True)
    assert (list(partial.list_missing()), partial.findings) == ([], [])


def test_the_last_state_of_a_row_counts_until_an_operator_reviews_the_store() -> None:
    journal = create_journal()
    entries = [journal.sign(ENTRY, [RowState("users", "1", counter)]).entry for counter in (1, 2)]
    assert check(entries).rows == {RowName("users", "1"): RowState("users", "1", 2)}
    reviewed = journal.sign(replace(ENTRY, action="sign store"), ()).entry
    assert check([*entries, reviewed]).rows == {}
