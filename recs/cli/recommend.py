"""`recs recommend`, `recs explain` and `recs audience`: answers, their evidence, and what they hang on."""

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
from recs.explain_what_if import describe_counterfactual, describe_explanation, describe_stability
from recs.model import Counterfactual, Explanation, Stability, TakenAway
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
def explain(
    user_id: Annotated[str | None, typer.Argument(help="A user.")] = None,
    campaign_id: Annotated[str | None, typer.Argument(help="A campaign of the user's list.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="What somebody said, instead of a user.")] = None,
    without_neighbour: Annotated[str | None, typer.Option(help="Take this user's evidence away.")] = None,
    without_conversation: Annotated[str | None, typer.Option(help="Take this conversation of the user away.")] = None,
    without_campaign: Annotated[str | None, typer.Option(help="As if the user had never met this campaign.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Campaigns that a list without something shows.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a list hangs on.

    USER_ID CAMPAIGN_ID: what the campaign's place hangs on, and which neighbours did not take it. With one --without:
    the list, or that campaign, without it. USER_ID or --text alone: how much of the first campaigns stays when single
    messages are left out.
    """
    if (user_id is None) == (not text):
        raise InputError("a USER_ID or --text is needed" if user_id is None else "give a USER_ID or --text, not both")
    options: dict[TakenAway, str | None] = {
        "neighbour": without_neighbour,
        "conversation": without_conversation,
        "campaign": without_campaign,
    }
    without = [(what, its_id) for what, its_id in options.items() if its_id is not None]
    if len(without) > 1:
        raise InputError("one thing is taken away at a time: give one --without option")
    if without and user_id is None:
        raise InputError("what can be taken away belongs to a user: give a USER_ID, not --text")
    answer: Counterfactual | Explanation | Stability
    with _recommender() as recommender:
        if user_id is None:
            answer = recommender.stability_text(text or [])
            words = describe_stability(answer)
        elif without:
            answer = recommender.counterfactual(user_id, *without[0], campaign_id=campaign_id, k=k)
            words = describe_counterfactual(answer)
        elif campaign_id is not None:
            answer = recommender.explanation(user_id, campaign_id)
            words = describe_explanation(answer)
        else:
            answer = recommender.stability(user_id)
            words = describe_stability(answer)
    print(answer.model_dump_json(indent=1) if as_json else words)


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
