"""Validation folds inside the past: each asks what users took next, of what was known before."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recs.embed import conversation_vector, normalise_text, text_key
from recs.embed.vectors import unit
from recs.errors import InputError
from recs.evaluation.data import Dataset
from recs.evaluation.past import Past, Vectors
from recs.evaluation.split import Case, Split, leave_last_out, moment, texts_between
from recs.evaluation.tune import Fold
from recs.model import Action, StoredConversation
from recs.retrieval.signals import Signals
from recs.sampling import place
from recs.settings import Settings
from recs.stores.ports import CampaignNode

#: Each user's last conversation, the one before, and the one before that.
USER_FOLDS = 3
#: Shares of the conversations after which those that follow are asked about by their words.
TEXT_CUTS = ((0.8, 1.0), (0.6, 0.8))
#: Cases of one fold; more are sampled by their keys.
MOST_CASES = 400
#: Fewer say nothing.
LEAST_CASES = 10
#: A component that varies less does not vary.
LEAST_DEVIATION = 1e-9


@dataclass(frozen=True, slots=True)
class Learned:
    """What a fold is made of, whole."""

    conversations: Sequence[StoredConversation]
    vectors: Vectors
    """Of the conversations, by id."""
    nodes: Sequence[CampaignNode]
    """Sorted by id."""
    campaign_vectors: NDArray[np.float32]
    """(n_campaigns, dim); NaN where a campaign has no text."""
    texts: Vectors = field(default_factory=dict)
    """Of the users' messages, by their keys; needed for folds of texts alone."""
    predicted: Mapping[str, str] = field(default_factory=dict)
    """Intents of the conversations without a label."""

    def past(self, split: Split, settings: Settings) -> Past:
        return Past(split.train, self.vectors, self.nodes, self.campaign_vectors, settings, predicted=self.predicted)


def user_folds(learned: Learned, settings: Settings, actions: Collection[Action]) -> list[Fold]:
    """Return up to three folds: each user's last conversation with a positive is asked about, then the one before.

    Training of the second is that of the first with these conversations taken out, and so on: what the weights are
    tried on never lies after what they are tried with.
    """
    found: list[Fold] = []
    conversations = tuple(learned.conversations)
    for number in range(1, USER_FOLDS + 1):
        try:
            split = leave_last_out(Dataset(conversations, ()), actions)
        except InputError:
            break
        past = learned.past(split, settings)
        fold = _fold(f"last but {number}", past, split, actions, partial(_of_user, past))
        if fold is None:
            break
        found.append(fold)
        conversations = split.train
    return found


def text_folds(learned: Learned, settings: Settings, actions: Collection[Action]) -> list[Fold]:
    """Return up to two folds of conversations by themselves, asked by their words before the agent's last turn."""
    found: list[Fold] = []
    for start, end in TEXT_CUTS:
        try:
            split = texts_between(Dataset(tuple(learned.conversations), ()), actions, start, end)
        except InputError:
            continue
        past = learned.past(split, settings)
        ask = partial(_of_text, past, learned.texts, settings.max_text_chars)
        fold = _fold(f"texts {start:.0%} to {end:.0%}", past, split, actions, ask)
        if fold is not None:
            found.append(fold)
    return found


def _of_user(past: Past, case: Case) -> Signals:
    return past.signals(case.user_id)


def _of_text(past: Past, texts: Vectors, max_chars: int, case: Case) -> Signals | None:
    keys = [text_key(words) for text in case.query or () if (words := normalise_text(text, max_chars))]
    said = [texts[key] for key in keys if key in texts]
    return past.signals_of_text(unit(conversation_vector(np.stack(said)))) if said else None


def _fold(
    name: str,
    past: Past,
    split: Split,
    actions: Collection[Action],
    ask: Callable[[Case], Signals | None],
) -> Fold | None:
    catalogue = past.catalogue
    taken = past.taken_by(split, actions)
    cases = [c for c in split.cases if {t for t in c.targets if t in catalogue.position} - taken.get(c.user_id, set())]
    cases = heapq.nsmallest(MOST_CASES, cases, key=lambda c: place(c.key))
    cases.sort(key=lambda case: case.key)
    kept, raw = [], []
    for case in cases:
        signals = ask(case)
        if signals is not None:
            kept.append(case)
            raw.append(signals.raw.astype(np.float32))
    if len(kept) < LEAST_CASES:
        return None
    values = np.stack(raw)
    for component in range(values.shape[1]):
        known = values[:, component][np.isfinite(values[:, component])]
        deviation = float(known.std(dtype=np.float64)) if known.size else 0.0
        values[:, component] /= deviation if deviation > LEAST_DEVIATION else 1.0
    np.nan_to_num(values, copy=False, nan=0.0)
    targets = np.zeros((len(kept), len(catalogue)), dtype=np.bool_)
    unseen = np.ones_like(targets)
    for row, case in enumerate(kept):
        had = taken.get(case.user_id, set())
        unseen[row, [catalogue.position[c] for c in had]] = False
        targets[row, [catalogue.position[t] for t in case.targets if t in catalogue.position and t not in had]] = True
    moments = tuple(case.before or moment(case.held_out[0]) for case in kept)
    return Fold(name, values, targets, unseen, tuple(case.user_id for case in kept), moments)
