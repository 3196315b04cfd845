"""The command `recs`. One module per group of commands; data goes to standard output, logs to standard error."""

from __future__ import annotations

import sys

from recs.cli import services as _services  # noqa: F401  (registers commands)
from recs.cli.app import app
from recs.errors import RecsError


def main() -> None:
    """Run the command line; an error of this package is one line on standard error and exit status 1."""
    try:
        app()
    except RecsError as exc:
        print(f"recs: {exc}", file=sys.stderr)
        sys.exit(1)
