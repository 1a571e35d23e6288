"""Settings of commands that run on the host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

if TYPE_CHECKING:
    from confide.server.settings import Settings


def load_settings(**options: Any) -> Settings:
    """Load settings from options and environment variables. Options win.

    Raises `click.UsageError` for the first invalid setting.
    """
    try:
        from pydantic import ValidationError  # noqa: PLC0415 - the SDK alone has no server

        from confide.server.settings import (  # noqa: PLC0415 - as above
            Settings,
            get_variable,
        )
    except ModuleNotFoundError as missing:
        raise click.ClickException(f"{missing.name} is missing. Install confide[server].") from None
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        setting = str(first["loc"][0]) if first["loc"] else "settings"
        name = setting if setting.startswith(("CONFIDE_", "APP_")) else get_variable(setting)
        raise click.UsageError(f"{name}: {first['msg'].removeprefix('Value error, ')}.") from None


def load_settings_of_database(**options: Any) -> Settings:
    """Load settings and require that their database exists, so that a wrong folder does not get a new one."""
    settings = load_settings(**options)
    path = Path(settings.database_url.removeprefix("sqlite:///"))
    if settings.database_url.startswith("sqlite:") and not path.exists():
        raise click.ClickException(f"There is no database in {settings.data}. Name its folder with --data.")
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
        for name in os.environ
        if name.startswith("CONFIDE_") and not name.startswith("CONFIDE_TEST_") and name not in known
    }
