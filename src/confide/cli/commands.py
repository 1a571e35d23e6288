"""Command tree and exit codes."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

import rich_click as click

from confide import __version__
from confide.cli import (
    audit,
    configs,
    database,
    integration_types,
    io_reports,
    keys,
    load,
    tenants,
    tokens,
    transfer,
    users,
)
from confide.cli.health import health
from confide.cli.login import login
from confide.cli.output import EXIT_ERROR, escape_controls, escape_line, print_line
from confide.cli.serve import serve
from confide.cli.whoami import whoami
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
    "confide.database.errors:UnsignedStore": 11,
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def confide() -> None:
    """Store and serve integration configs of tenants."""


for command in (
    serve,
    health,
    database.migrate,
    database.backup,
    database.restore,
    database.store,
    keys.keys,
    login,
    whoami,
    users.user,
    tenants.tenant,
    tokens.token,
    configs.config,
    integration_types.type_group,
    audit.audit,
    io_reports.io,
    load.load,
    transfer.export_configs,
    transfer.import_configs,
):
    confide.add_command(command)


def run() -> int:
    """Run the command of `sys.argv` and return its exit code. Print expected errors; raise unexpected ones."""
    sys.excepthook = _print_traceback
    try:
        code = confide.main(standalone_mode=False)
    except click.Abort:
        return _print_error("Stopped.", EXIT_ERROR)
    except click.UsageError as error:
        click.UsageError(escape_controls(error.format_message()), error.ctx).show()
        return error.exit_code
    except click.ClickException as error:
        return _print_error(error.message, error.exit_code)
    except OSError as error:
        return _print_error(f"{error.filename or 'The system'}: {error.strerror or error}.", EXIT_ERROR)
    except Exception as error:
        expected = _find_exit_code(error)
        if expected is None:
            raise
        return _print_error(str(error) or type(error).__doc__ or "", expected)
    return code if isinstance(code, int) else 0


def _find_exit_code(error: Exception) -> int | None:
    if isinstance(error, ConfideError):
        return EXIT_ERROR
    # Commands on the host run use cases directly. Names avoid importing the server for every command.
    names = {f"{kind.__module__}:{kind.__qualname__}" for kind in type(error).__mro__}
    if "confide.errors:ServiceError" in names:
        return EXIT_ERROR
    return next((code for name, code in EXIT_CODES.items() if name in names), None)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print_line("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), err=True)


def _print_error(sentence: str, code: int) -> int:
    print_line(escape_line(f"confide: {sentence}"), err=True)
    return code
