"""The command tree and its exit codes."""

from __future__ import annotations

import sys

import rich_click as click

from confide import __version__
from confide.cli import audit, configs, host, io, keys, load, moving, session, tokens, types, users
from confide.cli.serving import serve
from confide.client import ConfideError

# Click itself exits with 2 for a wrong command line.
EXIT_CODES = {
    "confide.server.supervisor:PortTaken": 3,
    "confide.server.supervisor:StartFailed": 9,
    "confide.errors:DatabaseUnavailable": 4,
    "confide.crypto.errors:MasterKeyMissing": 5,
    "confide.database.errors:NewerSchema": 6,
    "confide.database.schema:ChangedMigration": 6,
    "confide.database.errors:UnsafeDurability": 7,
    "confide.database.backup:ArchiveBroken": 8,
}
REFUSED = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def confide() -> None:
    """Store and serve integration configs of tenants."""


for command in (
    serve,
    host.migrate,
    host.backup,
    host.restore,
    keys.keys,
    session.login,
    users.user,
    tokens.token,
    configs.config,
    types.type_group,
    audit.audit,
    io.io,
    load.load,
    moving.export_configs,
    moving.import_configs,
):
    confide.add_command(command)


def run() -> int:
    try:
        code = confide.main(standalone_mode=False)
    except click.Abort:
        return _failed("Stopped.", REFUSED)
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _failed(error.message, error.exit_code)
    except OSError as error:
        return _failed(f"{error.filename or 'The system'}: {error.strerror}.", REFUSED)
    except Exception as error:
        known = _exit_code(error)
        if known is None:
            raise
        return _failed(str(error) or type(error).__doc__ or "", known)
    return code if isinstance(code, int) else 0


def _exit_code(error: Exception) -> int | None:
    if isinstance(error, ConfideError):
        return REFUSED
    # Commands on the host call the use cases directly, not over the API.
    names = {f"{kind.__module__}:{kind.__qualname__}" for kind in type(error).__mro__}
    if "confide.errors:ServiceError" in names:
        return REFUSED
    return next((code for name, code in EXIT_CODES.items() if name in names), None)


def _failed(sentence: str, code: int) -> int:
    print(f"confide: {sentence}", file=sys.stderr)  # noqa: T201 - the one place where a command fails
    return code
