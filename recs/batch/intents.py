"""The classifier of intents in a run: fitted once from the labelled conversations, then asked about the others.

Raw conversations stay as they are: what is predicted lives on the edges of the graph alone, apart from the labels.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

from recs.bootstrap import Stores
from recs.intents.classifier import IntentClassifier, enough, fit
from recs.intents.kept import is_kept, keep_classifier, kept_classifier, weights_of
from recs.model import StoredConversation
from recs.sampling import Sample
from recs.stores.ports import VectorIndex

T = TypeVar("T")

#: Examples of one intent, and of all, that are learned from; those beyond are left out by their ids' hashes.
EXAMPLES_PER_INTENT = 500
EXAMPLES = 30_000
_BATCH = 1_000

#: Marks a user whose edges must be computed again because another classifier is in use. As `_MOVED_FROM` of
#: `recs.batch.raw`, it cannot be the id of a conversation.
_OTHER_CLASSIFIER = "\x1fother-classifier\x1f"


class Predictor:
    """Tells the intents of conversations that have no label. For several threads."""

    def __init__(self, stores: Stores, index: VectorIndex, model: str) -> None:
        """`model` is the identity of the encoder of the index's vectors. Nothing is read before the first question."""
        self._stores = stores
        self._index = index
        self._model = model
        self._lock = threading.Lock()
        self._classifier: list[IntentClassifier | None] = []

    @property
    def classifier(self) -> IntentClassifier | None:
        """The classifier that was kept when this was asked first."""
        with self._lock:
            if not self._classifier:
                self._classifier.append(kept_classifier(self._stores.state, self._model))
            return self._classifier[0]

    def intents(self, conversations: Sequence[StoredConversation]) -> dict[str, str]:
        """Return the intent of each conversation that has neither a label nor makes the classifier abstain, by id."""
        ids = [s.conversation.conversation_id for s in conversations if not s.conversation.intent]
        classifier = self.classifier
        if classifier is None or not ids:
            return {}
        vectors = self._index.get("conversations", ids)
        known = [i for i in ids if i in vectors]
        if not known:
            return {}
        found = classifier.predict(np.stack([vectors[i] for i in known]))
        return {i: p.intent for i, p in zip(known, found, strict=True) if p.intent is not None}


def fit_intents(
    stores: Stores, index: VectorIndex, *, model: str, out_of_scope: Collection[str] | None = None, again: bool = False
) -> IntentClassifier | None:
    """Fit the classifier from all labelled conversations, keep it, and note whom it concerns as pending.

    None where there is one already, unless `again`, and where too few are labelled, unless `again`: then InputError
    says what is lacking. The users are noted before the classifier is kept: whatever ends the process in between, the
    next run fits once more. Conversations of users who opted out of profiling are not learned from. Only for who holds
    the right to run.
    """
    if not again and is_kept(stores.state, model):
        return None
    examples, users = _examples(stores)
    ids = sorted(examples)
    if not again and not enough([examples[i] for i in ids], out_of_scope):
        return None
    vectors = {i: v for chunk in _chunks(ids, _BATCH) for i, v in index.get("conversations", chunk).items()}
    ids = [i for i in ids if i in vectors]
    labels = [examples[i] for i in ids]
    if not again and not enough(labels, out_of_scope):
        return None
    dim = len(next(iter(vectors.values()))) if vectors else 0
    matrix = np.stack([vectors[i] for i in ids]) if ids else np.empty((0, dim), dtype=np.float32)
    classifier = fit(matrix, labels, model=weights_of(model), out_of_scope=out_of_scope)
    pending = set(stores.state.pending().values())
    for chunk in _chunks(sorted(users - pending), 10 * _BATCH):
        stores.state.add_pending({_OTHER_CLASSIFIER + user: user for user in chunk})
    stores.state.mark_dirty()
    keep_classifier(stores.state, classifier)
    return classifier


def _examples(stores: Stores) -> tuple[dict[str, str], set[str]]:
    """Return the labelled conversations to learn from, and the users who have one without a label."""
    excluded = stores.state.profiling_opt_outs()
    by_intent: dict[str, Sample] = {}
    users: set[str] = set()
    for stored in stores.documents.scan(texts=False):
        c = stored.conversation
        if not c.intent:
            users.add(c.user_id)
        elif c.user_id not in excluded:
            by_intent.setdefault(c.intent, Sample(EXAMPLES_PER_INTENT)).add(c.conversation_id)
    share = max(1, EXAMPLES // max(1, len(by_intent)))
    return {i: intent for intent, kept in by_intent.items() for i in kept.first(share)}, users


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
