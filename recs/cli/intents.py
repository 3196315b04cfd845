"""`recs intents fit | show | evaluate` and `recs demand`: what conversations are about, and what no campaign is for."""

from __future__ import annotations

import json
import math
import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from recs.batch.intents import fit_intents
from recs.bootstrap import open_stores
from recs.cli.app import app
from recs.embed import Encoder, conversation_vector, normalise_text
from recs.errors import InputError, NotFoundError
from recs.figures import figures_object, write_figures
from recs.intents.classifier import SEED, IntentClassifier, fit
from recs.intents.kept import kept_classifier, weights_of
from recs.model import StoredConversation
from recs.settings import Settings, load_settings

intents_app = typer.Typer(help="What conversations without a label are taken for.", no_args_is_help=True)
app.add_typer(intents_app, name="intents")

_TRAIN, _TEST = ("train", "dev"), "test"
_HELD_BACK = 5
"""Without a field that splits, every fifth conversation of each intent is held back."""

OutOfScope = Annotated[
    list[str] | None, typer.Option(help="A label that stands for none of the intents; oos and out_of_scope by default.")
]


@intents_app.command("fit")
def fit_command() -> None:
    """Learn anew from the labelled conversations; the next `recs run` predicts the others' intents anew."""
    settings = load_settings()
    with (
        open_stores(settings, timeout_seconds=settings.load_timeout_seconds) as (_, stores),
        stores.state.run_lock(f"fit-intents-{uuid.uuid4().hex[:12]}"),
    ):
        generation = stores.state.generation()
        if generation is None:
            raise NotFoundError("nothing has been published yet; `recs run FILE --campaigns FILE` does, and fits")
        index = stores.vectors.open(generation.build)
        out_of_scope = settings.out_of_scope_intents
        found = fit_intents(stores, index, model=generation.model, out_of_scope=out_of_scope, again=True)
        waiting = len(set(stores.state.pending().values()))
    assert found is not None, "it was told to fit again"
    print(_described(found))
    print(f"`recs run` brings the edges of {waiting:,} users up to date and publishes")


@intents_app.command("show")
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print what the classifier in use was learned from, and how well it did on what it had not seen."""
    with open_stores(load_settings()) as (_, stores):
        generation = stores.state.generation()
        found = None if generation is None else kept_classifier(stores.state, generation.model)
    if found is None:
        raise NotFoundError("no classifier of intents was fitted yet; a run does where enough conversations have one")
    if as_json:
        facts = {
            "model": found.model,
            "threshold": found.threshold,
            "measured": dict(found.measured),
            "examples": dict(found.examples),
            "out_of_scope_examples": found.unknown,
        }
        print(json.dumps(facts, indent=1))
    else:
        print(_described(found))


def _described(found: IntentClassifier) -> str:
    measured = ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in found.measured.items())
    return (
        f"{len(found.labels)} intents from {sum(found.examples.values()):,} labelled conversations"
        f"{f' and {found.unknown:,} out of scope' if found.unknown else ''}, over {found.model}\n"
        f"cross-validated: {measured}; abstains below {found.threshold:.3f}"
    )


@intents_app.command("evaluate")
def evaluate_command(
    conversations: Annotated[Path, typer.Argument(help="Labelled: JSON, JSON Lines, CSV or Parquet.")],
    split_field: Annotated[
        str | None, typer.Option(help="Train where this field says train (or dev), test where it says test.")
    ] = None,
    out_of_scope: OutOfScope = None,
    shots: Annotated[
        int | None, typer.Option(min=10, help="Train on so many conversations of each intent alone.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of whatever is drawn.")] = SEED,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measure how well intents are recognised on conversations that were held back. Needs no server."""
    from recs.evaluation.data import read_conversations, sha256
    from recs.intents.measure import evaluate

    if not conversations.is_file():
        raise InputError(f"{conversations} is no file; a file of records is needed")
    settings = load_settings()
    found, _ = read_conversations(conversations, set(), max_record_bytes=settings.max_record_bytes)
    labelled = [s for s in found if s.conversation.intent]
    train, test = _split(labelled, split_field)
    if shots is not None:
        train = _drawn(train, shots, seed)
    if not train or not test:
        raise InputError(f"{len(train):,} to learn from and {len(test):,} to test: both are needed")
    print(f"{len(train):,} to learn from, {len(test):,} to test; encoding", file=sys.stderr, flush=True)
    encoder = Encoder.load(settings)
    train, learned = _embedded(encoder, settings, train)
    test, asked = _embedded(encoder, settings, test)
    labels = [s.conversation.intent or "" for s in train]
    model = weights_of(encoder.identity)
    classifier = fit(learned, labels, model=model, out_of_scope=out_of_scope, seed=seed)
    result = evaluate(
        classifier, asked, [s.conversation.intent or "" for s in test], out_of_scope=out_of_scope, seed=seed
    )
    figures: dict[str, float] = {
        "train": len(train),
        "test": len(test),
        "intents": len(classifier.labels),
        "threshold": classifier.threshold,
        **{f"cross_validated.{name}": value for name, value in classifier.measured.items()},
    }
    for name, interval in result.figures.items():
        if not math.isnan(interval.mean):
            values = (round(v, 6) for v in interval)
            figures |= dict(zip((name, f"{name}.low", f"{name}.high"), values, strict=True))
    _print(classifier, result, figures)
    if json_out is not None:
        data = [
            {
                "path": f"{conversations.resolve().parent.name}/{conversations.name}",
                "sha256": sha256(conversations),
                "rows": len(found),
            }
        ]
        content = figures_object("recs intents evaluate", figures, data=data)
        more = {"model": encoder.identity, "split_field": split_field, "shots": shots, "seed": seed}
        write_figures(json_out, {**content, "protocol": more, **_frames(result)})


