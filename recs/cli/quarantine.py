"""`recs quarantine list | replay`: what was not accepted, and another try."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated

import typer

from recs.cli.app import app
from recs.cli.python_process import module_argv, run_to_end
from recs.ingest.quarantine import Quarantine
from recs.settings import load_settings

quarantine = typer.Typer(help="What was not accepted, and why.", no_args_is_help=True)
app.add_typer(quarantine, name="quarantine")

_RAW_SHOWN = 60


@quarantine.command("list")
def list_entries(
    run_id: Annotated[str | None, typer.Option("--run", help="Of this run alone.")] = None,
    code: Annotated[str | None, typer.Option(help="With this code alone.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Show at most so many; 0 shows all.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, with the whole raw text.")] = False,
) -> None:
    """Show what is in the quarantine: where it came from and why it was not accepted."""
    held = Quarantine(load_settings().home / "quarantine")
    shown, codes = 0, Counter[str]()
    for entry in held.entries(run_id):
        if code is not None and entry.code != code:
            continue
        codes[entry.code] += 1
        if limit and shown >= limit:
            continue
        shown += 1
        if as_json:
            print(json.dumps(dataclasses.asdict(entry), ensure_ascii=False))
        else:
            raw = entry.raw[:_RAW_SHOWN] + ("..." if len(entry.raw) > _RAW_SHOWN else "")
            print(f"{entry.entry_id[:12]}  {entry.source}:{entry.line}  {entry.code}: {entry.message}\n    {raw!r}")
    if not as_json:
        told = ", ".join(f"{count} {name}" for name, count in codes.most_common())
        print(f"{codes.total():,} in the quarantine" + (f" ({shown:,} shown): {told}" if told else ""))


@quarantine.command()
def replay(
    entry_id: Annotated[
        list[str] | None, typer.Argument(help="Entries, or the beginning of their ids; all if none.")
    ] = None,
) -> None:
    """Take quarantined records through the flow again, after the code or the catalogue was mended.

    What is accepted now leaves the quarantine; what is not comes back with its new reason.
    """
    home = load_settings().home
    held = Quarantine(home / "quarantine")
    wanted = None
    if entry_id:
        wanted = {e.entry_id for e in held.entries() if any(e.entry_id.startswith(start) for start in entry_id)}
    path = home / "quarantine" / f"replay-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.jsonl"
    chosen = held.write_replay(path, wanted)
    try:
        if not chosen:
            print("nothing to replay")
            return
        # All of them were rejected once: that many are again says nothing against the rest.
        run_to_end(module_argv("pipeline", str(path)), variables={"RECS_MAX_REJECT_SHARE": "1"})
        # Only now: had the run failed, they would still be here.
        print(f"replayed {held.settle(chosen):,} entries")
    finally:
        path.unlink(missing_ok=True)
