"""The command line: a client of the public API, and the few acts that open the store on the host."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that was asked for; every expected failure is one sentence and an exit code."""
    try:
        from confide.cli.commands import run  # noqa: PLC0415 - the SDK alone has no command line
    except ModuleNotFoundError as missing:
        sys.exit(f"confide: {missing.name} is missing; install confide[cli], or confide[server] to serve.")
    sys.exit(run())


def main_serve() -> None:
    """Serve, for doors that are older than `confide serve`."""
    sys.argv[1:1] = ["serve"]
    main()
