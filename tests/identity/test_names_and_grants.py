"""The rules of names, logins, grants, preconditions, positions, tokens and passwords."""

from __future__ import annotations

import itertools
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide import names, preconditions
from confide.changes import positions
from confide.changes.model import Position
from confide.epoch import Epoch
from confide.errors import InvalidCursor, InvalidName, PreconditionInvalid, VersionConflict
from confide.identity import model as grants
from confide.identity import password_rules, token_format
from confide.identity.errors import InvalidGrant, InvalidLogin, PasswordCommon, PasswordTooLong, PasswordTooShort
from confide.identity.model import (
    Grant,
    Principal,
    Role,
    Scope,
    find_highest_role,
    normalize_attempted_login,
    parse_login,
)
from confide.names import ConfigKey
from confide.preconditions import Precondition
from support.app import build_grants

FIRST, LATER = Epoch("0123456789abcdef", 1), Epoch("1a2b3c4d5e6f7081", 2)


@pytest.mark.parametrize("text", ["a", "A", "0", "acme", "a.b", "a_b-c", "x" * 128, "flight-information-system"])
def test_a_valid_name_is_kept_exactly(text: str) -> None:
    assert names.parse_name(text) == text


@pytest.mark.parametrize(
    "value",
    ["", " ", " a", "a ", "-a", "a-", ".", "..", "a:b", "a/b", "a\\b", "a|b", "a\n", "a\0b", "%", "a'b", "ä", "ſ"]
    + ["x" * 129, True, 1, None, ["a"], {"a": 1}, "a b", "а"],
)
def test_an_invalid_name_is_rejected(value: Any) -> None:
    with pytest.raises(InvalidName):
        names.parse_name(value)


def test_a_login_is_parsed_to_lower_case() -> None:
    assert parse_login("Ada.L") == "ada.l"
    for value in ("", "a b", "x" * 65, "Ada\n", 5, "ſ", "\u212a"):
        with pytest.raises(InvalidLogin):
            parse_login(value)


@pytest.mark.parametrize(
    "address",
    ["ada@example.com", "Ada.L+ops@mail.example.co.uk", "o'brien@example.com", "a%b@x.de", "x" * 64 + "@example.com"]
    + ["_a-@example.com", "ada@localhost", "ada@" + "d" * 63 + ".example"],
)
def test_a_login_can_be_an_email_address(address: str) -> None:
    assert parse_login(address) == address.lower()


@pytest.mark.parametrize(
    "value",
    ["@", "@example.com", "ada@", "ada@@example.com", "ada@b@example.com", "ada @example.com", "ada@-example.com"]
    + ["ada@example..com", "ada@example.com.", "ada@exämple.com", "ada@example.com\n", '"a b"@example.com']
    + ["ada@[127.0.0.1]", "x" * 65 + "@example.com", "ada@" + "d" * 64 + ".example", "ada@" + "d." * 126 + "example"],
)
def test_an_invalid_email_address_is_no_login(value: str) -> None:
    with pytest.raises(InvalidLogin):
        parse_login(value)


def test_the_throttle_counts_each_email_address_for_itself() -> None:
    addresses = [
        "a.b@example.com",
        "a+b@example.com",
        "ab@example.com",
        "x" * 64 + "@a.example",
        "x" * 64 + "@b.example",
    ]
    assert len({normalize_attempted_login(address) for address in addresses}) == len(addresses)


def test_the_throttle_counts_variants_of_a_login_as_one() -> None:
    variants = ("alice", "Alice", "ALICE", "alice ", " alice", "al\u200dice")
    assert {normalize_attempted_login(text) for text in variants} == {"alice"}


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [("acme", ["acme"], ["acme2", "Acme", "acm"]), ("ac*", ["ac", "acme"], ["a", "bac"]), ("*", ["acme", "x"], [])],
)
def test_a_pattern_covers_exact_names_prefixes_or_all_names(
    pattern: str, covered: list[str], not_covered: list[str]
) -> None:
    scope = Scope(pattern, "*")
    assert all(scope.is_covering(ConfigKey(tenant, "t")) for tenant in covered)
    assert not any(scope.is_covering(ConfigKey(tenant, "t")) for tenant in not_covered)


NAMES = st.from_regex(names._NAME, fullmatch=True)


@given(NAMES, NAMES, st.booleans(), NAMES)
def test_bounds_cover_the_same_names_as_the_pattern(prefix: str, rest: str, is_prefix: bool, other: str) -> None:
    scope = Scope(prefix + "*" if is_prefix else prefix, "*")
    low, high, *_ = scope.find_bounds()
    for tenant in (prefix, prefix + rest, other):
        assert scope.is_covering(ConfigKey(tenant, "t")) == (low <= tenant <= high)


