"""Weights learned from what the stores hold."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from recs.batch.fits import Who
from recs.batch.intents import Predictor
from recs.bootstrap import Stores
from recs.embed import normalise_text, text_key
from recs.evaluation.folds import Learned, text_folds, user_folds
from recs.evaluation.tune import Fit, fit_weights
from recs.figures import versions
from recs.model import Action, Generation
from recs.ranking import DEFAULT_WEIGHTS
from recs.retrieval.catalogue import load_catalogue
from recs.settings import Settings
from recs.stores.ports import VectorIndex

T = TypeVar("T")

_BATCH = 1_000


def learn_weights(
    stores: Stores,
    settings: Settings,
    generation: Generation,
    *,
    actions: Collection[Action],
    seed: int,
    who: Who = "users",
) -> tuple[Fit, dict[str, Any]]:
    """Fit weights to what the stores hold; returns the fit, and all that is to be known of it as JSON. Keeps nothing.

    Conversations of users who opted out of profiling are not learned from. Holds all conversations in memory, for
    `users` without their texts. `who` = "texts" learns from conversations asked by their own words, and fits what is
    said there to what was taken there: right where people say what they want before they are offered it, wrong where
    they name what they took.
    """
    index = stores.vectors.open(generation.build)
    learned = read_learned(stores, settings, generation, index, texts=who == "texts")
    folds = (user_folds if who == "users" else text_folds)(learned, settings, actions)
    fit = fit_weights(folds, DEFAULT_WEIGHTS, seed=seed)
    data = {
        "generation": generation.number,
        "conversations": len(learned.conversations),
        "users": len({s.conversation.user_id for s in learned.conversations}),
        "campaigns": len(learned.nodes),
        "positive": sorted(actions),
        "model": generation.model,
        "seed": seed,
    }
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return fit, {"at": at, "data": data, "versions": versions(), **json.loads(json.dumps(asdict(fit)))}


def read_learned(
    stores: Stores, settings: Settings, generation: Generation, index: VectorIndex, *, texts: bool
) -> Learned:
    excluded = stores.state.profiling_opt_outs()
    conversations = [s for s in stores.documents.scan(texts=texts) if s.conversation.user_id not in excluded]
    ids = [s.conversation.conversation_id for s in conversations]
    predictor = Predictor(stores, index, generation.model)
    catalogue = load_catalogue(stores, generation)
    keys: set[str] = set()
    if texts:
        said = (text for s in conversations for text in s.conversation.user_texts())
        keys = {text_key(words) for text in said if (words := normalise_text(text, settings.max_text_chars))}
    return Learned(
        conversations,
        {i: v for chunk in _chunks(ids) for i, v in index.get("conversations", chunk).items()},
        catalogue.nodes,
        catalogue.vectors,
        texts={k: v for chunk in _chunks(sorted(keys)) for k, v in index.get("texts", chunk).items()},
        predicted={i: name for chunk in _chunks(conversations) for i, name in predictor.intents(chunk).items()},
    )


def _chunks(items: Sequence[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, _BATCH)):
        yield chunk