def _split(
    labelled: Sequence[StoredConversation], field: str | None
) -> tuple[list[StoredConversation], list[StoredConversation]]:
    if field is None:
        met: Counter[str] = Counter()
        train: list[StoredConversation] = []
        test: list[StoredConversation] = []
        for stored in labelled:
            intent = stored.conversation.intent or ""
            met[intent] += 1
            (test if met[intent] % _HELD_BACK == 0 else train).append(stored)
        return train, test
    values = [(stored, (stored.conversation.model_extra or {}).get(field)) for stored in labelled]
    if not any(value is not None for _, value in values):
        raise InputError(f"no conversation has a field {field!r} to split by")
    return [s for s, v in values if v in _TRAIN], [s for s, v in values if v == _TEST]


def _drawn(train: Sequence[StoredConversation], shots: int, seed: int) -> list[StoredConversation]:
    by_intent: dict[str, list[int]] = {}
    for i, stored in enumerate(train):
        by_intent.setdefault(stored.conversation.intent or "", []).append(i)
    rng = np.random.default_rng(seed)
    kept = [rng.permutation(rows)[:shots] for _, rows in sorted(by_intent.items())]
    return [train[i] for i in sorted(np.concatenate(kept).tolist())] if kept else []


def _embedded(
    encoder: Encoder, settings: Settings, conversations: Sequence[StoredConversation]
) -> tuple[list[StoredConversation], NDArray[np.float32]]:
    """Return those in which the user said something, and their vectors (n, dim)."""
    said = [
        [w for t in s.conversation.user_texts() if (w := normalise_text(t, settings.max_text_chars))]
        for s in conversations
    ]
    distinct = list(dict.fromkeys(word for words in said for word in words))
    vector = dict(zip(distinct, encoder.encode(distinct), strict=True))
    kept = [(s, words) for s, words in zip(conversations, said, strict=True) if words]
    rows = [conversation_vector(np.stack([vector[w] for w in words])) for _, words in kept]
    return [s for s, _ in kept], np.stack(rows) if rows else np.empty((0, encoder.dim), dtype=np.float32)


def _print(classifier: IntentClassifier, result: Any, figures: dict[str, float]) -> None:
    from recs.intents.measure import most_confused, per_intent

    print(_described(classifier))
    console = Console() if sys.stdout.isatty() else Console(width=120)
    table = Table("held back", "value", "95% interval")
    for name in result.figures:
        if name in figures:
            interval = f"{figures[f'{name}.low']:.4f} to {figures[f'{name}.high']:.4f}"
            table.add_row(name.replace("_", " "), f"{figures[name]:.4f}", interval)
    console.print(table)
    table = Table("taken for another", "as", "times", "share")
    for row in most_confused(result.truth, result.predicted, n=10).itertuples():
        table.add_row(str(row.intent), str(row.predicted), str(row.count), f"{row.share:.1%}")
    console.print(table)
    table = Table("least recognised", "conversations", "answered", "recall", "precision")
    worst = per_intent(result.truth, result.predicted).sort_values("recall", kind="stable").head(10)
    for name, count, *shares in worst.itertuples(name=None):
        table.add_row(str(name), f"{count:,}", *("" if math.isnan(share) else f"{share:.1%}" for share in shares))
    console.print(table)


def _frames(result: Any) -> dict[str, Any]:
    from recs.intents.measure import most_confused, per_intent

    frames = {
        "per_intent": per_intent(result.truth, result.predicted).reset_index(),
        "most_confused": most_confused(result.truth, result.predicted),
    }
    return {name: json.loads(frame.to_json(orient="records")) for name, frame in frames.items()}


@app.command()
def demand(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print demand with no campaign: what conversations are about that no active campaign is meant for."""
    from recs.intents.demand import unmet_demand

    settings = load_settings()
    with open_stores(settings, timeout_seconds=settings.load_timeout_seconds) as (_, stores):
        report = unmet_demand(stores, settings)
    print(json.dumps(report.as_dict(), indent=1) if as_json else report.text())
