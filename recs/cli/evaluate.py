"""`recs evaluate`: the served ranking and every baseline on conversations that were held back."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from recs import embedded
from recs.batch.fits import Who, keep_fit
from recs.bootstrap import Stores, connect, open_state
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
from recs.evaluation.learning import learn_weights
from recs.evaluation.report import keep_evaluation, print_report, protocol_card, reliability
from recs.evaluation.served import hybrid, require_unseen, words_of
from recs.figures import figures_object, write_figures
from recs.model import ACTIONS, Action, Generation
from recs.retrieval import Recommender
from recs.settings import Settings, load_settings


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
    default_weights: Annotated[
        bool, typer.Option("--default-weights", help="Do not learn weights from the training part.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of whatever is drawn.")] = SEED,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the result, for the workbench's page Quality.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Compare the served ranking with every baseline on conversations that were held back.

    Works in a temporary home. By default each user's last conversation with a positive engagement is the test. The
    weights are learned inside the training part.
    """
    actions = actions_of(positive)
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
        learn = None if default_weights or settings.weights else actions
        found, more = _evaluated(settings, data, split, arrays, campaigns, seed, learn)
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
        f"{figures['seconds.tune']:.0f} learning weights; "
        f"{figures['seconds.evaluate']:.0f} scoring and judging, {figures[f'seconds.{SERVED}']:.0f} of it {SERVED}"
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width of its own
    print_report(found, card, console)
    per_user = {name: values.tolist() for name, values in found.per_case.items()}
    content = figures_object("recs evaluate", found.figures, data=described, samples=per_user)
    content |= {"calibration": reliability(found), "protocol": card}
    if keep:
        with open_state(load_settings()) as state:
            keep_evaluation(state, content)
    if json_out is not None:
        write_figures(json_out, content)


def _evaluated(
    settings: Settings,
    data: Dataset,
    split: Split,
    arrays: Arrays,
    campaigns: Path,
    seed: int,
    learn: Sequence[Action] | None,
) -> tuple[Evaluation, dict[str, Any]]:
    """Publish the training part in the temporary home, and evaluate there; returns what the card says of it, too.

    `learn` are the actions that weights are learned for, from what was published; None leaves the default.
    """
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
            fit = None if learn is None else _learn(settings, resolved, stores, split, learn, seed)
            learned = time.monotonic()
            generation = _published(stores)
            _tell("scoring")
            words = words_of(stores, generation, recommender, split, arrays)
            methods = {SERVED: hybrid(recommender, arrays, split.cases), **baseline_methods(arrays, words, seed=seed)}
            weights = {**generation.weights, **(settings.weights or {})}
            more = {
                "model": generation.model,
                "weights": weights,
                "text_weights": dict(generation.text_weights) or None,
                "fit": fit,
                "neighbour_pool": resolved.neighbour_pool,
            }
            found = evaluate(arrays, methods, seed=seed)
            found.figures |= {
                "seconds.flow": round(loaded - began, 3),
                "seconds.tune": round(learned - loaded, 3),
                "seconds.evaluate": round(time.monotonic() - learned, 3),
            }
            return found, more
        finally:
            recommender.close()
            stores.close()


def _learn(
    settings: Settings, resolved: Settings, stores: Stores, split: Split, actions: Sequence[Action], seed: int
) -> dict[str, Any]:
    """Learn weights from the training part, which is all that the stores hold, and publish with them if they are new.

    Returns what is to be known of the fit.
    """
    _tell("learning weights")
    who: Who = "users" if split.cases[0].query is None else "texts"
    _, told = learn_weights(stores, resolved, _published(stores), actions=actions, seed=seed, who=who)
    if told["steps"]:
        keep_fit(stores.state, who, told)
        load_through_flow(settings)
    return told


def _published(stores: Stores) -> Generation:
    generation = stores.state.generation()
    if generation is None:
        raise RunError("the flow has published nothing")
    return generation


def actions_of(given: str) -> list[Action]:
    """Return the actions that an option names, comma between them; InputError for what is none."""
    named = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in named if name not in ACTIONS]
    if unknown or not named:
        raise InputError(f"--positive {given!r}: one or more of {', '.join(ACTIONS)} is allowed")
    return [action for action in ACTIONS if action in named]


def _tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)