@pytest.mark.parametrize(
    "triple",
    [("owner", "a", "b"), ("Viewer", "a", "b"), ("admin", "acme", "*"), ("admin", "*", "crm"), ("viewer", "", "*")]
    + [("viewer", "a*b", "*"), ("viewer", "**", "*"), ("viewer", 1, "*"), (None, "*", "*"), ("viewer", "a:b", "*")],
)
def test_an_invalid_grant_is_rejected(triple: tuple[Any, Any, Any]) -> None:
    with pytest.raises(InvalidGrant):
        grants.parse_grant(*triple)


def test_the_role_is_the_highest_one_that_both_the_user_and_the_token_have() -> None:
    user_grants = build_grants(("viewer", "*", "*"), ("editor", "acme", "crm"), ("reader", "acme", "*"))
    unrestricted = Principal(1, "ada", user_grants, 1)
    assert unrestricted.find_role(ConfigKey("acme", "crm")) is Role.EDITOR
    assert unrestricted.find_role(ConfigKey("acme", "fis")) is Role.READER
    assert unrestricted.find_role(ConfigKey("globex", "fis")) is Role.VIEWER
    restricted = Principal(1, "ada", user_grants, 1, token_grants=build_grants(("editor", "acme", "*")))
    assert restricted.find_role(ConfigKey("acme", "crm")) is Role.EDITOR
    assert restricted.find_role(ConfigKey("acme", "fis")) is Role.READER
    assert restricted.find_role(ConfigKey("globex", "fis")) is None
    admin = build_grants(("admin", "*", "*"))
    assert Principal(1, "ada", admin, 1).is_admin
    assert not Principal(1, "ada", admin, 1, token_grants=build_grants(("editor", "*", "*"))).is_admin
    assert not Principal(1, "ada", user_grants, 1, token_grants=admin).is_admin


@pytest.mark.parametrize(
    ("if_match", "version", "holds"),
    [
        ('"3"', 3, True),
        ('"3m"', 3, True),
        ('"3.7d"', 3, True),
        ('"1", "3"', 3, True),
        ("*", 3, True),
        ('"2"', 3, False),
        ('W/"3"', 3, True),
        ('W/"3.7m"', 3, True),
        ('W/"2"', 3, False),
        ('W/"03"', 3, False),
        ('"03"', 3, False),
        ('"3_0"', 30, False),
        ("*", None, False),
        ('"3"', None, False),
        ('""', 3, False),
    ],
)
def test_if_match_compares_the_version_of_a_tag(if_match: str, version: int | None, *, holds: bool) -> None:
    precondition = preconditions.parse_precondition(if_match, None)
    if holds:
        precondition.require_match(version, epoch=FIRST)
    else:
        with pytest.raises(VersionConflict):
            precondition.require_match(version, epoch=FIRST)


@pytest.mark.parametrize("if_match", ['"3-gzip"', 'W/"33a64df5"', '"x", "03"'])
def test_the_error_says_that_a_proxy_can_have_changed_a_tag(if_match: str) -> None:
    with pytest.raises(VersionConflict, match="A proxy that compresses or rewrites responses can change tags"):
        preconditions.parse_precondition(if_match, None).require_match(3, epoch=FIRST)


def test_a_tag_names_the_epoch_except_in_the_first_one() -> None:
    assert preconditions.format_tag(5, epoch=FIRST) == '"5"'
    assert preconditions.format_tag(5, epoch=LATER) == '"5-1a2b3c4d"'
    assert preconditions.format_tag(5, 2, epoch=LATER, is_masked=True, has_defaults=False) == '"5-1a2b3c4d.2md"'


@pytest.mark.parametrize(
    ("if_match", "epoch", "holds"),
    [
        ('"3"', FIRST, True),
        ('"3"', LATER, False),
        ('"3.1m"', LATER, False),
        ('"3-1a2b3c4d"', LATER, True),
        ('W/"3-1a2b3c4d.1md"', LATER, True),
        ('"3-1a2b3c4d"', FIRST, False),
        ('"3-00000000"', LATER, False),
        ('"2-1a2b3c4d"', LATER, False),
        ('"3", "3-1a2b3c4d"', LATER, True),
        ("*", LATER, True),
    ],
)
def test_a_tag_of_another_epoch_does_not_match(if_match: str, epoch: Epoch, *, holds: bool) -> None:
    precondition = preconditions.parse_precondition(if_match, None)
    if holds:
        precondition.require_match(3, epoch=epoch)
    else:
        with pytest.raises(VersionConflict) as caught:
            precondition.require_match(3, epoch=epoch)
        assert caught.value.current_tag == preconditions.format_tag(3, epoch=epoch)


def test_the_error_says_that_a_tag_is_of_another_epoch() -> None:
    with pytest.raises(VersionConflict, match="only entity tags of another epoch"):
        preconditions.parse_precondition('"3", "4.1m"', None).require_match(3, epoch=LATER)


@pytest.mark.parametrize("if_match", ['"2"', 'W/"2"', '"2", "x"'])
def test_the_error_of_an_older_tag_does_not_blame_a_proxy(if_match: str) -> None:
    with pytest.raises(VersionConflict, match="does not match the current version"):
        preconditions.parse_precondition(if_match, None).require_match(3, epoch=FIRST)


