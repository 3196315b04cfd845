"""`recs recommend` and `recs audience`: answers, with their evidence."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from recs.bootstrap import open_stores
from recs.cli.app import app
from recs.embed import Encoder
from recs.errors import InputError
from recs.explain import describe_recommendations
from recs.retrieval import Recommender
from recs.settings import load_settings


@contextmanager
def _recommender() -> Iterator[Recommender]:
    settings = load_settings()
    with open_stores(settings) as (resolved, stores):
        recommender = Recommender(stores, resolved, encoder=lambda: Encoder.load(resolved))
        try:
            yield recommender
        finally:
            recommender.close()


@app.command()
def recommend(
    user_id: Annotated[str | None, typer.Argument(help="A user.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="What somebody said, instead of a user.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many campaigns.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the response of the REST sidecar.")] = False,
) -> None:
    """Print ranked campaigns for a user or a text, with breakdown and evidence."""
    if (user_id is None) == (not text):
        raise InputError("a USER_ID or --text is needed" if user_id is None else "give a USER_ID or --text, not both")
    with _recommender() as recommender:
        answer = (
            recommender.recommend(user_id, k=k) if user_id is not None else recommender.recommend_text(text or [], k=k)
        )
    print(answer.model_dump_json(indent=1) if as_json else describe_recommendations(answer))


@app.command()
def audience(
    campaign_id: str,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    csv_out: Annotated[Path | None, typer.Option("--csv", help="Write the audience here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print who should get a campaign, best first."""
    with _recommender() as recommender:
        found = recommender.audience(campaign_id, limit=limit)
    if csv_out is not None:
        with csv_out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            components = [part.component for part in found.members[0].breakdown] if found.members else []
            writer.writerow(["rank", "user_id", "score", *components, "campaign_id", "generation"])
            for member in found.members:
                shares = [part.contribution for part in member.breakdown]
                row = [member.rank, _safe(member.user_id), member.score, *shares, _safe(campaign_id), found.generation]
                writer.writerow(row)
        print(f"{len(found.members):,} users written to {csv_out}", file=sys.stderr)
    elif as_json:
        print(found.model_dump_json(indent=1))
    else:
        print(f"{found.name} ({found.campaign_id}): {len(found.members):,} of {found.considered:,} users considered")
        for member in found.members:
            parts = ", ".join(f"{p.component} {p.contribution:+.3f}" for p in member.breakdown if p.contribution)
            print(f"{member.rank:4}. {member.user_id}  {member.score:.3f}  ({parts})")
        for reason, count in found.suppressed.items():
            print(f"left out for {reason}: {count:,}")
    if found.degraded:
        print(f"without: {', '.join(found.degraded)}", file=sys.stderr)


def _safe(cell: str) -> str:
    """Return a cell that a spreadsheet does not execute."""
    return f"'{cell}" if cell[:1] in "=+-@\t\r" else cell
