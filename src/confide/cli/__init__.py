"""Command line: clients of the public API, and commands that open the database on the host."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. An expected error prints one sentence and sets the exit code."""
    try:
        from confide.cli.commands import run  # noqa: PLC0415 - the SDK alone has no command line
    except ModuleNotFoundError as missing:
        sys.exit(f"confide: {missing.name} is missing. Install confide[cli], or confide[server] to serve.")
    sys.exit(run())


def main_serve() -> None:
    """Run `confide serve` for programs that start `run.py`."""
    sys.argv[1:1] = ["serve"]
    main()