@pytest.mark.parametrize("text", ["", "3", '"3', '"3" "4"', '"3",', '"\u00e9"', "W/3", ',"3"'])
def test_an_invalid_precondition_is_rejected(text: str) -> None:
    with pytest.raises(PreconditionInvalid):
        preconditions.parse_precondition(text, None)


def test_if_none_match_of_a_save_can_only_be_a_star() -> None:
    Precondition(None, is_new_required=True).require_match(None, epoch=FIRST)
    with pytest.raises(VersionConflict):
        preconditions.parse_precondition(None, "*").require_match(1, epoch=FIRST)
    with pytest.raises(PreconditionInvalid):
        preconditions.parse_precondition(None, '"1"')


def test_a_formatted_position_is_parsed_and_other_text_is_rejected() -> None:
    epoch = "0123456789abcdef"
    assert positions.parse_position(
        positions.format_position(epoch, Position(12, 5), has_xid=True), epoch, has_xid=True
    ) == (12, 5)
    assert positions.parse_position(
        positions.format_position(epoch, Position(0, 5), has_xid=False), epoch, has_xid=False
    ) == (0, 5)
    assert positions.parse_position("0", epoch, has_xid=True) == (0, 0)
    for text in ("", "hello", "1", epoch, epoch + ".", epoch + ".-1", epoch + ".1.2.3", epoch + ".１"):
        with pytest.raises(InvalidCursor):
            positions.parse_position(text, epoch, has_xid=True)


def test_tokens_are_unique_and_typos_are_detected_by_the_checksum() -> None:
    tokens = {token_format.generate_token() for _ in range(1_000)}
    assert len(tokens) == 1_000
    token = tokens.pop()
    assert token_format.hash_token(token) is not None
    for other in (token[:-1] + ("0" if token[-1] != "0" else "1"), token.swapcase(), token + "0", "", token[4:]):
        assert token_format.hash_token(other) is None


@given(st.integers(4, 46), st.sampled_from(string.ascii_letters + string.digits + "-_"))
def test_a_token_with_a_changed_character_is_invalid(place: int, character: str) -> None:
    token = "cfd_" + "A" * 43
    unrestricted = token + token_format._compute_checksum("A" * 43)
    changed = unrestricted[:place] + character + unrestricted[place + 1 :]
    assert (token_format.hash_token(changed) is None) == (changed != unrestricted)


@pytest.mark.parametrize(
    "password",
    ["password", "Password1!", "P@ssw0rd", "123456789012345", "qwertyuiop", "aaaaaaaaaaaa", "abcabcabcabc", "letmein99"]
    + ["confide2026", "ada-lovelace", "ecalevol-ada", "secretsecret", "1q2w3e4r5t", "987654321", "dragon!!!"],
)
def test_a_common_password_is_rejected(password: str) -> None:
    with pytest.raises(PasswordCommon):
        password_rules.require_acceptable(password, login="ada-lovelace", min_characters=8)


def test_a_password_only_needs_a_valid_length() -> None:
    assert password_rules.require_acceptable("onlylowercaselettershere", login="ada", min_characters=8)
    assert password_rules.require_acceptable("correct horse battery staple " * 8, login="ada", min_characters=8)
    assert password_rules.require_acceptable("über-geheim-水-火-土-金", login="ada", min_characters=8)
    with pytest.raises(PasswordTooShort):
        password_rules.require_acceptable("sh0rt!x", login="ada", min_characters=8)
    with pytest.raises(PasswordTooLong):
        password_rules.require_acceptable("x" * 257, login="ada", min_characters=8)


def test_equivalent_unicode_forms_of_a_password_are_equal() -> None:
    assert password_rules.normalize("pass-e\u0301-long") == password_rules.normalize("pass-\u00e9-long")


PATTERNS = st.sampled_from(["*", "a*", "ab*", "abc", "ab", "b*", "b"])
SCOPES = st.builds(Scope, PATTERNS, PATTERNS)
GRANTS = st.lists(st.builds(Grant, st.sampled_from([Role.VIEWER, Role.READER, Role.EDITOR]), SCOPES), max_size=4)


@given(user_grants=GRANTS, token_grants=st.none() | GRANTS)
def test_permissions_allow_what_the_grants_of_user_and_token_allow_together(
    user_grants: list[Grant], token_grants: list[Grant] | None
) -> None:
    own = None if token_grants is None else tuple(token_grants)
    principal = Principal(1, "ada", tuple(user_grants), 1, token_grants=own)
    permissions = principal.find_permissions()
    parts = ("a", "ab", "abc", "abcd", "b", "c")
    for key in itertools.starmap(ConfigKey, itertools.product(parts, parts)):
        assert find_highest_role(permissions, key) == principal.find_role(key)
    assert len({grant.scope for grant in permissions}) == len(permissions)
