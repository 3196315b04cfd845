"""The ranking that is served, for test cases: the recommender's own scores, from stores that hold training alone."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np

from recs.bootstrap import Stores
from recs.embed import normalise_text
from recs.embed.vectors import unit
from recs.errors import LeakError, RunError
from recs.evaluation.arrays import Arrays
from recs.evaluation.baselines import Method, Scores, Words
from recs.evaluation.split import Case, Split
from recs.model import Generation
from recs.retrieval import Recommender

_BATCH = 500


def require_unseen(stores: Stores, split: Split) -> None:
    """Raise LeakError where the stores hold a held-out conversation."""
    held_out = [s.conversation.conversation_id for case in split.cases for s in case.held_out]
    for start in range(0, len(held_out), _BATCH):
        for stored in stores.documents.get(held_out[start : start + _BATCH]):
            raise LeakError(f"the stores hold conversation {stored.conversation.conversation_id!r}, which is held out")


def hybrid(recommender: Recommender, arrays: Arrays, cases: Sequence[Case]) -> Method:
    """Return the scores that `recommend` and `recommend_text` rank by, for the whole catalogue.

    The filters of serving (campaign status and dates, consent, frequency cap) are not applied: what may be ranked is
    up to the protocol, and the same for every method. The scorer raises RunError where a store did not answer or the
    stores hold another catalogue.
    """

    def one(case: Case) -> Scores:
        if case.query is None:
            signals, scored = recommender.score(case.user_id)
        elif has_words(case.query):
            signals, scored = recommender.score_text(case.query)
        else:
            signals, scored = recommender.score(f"nobody-{uuid.uuid4().hex}")
        if signals.degraded:
            raise RunError(f"case {case.key!r} was scored without {', '.join(sorted(signals.degraded))}")
        if scored.ids != arrays.campaign_ids:
            raise RunError("the stores hold another catalogue than the one that is evaluated")
        return scored.scores

    return lambda chunk: np.stack([one(cases[i]) for i in chunk.tolist()])


def words_of(stores: Stores, generation: Generation, recommender: Recommender, split: Split, arrays: Arrays) -> Words:
    """Return the vectors of training users and of cases, from the conversation vectors that the flow has stored.

    A user's is the plain mean: what serving does beyond that, such as weighing by recency, is for the served ranking
    to gain by.
    """
    index = stores.vectors.open(generation.build, lagging=True)
    row = {user_id: i for i, user_id in enumerate(arrays.user_ids)}
    owner = {s.conversation.conversation_id: row[s.conversation.user_id] for s in split.train}
    total = np.zeros((len(row), len(generation.centre)))
    count = np.zeros(len(row))
    ids = list(owner)
    for start in range(0, len(ids), _BATCH):
        found = index.get("conversations", ids[start : start + _BATCH])
        for conversation_id in ids[start : start + _BATCH]:
            if conversation_id in found:
                total[owner[conversation_id]] += found[conversation_id]
                count[owner[conversation_id]] += 1
    users = np.where(count[:, None] > 0, unit(total), np.float32(np.nan))
    asked = np.full((len(split.cases), users.shape[1]), np.nan, dtype=np.float32)
    for i, case in enumerate(split.cases):
        if case.query is None and arrays.rows[i] >= 0:
            asked[i] = users[arrays.rows[i]]
        elif case.query is not None and has_words(case.query):
            asked[i] = recommender.embed(case.query)
    return Words(users, asked)


def has_words(texts: Sequence[str]) -> bool:
    """Return whether there is anything to embed in a query."""
    return any(normalise_text(text, 1_000) for text in texts)
