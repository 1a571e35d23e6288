"""Names, pairs and URLs make values secret, and masks hide exactly those values."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.integration_types import masking
from confide.integration_types.errors import MaskSentBack
from confide.integration_types.masking import MASK, PREVIOUS_PLACE_WITHOUT_SCHEMA, list_masked_leaves, mask
from confide.integration_types.schema import Schema
from confide.integration_types.secret_names import is_secret_name, was_secret_name
from support.json_values import OBJECTS

# Each line with the reason.
SECRET_NAMES = {
    "a word for a secret": "password Password db_password passwordHash client_secret credentials secret_id passphrase",
    "an ending": "apiKey api-key access_token tokens PIN x-jwt tokenValue session_cookie",
    "separators": "private.key private_key PRIVATE-KEY pass_word",
    "a number": "token1 api_key_2 dbpass1 DB_PASS_1 password2 tls_private_key2 token_v2 passwords2",
    "an environment": "apiKeyProd apikeyprod API_KEY_STAGING tokenDev password_old accessToken2Prod APIKeyTest",
    "an encoding": "token_base64 password_plain secretKeyB64 token_value api_key_value",
    "a compatible character": "ｐａｓｓｗｏｒｄ \ufb01le_pass to\u212aen pass\u200bword",
    "a key": "privkey server_privkey id_rsa id_ed25519 id_ecdsa ssh.id_rsa pem tls_pem ca.pem passkey",
    "a credential as a document": "service_account_json serviceAccountJson service_account_info key_file_json",
    "authentication": "auth basic_auth http_auth proxyAuth xAuth auth_1 basicauth",
    "a configuration with a password": "jaas.config sasl.jaas.config saslJaasConfig",
    "the value of a header": "httpHeaderValue1 header_value",
}
ORDINARY_NAMES = {
    "a word that begins like a secret": "author authority authorized tokenizer passenger passport secure keyboard",
    "a word that ends like a secret": "compass spinner spin bypass north_compass monkey",
    "a number of something": "max_tokens maxTokens max_output_tokens min_tokens num_tokens tokens_per_hour totalTokens",
    "a rule about secrets": "password_policy passwordPolicy password_length secret_ttl password_expiry",
    "where or how to get a secret": "token_url auth_url auth_type auth_method authMode token_type auth_server authHost",
    "a switch": "use_auth has_auth requireAuth enable_auth use_oauth oauth OAuth oauth2 useOAuth2",
    "a public part": "public_key key_id access_key_id api_key_id client_id api_key_name",
    "too general": "key value value1 name header username session_url host prod 1 _ data",
}
# No release masks less than these names of the previous one, except those that the lists above name.
VISIBLE_NOW = {
    "compass", "spin", "bypass", "north_compass",
    "max_tokens", "maxTokens", "max_output_tokens", "min_tokens", "num_tokens", "totalTokens",
    "password_policy", "passwordPolicy", "password_length", "secret_ttl", "password_expiry"
}  # fmt: skip


def list_names(table: dict[str, str]) -> list[str]:
    return [name for names in table.values() for name in names.split(" ")]


@pytest.mark.parametrize("name", list_names(SECRET_NAMES))
def test_a_name_of_a_secret_is_recognized(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", list_names(ORDINARY_NAMES))
def test_an_ordinary_name_is_not_secret(name: str) -> None:
    assert not is_secret_name(name)


def test_only_documented_names_are_visible_that_were_secret() -> None:
    names = list_names(SECRET_NAMES) + list_names(ORDINARY_NAMES)
    assert {name for name in names if was_secret_name(name) and not is_secret_name(name)} == VISIBLE_NOW


@given(st.text(max_size=20), st.sampled_from(["password", "clientSecret", "api_key", "privkey", "auth"]))
def test_a_number_after_the_name_of_a_secret_changes_nothing(start: str, name: str) -> None:
    assert (
        is_secret_name(f"{start}_{name}") == is_secret_name(f"{start}_{name}2") == is_secret_name(f"{start}_{name}_10")
    )


def test_a_secret_of_any_type_is_masked_as_a_whole() -> None:
    for value in ("s", 5, None, True, [1, {"a": 2}], {"deep": "s"}):
        assert masking.mask({"list": [{"password": value}], "a": 1}) == {"list": [{"password": "********"}], "a": 1}


@given(OBJECTS)
def test_masking_keeps_members_and_is_idempotent(value: dict[str, Any]) -> None:
    once = masking.mask(value)
    assert masking.mask(once) == once
    assert list(once) == list(value)


def test_a_mask_is_rejected_with_its_places() -> None:
    with pytest.raises(MaskSentBack) as caught:
        masking.require_no_mask({"a": [{"password": "********"}], "b": 1})
    assert [violation.pointer for violation in caught.value.violations] == ["/configuration/a/0/password"]
    masking.require_no_mask({"a": "*****", "b": {"********": 1}})


URLS = {
    "postgres://u:pw@h/db": "postgres://u:********@h/db",
    "redis://:pw@h": "redis://:********@h",
    "see postgres://u:pw@h and http://x": "see postgres://u:********@h and http://x",
    "amqp://u:pw@h1,amqp://u:qw@h2": "amqp://u:********@h1,amqp://u:********@h2",
    "mongodb://u:pw@h1,h2:27017/db": "mongodb://u:********@h1,h2:27017/db",
    "smtp://ada@example.com:pw@smtp.example.com": "smtp://ada@example.com:********@smtp.example.com",
    # Characters that should be encoded.
    "postgres://u:p@w@h/db": "postgres://u:********@h/db",
    "postgres://u:p/w@h/db": "postgres://u:********@h/db",
    "postgres://u:p#w?x@h/db": "postgres://u:********@h/db",
    "jdbc:postgresql://h/db?user=u&password=pw&ssl=true": "jdbc:postgresql://h/db?user=u&password=********&ssl=true",
    "jdbc:sqlserver://h;user=u;password={p;w};ssl=true": "jdbc:sqlserver://h;user=u;password=********;ssl=true",
    "https://h/?token_url=1&access_token=pw": "https://h/?token_url=1&access_token=********",
}
URLS_WITHOUT_PASSWORD = [
    "https://h:8443/users/@me", "http://h:80/x?y=a@b", "http://[::1]:80/@x", "https://u@h:80/", "https://u:@h",
    "u:pw@h",     "ssh://git@github.com:org/repo@v1", "https://h/a:b@c", "https://token@h:8443/x@y", "://", "a@b://c", "x://:",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_the_password_in_a_url_is_masked(url: str) -> None:
    assert mask({"url": url, "list": [{"n": url}]}) == {"url": URLS[url], "list": [{"n": URLS[url]}]}


@pytest.mark.parametrize("text", URLS_WITHOUT_PASSWORD)
def test_a_text_without_a_password_is_not_changed(text: str) -> None:
    assert mask({"url": text}) == {"url": text}


@pytest.mark.parametrize("url", [*URLS.values(), "postgres://u:%2A%2A%2A%2A%2A%2A%2A%2A@h/db"])
def test_a_url_with_a_mask_cannot_be_saved(url: str) -> None:
    with pytest.raises(MaskSentBack) as caught:
        masking.require_no_mask({"n": [url]})
    assert [violation.pointer for violation in caught.value.violations] == ["/configuration/n/0"]


def test_a_schema_can_say_that_a_url_or_the_value_of_a_pair_is_not_secret() -> None:
    url = "postgres://public:public@h"
    schema = Schema({"properties": {"url": {"writeOnly": False}, "value": {"writeOnly": False}}})
    configuration = {"url": url, "name": "token", "value": "v", "other": url}
    assert mask(configuration, schema.place) == {**configuration, "other": "postgres://public:********@h"}


@given(
    st.lists(st.sampled_from(["a", "u:p@", "://", ":", "@", "/", "?", "password=x", "&", ";", "{", "}", " ", "#", "0"]))
)
def test_masking_a_text_twice_changes_nothing_more(parts: list[str]) -> None:
    once = mask("".join(parts))
    assert mask(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "://" * 20_000 + "@",
        "a://u:" * 9_000 + "@",
        "a://u:p#" * 8_000 + " @",
        "x://u:p/" * 8_000,
        "a://" + ";a={" * 15_000,
    ]
    + ["?" + "a" * 60_000 + "://", "a://" + ":" * 60_000 + "@"],
)
def test_a_hostile_text_is_masked_quickly(text: str) -> None:
    began = time.process_time()
    mask(text)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("pair", "is_secret"),
    [
        ({"name": "X-API-Key", "value": "v"}, True),
        ({"key": "db_password", "value": ["v"]}, True),
        ({"Key": "Authorization", "Value": "v"}, True),
        ({"NAME": "TOKEN1", "VALUE": {"deep": "v"}}, True),
        ({"name": "Accept", "value": "v"}, False),
        ({"name": 5, "value": "v"}, False),
        ({"name": "token"}, False),
        ({"value": "v"}, False),
    ],
)
def test_the_value_of_a_pair_is_secret_if_its_name_is(pair: Any, is_secret: bool) -> None:
    value = next((member for member in pair if member.lower() == "value"), None)
    for place in (
        masking.PLACE_WITHOUT_SCHEMA,
        Schema({"properties": {"headers": {"items": {"type": "object"}}}}).place,
    ):
        masked = mask({"headers": [pair]}, place)["headers"][0]
        assert masked == ({**pair, value: MASK} if is_secret else pair)


def test_masked_leaves_are_the_values_that_a_mask_hides() -> None:
    configuration = {
        "auth": {"user": "u", "deep": [1, {}]},
        "url": "a://u:p@h",
        "headers": [{"name": "token", "value": "v"}],
        "host": "h",
    }
    now = {"/".join(map(str, path)) for path in list_masked_leaves(configuration, masking.PLACE_WITHOUT_SCHEMA)}
    assert now == {"auth/user", "auth/deep/0", "auth/deep/1", "url", "headers/0/value"}
    assert list(list_masked_leaves(configuration, PREVIOUS_PLACE_WITHOUT_SCHEMA)) == []


CREDENTIALS = {
    "properties": {
        "credentials": {
            "oneOf": [
                {"properties": {"auth_type": {"const": "key"}, "api_key": {"type": "string"}}},
                {
                    "properties": {
                        "client_id": {},
                        "refresh": {"airbyte_secret": True},
                        "oauth": {"properties": {"scope": {}}},
                    }
                },
                {"type": "string"},
            ]
        },
        "password": {"properties": {"source": {}, "value": {}}},
        "secrets": {"additionalProperties": {"type": "string"}},
        "tokens": {"items": {"properties": {"id": {}}}},
    }
}


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ({"credentials": {"auth_type": "key", "api_key": "s"}}, {"credentials": {"auth_type": "key", "api_key": MASK}}),
        ({"credentials": {"client_id": "c", "refresh": "s"}}, {"credentials": {"client_id": "c", "refresh": MASK}}),
        # What the schema does not describe stays secret, at any depth.
        ({"credentials": {"extra": {"a": 1}}}, {"credentials": {"extra": MASK}}),
        ({"credentials": {"oauth": {"scope": 1, "x": 2}}}, {"credentials": {"oauth": {"scope": 1, "x": MASK}}}),
        ({"credentials": "s"}, {"credentials": MASK}),
        ({"credentials": ["s"]}, {"credentials": MASK}),
        ({"password": {"source": "env", "value": "s"}}, {"password": {"source": "env", "value": MASK}}),
        ({"secrets": {"a": "s"}}, {"secrets": MASK}),
        ({"tokens": [{"id": "s"}]}, {"tokens": MASK}),
    ],
)  # fmt: skip
def test_a_schema_that_describes_an_object_decides_about_its_members(configuration: Any, expected: Any) -> None:
    assert mask(configuration, Schema(CREDENTIALS).place) == expected


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].joinpath("docs", "reference", "types").glob("*.json"))
)
def test_the_example_types_mask_as_in_the_previous_release(path: Path) -> None:
    schema = Schema(json.loads(path.read_text()))
    members = json.loads(path.read_text())["properties"]
    configuration = dict.fromkeys(members, "value")
    now = set(list_masked_leaves(configuration, schema.place))
    assert now == set(list_masked_leaves(configuration, schema.build_previous_place()))
