"""Settings of the service, from environment variables and command-line options."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from confide.environment import list_settings
from confide.postgresql_client.address import parse_address
from confide.telemetry.sinks.registry import require_known_sinks
from confide.urls import require_encoded_password

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
MIN_PASSWORD_CHARACTERS = 8
# Beside the checkpoints, outside the database.
SIGNING_RECORD_NAME = "signed-store.json"
MIB = 1024 * 1024


class _EnvironmentSource(EnvSettingsSource):
    """The environment without empty variables and without those of Docker and Kubernetes."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in list_settings().items()}


class Settings(BaseSettings):
    """Read from `CONFIDE_*` variables. Command-line options take precedence."""

    # Errors never contain the value of a setting, because it may be a password.
    model_config = SettingsConfigDict(
        env_prefix="CONFIDE_", extra="ignore", populate_by_name=True, frozen=True, hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535, validation_alias=AliasChoices("CONFIDE_PORT", "APP_PORT"))
    data: Path = Path("confide-data")
    database: SecretStr | None = None
    workers: int = Field(default=1, ge=1, le=64)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_tls_proxy: bool = False
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    master_keys: SecretStr | None = None
    setup_token: Literal["optional", "required"] = "optional"  # noqa: S105 - not a secret
    old_contract: bool = True
    unsafe_durability: bool = False
    min_password_characters: int = Field(default=MIN_PASSWORD_CHARACTERS, ge=MIN_PASSWORD_CHARACTERS, le=128)
    pool_size: int = Field(default=8, ge=1, le=200)
    # For each worker. The limit of open files decides without them.
    max_connections: int | None = Field(default=None, ge=16, le=1_000_000)
    max_connections_per_address: int | None = Field(default=None, ge=1, le=1_000_000)
    max_streams_per_token: int | None = Field(default=None, ge=1, le=1_000_000)
    cache_bytes: int = Field(default=128 * MIB, ge=0)
    cache_ttl_seconds: float = Field(default=300, gt=0, le=86_400)
    stale_reads_seconds: float = Field(default=300, ge=0, le=86_400)
    checkpoints: Path | None = None
    log_days: int = Field(default=365, ge=1, le=36_500)
    # 0 keeps every entry.
    audit_days: int = Field(default=0, ge=0, le=36_500)
    metrics: Literal["closed", "open"] = "closed"
    io_sinks: SecretStr = SecretStr("sqlite")
    io_sample: int = Field(default=1_000, ge=0)
    io_queue: int = Field(default=20_000, ge=1, le=10_000_000)
    io_days: int = Field(default=7, ge=1, le=36_500)
    io_mib: int = Field(default=256, ge=1)
    # Only the start message uses it.
    app_env: str | None = Field(default=None, validation_alias="APP_ENV")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - an override
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _EnvironmentSource(settings_cls)

    @field_validator("checkpoints")
    @classmethod
    def _check_writable(cls, value: Path | None) -> Path | None:
        if value is not None and not os.access(value.absolute().parent, os.W_OK):
            raise ValueError("choose a file in an existing, writable folder")
        return value

    @field_validator("database")
    @classmethod
    def _check_database(cls, value: SecretStr | None) -> SecretStr | None:
        url = value.get_secret_value() if value else ""
        if value is not None and not re.match(r"sqlite:///.|postgres(?:ql)?://.", url):
            raise ValueError("a database URL begins with sqlite:/// or postgresql://")
        if value is not None and not url.startswith("sqlite:"):
            require_encoded_password(url)
            parse_address(url)
        return value

    @field_validator("io_sinks")
    @classmethod
    def _check_sinks(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() != "off":
            require_known_sinks(value.get_secret_value())
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            ipaddress.ip_network(proxy)
        return value

    @field_validator("old_contract", mode="before")
    @classmethod
    def _parse_switch(cls, value: object) -> object:
        if isinstance(value, str) and value not in ("on", "off"):
            raise ValueError("use on or off")
        return {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def database_url(self) -> str:
        if self.database is not None:
            return self.database.get_secret_value()
        return f"sqlite:///{self.data / 'confide.db'}"

    @property
    def checkpoints_file(self) -> Path:
        return self.checkpoints or self.data / "checkpoints.jsonl"

    @property
    def signing_record(self) -> Path:
        return self.checkpoints_file.with_name(SIGNING_RECORD_NAME)

    @property
    def io_folder(self) -> Path:
        return self.data / "io"

    @property
    def is_io_off(self) -> bool:
        """Return whether I/O events are off entirely. Without sinks they are still counted."""
        return self.io_sinks.get_secret_value() == "off"

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK or self.host.startswith("127.")

    @property
    def is_for_this_machine(self) -> bool:
        """Return whether all clients are on this machine: loopback address and no configured proxy."""
        return self.is_loopback and not self.behind_tls_proxy and not self.trusted_proxies

    @property
    def is_setup_token_optional(self) -> bool:
        """Return whether a client on this machine can add the first user without the setup token."""
        return self.is_for_this_machine and self.setup_token == "optional"  # noqa: S105 - as above

    @property
    def has_unnamed_proxy(self) -> bool:
        """Return whether a proxy forwards requests, and no setting says whose `X-Forwarded-For` to trust."""
        return self.behind_tls_proxy and not self.trusted_proxies

    @property
    def has_tls(self) -> bool:
        return self.tls_cert is not None and self.tls_key is not None


def get_setting(location: tuple[int | str, ...]) -> str:
    """Return the name of the setting that a validation error is about. Its location can be the variable."""
    name = str(location[0])
    aliases = {
        str(alias): field
        for field, info in Settings.model_fields.items()
        for alias in getattr(info.validation_alias, "choices", [info.validation_alias])
    }
    return aliases.get(name, name)


def get_variable(name: str) -> str:
    """Return the name of the environment variable of a setting."""
    return f"CONFIDE_{name.upper()}"
