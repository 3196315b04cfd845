"""`python -m pipeline`: run the flow once, or on a schedule. `recs run` starts this as a process."""

from __future__ import annotations

import os
import sys
import time
import traceback
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from recs import embedded
from recs.errors import RecsError, RunError
from recs.logs import configure_logs
from recs.settings import load_settings

_PREFECT_SECONDS = 10.0


def main(
    conversations: Annotated[list[Path] | None, typer.Argument()] = None,
    campaigns: Annotated[list[Path] | None, typer.Option()] = None,
    preferences: Annotated[list[Path] | None, typer.Option()] = None,
    mapping: Annotated[Path | None, typer.Option()] = None,
    rebuild: Annotated[bool, typer.Option()] = False,
    json_out: Annotated[Path | None, typer.Option("--json")] = None,
    every: Annotated[float | None, typer.Option(min=1)] = None,
) -> None:
    """Load conversations; with --every, again every so many seconds."""
    settings = load_settings()
    configure_logs(settings.log_level)
    arguments: dict[str, Any] = {
        "conversations": _absolute(conversations),
        "campaigns": _absolute(campaigns),
        "preferences": _absolute(preferences),
        "mapping": str(mapping.resolve()) if mapping else None,
        "rebuild": rebuild,
        "json_out": str(json_out.resolve()) if json_out else None,
    }
    with embedded.session(settings, embedded.SERVICES) as resolved:
        # Prefect reads its settings when it is imported.
        os.environ["PREFECT_API_URL"] = str(resolved.prefect_url)
        os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
        os.environ.setdefault("DO_NOT_TRACK", "1")
        os.environ.setdefault("PREFECT_HOME", str(resolved.home.resolve() / "prefect"))
        # What fails is told once, by the caller of the flow; Prefect's UI has the rest.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        # Prefect imports a validator of URLs that takes seconds to compile its grammar and is never used here;
        # jsonschema goes without where it is missing.
        sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
        from pipeline.flow import flow_for

        load_conversations = flow_for(resolved)

        if every is None:
            _require_prefect(str(resolved.prefect_url))
            load_conversations(**arguments)
            return
        for _ in _ticks(every):
            try:
                # Brings up again what fell over since the last run.
                with embedded.session(settings, embedded.SERVICES):
                    _require_prefect(str(resolved.prefect_url))
                    load_conversations(**arguments)
            except (RecsError, OSError) as exc:
                print(f"recs: {exc}", file=sys.stderr)
            except Exception:  # noqa: BLE001
                # Whatever it was, it may be gone the next time.
                traceback.print_exc()


def _require_prefect(url: str) -> None:
    """Raise RunError where Prefect does not answer; the flow itself would end in a trace of its client."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=_PREFECT_SECONDS):  # noqa: S310  (a URL of the settings)
            return
    except urllib.error.HTTPError:
        return  # it answers; whether it lets us in, its client finds out
    except (OSError, ValueError) as exc:
        raise RunError(f"no answer from Prefect at {url} ({exc}): start it, or see RECS_PREFECT_URL") from exc


def _ticks(every: float) -> Iterator[None]:
    """Yield now and every so many seconds; a time that passes while the caller is busy is left out.

    Prefect's own schedules queue such times, also those while nothing was running, and make them up one by one.
    """
    began = time.monotonic()
    while True:
        yield
        wait = every - (time.monotonic() - began) % every
        then = datetime.now().astimezone() + timedelta(seconds=wait)
        print(f"next run at {then:%Y-%m-%d %H:%M:%S}; Ctrl-C ends it", flush=True)
        time.sleep(wait)


def _absolute(paths: list[Path] | None) -> list[str]:
    return [str(path.resolve()) for path in paths or []]


if __name__ == "__main__":
    if not sys.warnoptions:
        # Notes of libraries to developers; `python -W default -m pipeline` shows them.
        warnings.simplefilter("ignore")
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    try:
        app()
    except (RecsError, OSError) as exc:
        print(f"recs: {exc}", file=sys.stderr)
        sys.exit(1)
