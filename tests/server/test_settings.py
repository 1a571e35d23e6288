"""Settings: what they reject, and that an error never quotes a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from confide.server.settings import Settings
from support.processes import run_confide

AMBIGUOUS = [
    "postgresql://confide:qz#ss@127.0.0.1:1/db",
    "postgresql://confide:qz/ss@127.0.0.1:1/db",
    "postgresql://confide:qz?ss@127.0.0.1:1/db",
    "postgresql://confide:qz@ss@127.0.0.1:1/db",
]
SOUND = [
    "postgresql://confide:qz%23ss@127.0.0.1:1/db",
    "postgresql://confide@one:1,two:2/db?target_session_attrs=read-write",
    "postgres:///db?host=/run/postgresql&user=confide",
]


@pytest.mark.parametrize("url", AMBIGUOUS)
@pytest.mark.parametrize("name", ["database", "io_sinks"])
def test_a_password_with_reserved_characters_is_explained_and_not_quoted(name: str, url: str) -> None:
    with pytest.raises(ValidationError, match="percent-encode reserved characters") as error:
        Settings(**{name: url})  # type: ignore[arg-type]
    assert "qz" not in str(error.value)


@pytest.mark.parametrize("url", SOUND)
def test_other_urls_of_postgresql_are_accepted(url: str) -> None:
    assert Settings(database=url).database_url == url


def test_a_command_names_the_setting_in_one_line(tmp_path: Path) -> None:
    done = run_confide("migrate", cwd=tmp_path, env={"CONFIDE_DATABASE": AMBIGUOUS[0]})
    assert done.returncode != 0
    assert "percent-encode reserved characters" in done.stderr
    assert "qz#" not in done.stderr
    assert "Traceback" not in done.stderr
