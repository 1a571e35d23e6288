"""Settings of commands that run on the host."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from confide.environment import is_service_variable

if TYPE_CHECKING:
    from confide.server.settings import Settings


# Every command on the host opens the database. Some use more settings.
DATABASE_SETTINGS = frozenset({"data", "database", "pool_size"})
WITH_KEYS = DATABASE_SETTINGS | {"master_keys"}
# The record that a store is signed is beside the checkpoints.
WITH_RECORD = WITH_KEYS | {"checkpoints"}
WITH_PASSWORDS = WITH_KEYS | {"min_password_characters"}


def load_settings(*, uses: Collection[str] | None = None, **options: Any) -> Settings:
    """Load settings from options and environment variables. Options win.

    Raises `click.UsageError` for the first invalid setting. If a command names the settings that it uses, invalid
    values of others count as unset.
    """
    try:
        from pydantic import ValidationError  # noqa: PLC0415 - the SDK alone has no server

        from confide.server.settings import (  # noqa: PLC0415 - as above
            Settings,
            get_setting,
            get_variable,
        )
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing. Install confide[server].") from None
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        invalid = {get_setting(one["loc"]): one["msg"] for one in error.errors(include_input=False, include_url=False)}
    for name, reason in invalid.items():
        if uses is None or name in uses:
            raise click.UsageError(f"{get_variable(name)}: {reason.removeprefix('Value error, ')}.")
    return Settings(**given, **{name: Settings.model_fields[name].default for name in invalid})


def load_settings_of_database(*, uses: Collection[str], **options: Any) -> Settings:
    """Load the settings that a command uses. Require that their database exists.

    So a command with a wrong folder does not create a database in it.
    """
    settings = load_settings(uses=uses, **options)
    path = Path(settings.database_url.removeprefix("sqlite:///"))
    if settings.database_url.startswith("sqlite:") and not path.exists():
        raise click.ClickException(
            f"There is no database in {settings.data}. Name its folder with --data, or its URL with --database."
        )
    return settings


def find_unknown_variables() -> set[str]:
    """Return environment variables that start with CONFIDE_ but are not settings, such as misspelled ones.

    Variables that start with CONFIDE_TEST_ are options of the test suite.
    """
    from confide.server.settings import (  # noqa: PLC0415 - as above
        Settings,
        get_variable,
    )

    known = {get_variable(name) for name in Settings.model_fields} | {"CONFIDE_URL", "CONFIDE_TOKEN"}
    return {
        name
        for name, value in os.environ.items()
        if name.startswith("CONFIDE_")
        and not name.startswith("CONFIDE_TEST_")
        and name not in known
        and not is_service_variable(name, value)
    }
