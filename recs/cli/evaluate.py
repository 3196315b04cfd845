"""`recs evaluate`: the served ranking and every baseline on conversations that were held back."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from recs import embedded
from recs.bootstrap import connect
from recs.cli.app import app
from recs.cli.temporary_home import load_through_flow, temporary_home
from recs.embed import LazyEncoder
from recs.errors import InputError, RunError
from recs.evaluation import (
    Arrays,
    Dataset,
    Evaluation,
    Split,
    arrays_of,
    baseline_methods,
    check_leaks,
    evaluate,
    leave_last_out,
    read_dataset,
    split_at_quantile,
    split_by_field,
)
from recs.evaluation.data import read_conversations, sha256
from recs.evaluation.evaluate import SEED, SERVED, missing_methods
from recs.evaluation.report import print_report, protocol_card, reliability
from recs.evaluation.served import hybrid, require_unseen, words_of
from recs.figures import figures_object, write_figures
from recs.model import ACTIONS, Action
from recs.retrieval import Recommender
from recs.settings import Settings


@app.command("evaluate")
def evaluate_command(
    conversations: Annotated[Path, typer.Argument(help="JSON, JSON Lines, CSV or Parquet.")],
    campaigns: Annotated[Path, typer.Option(help="The campaign catalogue, all of which is ranked.")],
    positive: Annotated[str, typer.Option(help="Actions that count as taking a campaign.")] = "like,convert",
    split_field: Annotated[
        str | None, typer.Option(help="Train where this field says dev (or train), test where it says test.")
    ] = None,
    time_quantile: Annotated[
        float | None, typer.Option(help="Test on all conversations from this quantile of their times on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of whatever is drawn.")] = SEED,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Compare the served ranking with every baseline on conversations that were held back.

    Works in a temporary home. By default each user's last conversation with a positive engagement is the test.
    """
    actions = _actions(positive)
    if split_field is not None and time_quantile is not None:
        raise InputError("--split-field and --time-quantile are two ways to split; give one")
    for path in (conversations, campaigns):
        if not path.is_file():
            raise InputError(f"{path} is no file; a file of records is needed")
    missing = missing_methods()
    if missing:
        _tell(f"without {' and '.join(missing)}: the package implicit is not installed (the extra `evaluation` has it)")
    began = time.monotonic()
    with temporary_home("recs-evaluate-") as settings:
        data = read_dataset(conversations, campaigns, max_record_bytes=settings.max_record_bytes)
        if split_field is not None:
            split = split_by_field(data, actions, split_field)
        elif time_quantile is not None:
            split = split_at_quantile(data, actions, time_quantile)
        else:
            split = leave_last_out(data, actions)
        asked = {"split_field": split_field, "time_quantile": time_quantile, "not_installed": missing or None}
        arrays = arrays_of(split, data.campaigns, actions)
        _tell(
            f"{len(split.cases):,} to test, {len(split.train):,} conversations to learn from, which go through the flow"
        )
        found, more = _evaluated(settings, data, split, arrays, campaigns, seed)
        described = [
            {"path": f"{path.resolve().parent.name}/{path.name}", "sha256": sha256(path), "rows": rows}
            for path, rows in ((conversations, len(data.conversations)), (campaigns, len(data.campaigns)))
        ]
        chosen = {name: value for name, value in asked.items() if value is not None}
        card = protocol_card(split, arrays, found, positive=actions, seed=seed, data=described, more={**chosen, **more})
    figures = found.figures
    figures["seconds"] = round(time.monotonic() - began, 3)
    figures.update({f"seconds.{name}": round(taken, 3) for name, taken in found.seconds.items()})
    _tell(
        f"{figures['seconds']:.0f} s in all: {figures['seconds.flow']:.0f} servers and flow, with the encoding; "
        f"{figures['seconds.evaluate']:.0f} scoring and judging, {figures[f'seconds.{SERVED}']:.0f} of it {SERVED}"
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width of its own
    print_report(found, card, console)
    if json_out is not None:
        per_user = {name: values.tolist() for name, values in found.per_case.items()}
        content = figures_object("recs evaluate", found.figures, data=described, samples=per_user)
        write_figures(json_out, {**content, "calibration": reliability(found), "protocol": card})


def _evaluated(
    settings: Settings, data: Dataset, split: Split, arrays: Arrays, campaigns: Path, seed: int
) -> tuple[Evaluation, dict[str, Any]]:
    """Publish the training part in the temporary home, and evaluate there; returns what the card says of it, too."""
    train = settings.home / "train.jsonl"
    with train.open("wb") as file:
        for stored in split.train:
            file.write(stored.conversation.model_dump_json().encode() + b"\n")
    known = {c.campaign_id for c in data.campaigns}
    written = read_conversations(train, known, max_record_bytes=settings.max_record_bytes)[0]
    if [s.conversation for s in written] != [s.conversation for s in split.train]:
        raise RunError("the training part is read back otherwise than it was written; nothing can be learned from it")
    check_leaks(written, split)
    began = time.monotonic()
    with embedded.session(settings) as resolved:
        load_through_flow(settings, train, campaigns)
        loaded = time.monotonic()
        stores = connect(resolved, timeout_seconds=resolved.load_timeout_seconds)
        encoder = LazyEncoder(settings)
        recommender = Recommender(stores, resolved, encoder=lambda: encoder)
        try:
            require_unseen(stores, split)
            generation = stores.state.generation()
            if generation is None:
                raise RunError("the flow has published nothing")
            _tell("scoring")
            words = words_of(stores, generation, recommender, split, arrays)
            methods = {SERVED: hybrid(recommender, arrays, split.cases), **baseline_methods(arrays, words, seed=seed)}
            weights = {**generation.weights, **(settings.weights or {})}
            more = {"model": generation.model, "weights": weights, "neighbour_pool": resolved.neighbour_pool}
            found = evaluate(arrays, methods, seed=seed)
            found.figures |= {
                "seconds.flow": round(loaded - began, 3),
                "seconds.evaluate": round(time.monotonic() - loaded, 3),
            }
            return found, more
        finally:
            recommender.close()
            stores.close()


def _actions(given: str) -> list[Action]:
    named = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in named if name not in ACTIONS]
    if unknown or not named:
        raise InputError(f"--positive {given!r}: one or more of {', '.join(ACTIONS)} is allowed")
    return [action for action in ACTIONS if action in named]


def _tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)
