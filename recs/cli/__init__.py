"""The command `recs`. One module per group of commands; data goes to standard output, logs to standard error."""

from __future__ import annotations

import sys

from recs.cli import batch as _batch  # noqa: F401  (each import registers its commands)
from recs.cli import evaluate as _evaluate  # noqa: F401
from recs.cli import intents as _intents  # noqa: F401
from recs.cli import processes as _processes  # noqa: F401
from recs.cli import quarantine as _quarantine  # noqa: F401
from recs.cli import recommend as _recommend  # noqa: F401
from recs.cli import services as _services  # noqa: F401
from recs.cli import tune as _tune  # noqa: F401
from recs.cli.app import app
from recs.errors import RecsError
from recs.logs import configure_logs
from recs.settings import load_settings


def main() -> None:
    """Run the command line; an error of this package is one line on standard error and exit status 1."""
    try:
        configure_logs(load_settings().log_level)
        app()
    except RecsError as exc:
        print(f"recs: {exc}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
