"""`recs run`, `check`, `fingerprint`, `erase`: what fills the stores and what looks after them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from recs.batch.check import check_stores, repair
from recs.batch.erase import erase_user
from recs.batch.fingerprint import fingerprint as fingerprint_of
from recs.bootstrap import open_stores
from recs.cli.app import app
from recs.cli.python_process import module_argv, run_to_end
from recs.errors import InputError
from recs.settings import load_settings

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@app.command()
def run(
    conversations: Annotated[list[Path] | None, typer.Argument(help="JSON, JSON Lines, CSV or Parquet.")] = None,
    campaigns: Annotated[list[Path] | None, typer.Option(help="The campaign catalogue; upserted.")] = None,
    preferences: Annotated[list[Path] | None, typer.Option(help="Consent and channels per user.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="JSON file: our fields to the columns of a table.")] = None,
    rebuild: Annotated[bool, typer.Option(help="Compute all vectors anew, beside the live ones.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the run's figures here.")] = None,
    every: Annotated[str | None, typer.Option(help="Again every so often: 30m, 1h, 1d.")] = None,
) -> None:
    """Take conversations through the flow into all stores, and publish.

    Without a file, what an interrupted run left is finished.
    """
    arguments = [str(path) for path in conversations or []]
    for name, paths in (("--campaigns", campaigns), ("--preferences", preferences)):
        for path in paths or []:
            arguments += [name, str(path)]
    if mapping is not None:
        arguments += ["--mapping", str(mapping)]
    if rebuild:
        arguments.append("--rebuild")
    if json_out is not None:
        arguments += ["--json", str(json_out)]
    if every is not None:
        arguments += ["--every", str(_seconds(every))]
    # What cannot work is said before any server is started.
    for path in (*(conversations or []), *(campaigns or []), *(preferences or []), *([mapping] if mapping else [])):
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "does not exist"
            raise InputError(f"{path} {what}; a file of records is needed")
    run_to_end(module_argv("pipeline", *arguments))


@app.command()
def check(
    repair_now: Annotated[bool, typer.Option("--repair", help="Bring what differs up to date, and publish.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that all stores agree with the raw conversations; exit status 1 where they do not."""
    settings = load_settings()
    with open_stores(settings, timeout_seconds=settings.load_timeout_seconds) as (_, stores):
        report = check_stores(stores, max_text_chars=settings.max_text_chars)
        if as_json:
            print(json.dumps(report.as_dict(), indent=1))
        else:
            print(report.text())
        if repair_now and report.findings:
            repair(stores, report)
    if repair_now and report.findings:
        run_to_end(module_argv("pipeline"))
    elif report.findings:
        raise typer.Exit(1)


@app.command()
def fingerprint(as_json: Annotated[bool, typer.Option("--json", help="Print one hash per store.")] = False) -> None:
    """Print one hash of the logical content of all stores, the same whichever servers hold it."""
    settings = load_settings()
    with open_stores(settings, timeout_seconds=settings.load_timeout_seconds) as (_, stores):
        parts = fingerprint_of(stores)
    print(json.dumps(parts, indent=1) if as_json else parts["all"])


@app.command()
def erase(user_id: str) -> None:
    """Remove a user from every store and the quarantine; prints a receipt."""
    settings = load_settings()
    with open_stores(settings, timeout_seconds=settings.load_timeout_seconds) as (resolved, stores):
        print(json.dumps(erase_user(stores, resolved, user_id), indent=1))


def _seconds(interval: str) -> float:
    number, unit = interval[:-1], interval[-1:]
    try:
        seconds = float(number) * _UNITS[unit]
    except (KeyError, ValueError) as exc:
        raise InputError(f"--every {interval!r}: a number and one of s, m, h, d is needed, such as 30m") from exc
    if not seconds >= 1:
        raise InputError(f"--every {interval!r}: at least one second is needed")
    return seconds
