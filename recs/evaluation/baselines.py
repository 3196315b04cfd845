"""What the product is compared with. Arrays in, arrays out; the same scores every time.

A method takes a chunk of cases and returns finite scores, float64 (n_chunk, n_campaigns), higher is better. What two
campaigns score alike falls by id, which is the order of the columns. A method that knows nothing of a user ranks by
popularity.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recs.embed.vectors import unit
from recs.evaluation.arrays import Arrays
from recs.evaluation.split import Moment
from recs.ranking import ease_weights
from recs.ranking.components import SIMILARITY_POWER

Scores = NDArray[np.float64]
Cases = NDArray[np.intp]
Method = Callable[[Cases], Scores]

#: How many of the nearest users count.
KNN_USERS = 100
#: The literal few that are shown as the neighbourhood.
TOP_NEIGHBOURS = 5
#: The best of 16, 32 and 64, and of 0.01, 1 and 10, over the test users of two data sets together: in favour of the
#: baselines. Everything else is the package's default.
FACTORS = 16
ALS_REGULARISATION = 1.0
ALS_ITERATIONS = 15
BPR_ITERATIONS = 100


@dataclass(frozen=True, slots=True)
class Words:
    """Text vectors at length 1; rows of NaN for those who said nothing."""

    users: NDArray[np.float32]
    """(n_users, dim), aligned with the training users."""
    cases: NDArray[np.float32]
    """(n_cases, dim): the case's user, or the query where there is one."""


def random(arrays: Arrays, *, seed: int) -> Method:
    """Return a method that shuffles, each case on its own."""

    def score(cases: Cases) -> Scores:
        return np.stack([np.random.default_rng([seed, case]).random(arrays.n_campaigns) for case in cases.tolist()])

    return score


def popularity(arrays: Arrays) -> Method:
    """Return the number of training users who took a campaign."""
    takers = arrays.takers()
    return lambda cases: np.tile(takers, (len(cases), 1))


def popularity_before(arrays: Arrays) -> Method:
    """Return popularity as it was strictly before each case's held-out conversation.

    Training with other users' later conversations knows what will be popular; this does not. The same as popularity
    for a case without a moment.
    """
    earliest: dict[tuple[int, int], Moment] = {}
    for at, user, column in arrays.events:
        earliest.setdefault((user, column), at)  # they come from old to new
    moments = list(earliest.values())
    columns = np.array([column for _, column in earliest], dtype=np.intp)
    known = [len(moments) if before is None else bisect_left(moments, before) for before in arrays.before]

    def score(cases: Cases) -> Scores:
        counts = [np.bincount(columns[: known[case]], minlength=arrays.n_campaigns) for case in cases.tolist()]
        return np.array(counts, dtype=np.float64).reshape(len(cases), arrays.n_campaigns)

    return score


def popularity_by_category(arrays: Arrays) -> Method:
    """Return popularity weighed by the share of the user's campaigns that are of the campaign's categories.

    For somebody without campaigns, the categories that the conversation itself names. Popularity alone orders what is
    of no such category, below everything else.
    """
    takers = arrays.takers()
    floor = takers / (2.0 * max(1.0, takers.max(initial=0.0)) * max(1, len(arrays.user_ids)))

    def score(cases: Cases) -> Scores:
        liking = (_history(arrays, cases) @ arrays.categories).toarray() + arrays.hinted[cases].toarray()
        shares = liking / np.maximum(liking.sum(axis=1, keepdims=True), 1.0)
        return np.asarray((arrays.categories @ shares.T).T * takers + floor)

    return score


def repeat(arrays: Arrays) -> Method:
    """Return how often the user met a campaign, in any way: the naive repeat of what was mentioned or viewed."""

    def score(cases: Cases) -> Scores:
        return np.asarray(_rows(arrays.met, arrays.rows[cases]).toarray(), dtype=np.float64)

    return score


def item_knn(arrays: Arrays) -> Method:
    """Return the summed cosine of a campaign's takers with those of the user's campaigns.

    Source: B. Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001.
    """
    columns = _unit_rows(arrays.taken.T.tocsr())
    likeness = (columns @ columns.T).tolil()
    likeness.setdiag(0.0)
    likeness = likeness.tocsr()
    return _or_popularity(arrays, lambda cases: (_history(arrays, cases) @ likeness).toarray())


def user_knn(arrays: Arrays, *, neighbours: int = KNN_USERS) -> Method:
    """Return the summed cosine, on shared campaigns, of the most alike users who took a campaign.

    Source: J. Herlocker et al., An algorithmic framework for performing collaborative filtering, SIGIR 1999.
    """
    users = _unit_rows(arrays.taken)

    def score(cases: Cases) -> Scores:
        likeness = (_unit_rows(_history(arrays, cases)) @ users.T).toarray()
        return _from_nearest(likeness, arrays, cases, neighbours)

    return _or_popularity(arrays, score)


def user_knn_text(
    arrays: Arrays, words: Words, *, neighbours: int = KNN_USERS, power: float = SIMILARITY_POWER
) -> Method:
    """Return the summed similarity, to a power, of the users who talk most alike and took a campaign.

    Similarity is the cosine after the mean user is taken off.
    """
    centre = np.nanmean(words.users, axis=0) if len(words.users) else 0.0

    def score(cases: Cases) -> Scores:
        likeness = _cosines(words.cases[cases] - centre, words.users - centre)
        return _from_nearest(np.clip(likeness, 0.0, None) ** power, arrays, cases, neighbours)

    return _or_popularity(arrays, score)


def top5_neighbours(arrays: Arrays, words: Words) -> Method:
    """Return the summed cosine of the literal five users who talk most alike, as their vectors are.

    All that one of the five took alone scores the same; popularity orders that.
    """
    takers = arrays.takers()
    least = 1e-9 * takers / max(1.0, takers.max(initial=0.0))

    def score(cases: Cases) -> Scores:
        found = _from_nearest(_cosines(words.cases[cases], words.users), arrays, cases, TOP_NEIGHBOURS)
        return np.where(found > 0, found + least, 0.0)

    return _or_popularity(arrays, score)


def ease(arrays: Arrays) -> Method:
    """Return the scores of the item-to-item model that co-engagement is cut from, with all its links.

    Source: H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019.
    """
    engaged = np.flatnonzero(arrays.takers())
    weights = ease_weights(arrays.taken[:, engaged])

    def score(cases: Cases) -> Scores:
        found = np.zeros((len(cases), arrays.n_campaigns))
        found[:, engaged] = _history(arrays, cases)[:, engaged] @ weights
        return found

    return _or_popularity(arrays, score)


def als(arrays: Arrays, *, seed: int) -> Method:
    """Return the scores of matrix factorisation by alternating least squares on implicit feedback.

    Needs the package implicit. Source: Y. Hu, Y. Koren, C. Volinsky, Collaborative filtering for implicit feedback
    datasets, ICDM 2008.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    return _factorised(
        arrays,
        lambda: AlternatingLeastSquares(
            factors=FACTORS,
            regularization=ALS_REGULARISATION,
            iterations=ALS_ITERATIONS,
            random_state=seed,
            num_threads=1,
        ),
    )


def bpr(arrays: Arrays, *, seed: int) -> Method:
    """Return the scores of matrix factorisation that learns to order pairs.

    Needs the package implicit. Source: S. Rendle et al., BPR: Bayesian personalized ranking from implicit feedback,
    UAI 2009.
    """
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    def model() -> Any:
        return BayesianPersonalizedRanking(factors=FACTORS, iterations=BPR_ITERATIONS, random_state=seed, num_threads=1)

    return _factorised(arrays, model)


def _factorised(arrays: Arrays, make: Callable[[], Any]) -> Method:
    """Make and fit a model on one thread: more of them add up, and overwrite each other, in an order of their own.

    Made there too, because implicit warns where it finds more threads for arithmetic at that moment.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        model = make()
        model.fit(sparse.csr_matrix(arrays.taken, dtype=np.float32), show_progress=False)
        users, items = np.asarray(model.user_factors, np.float64), np.asarray(model.item_factors, np.float64)
    history = np.asarray(arrays.taken.sum(axis=1)) > 0

    def score(cases: Cases) -> Scores:
        rows = arrays.rows[cases]
        known = (rows >= 0) & history[rows]
        return np.where(known[:, None], users[rows] @ items.T, 0.0)

    return _or_popularity(arrays, score)


def _or_popularity(arrays: Arrays, method: Method) -> Method:
    takers = arrays.takers()

    def score(cases: Cases) -> Scores:
        found = method(cases)
        return np.where(found.any(axis=1, keepdims=True), found, takers)

    return score


def _history(arrays: Arrays, cases: Cases) -> sparse.csr_array:
    """Return what each case's user took in training, (n_chunk, n_campaigns); nothing for those who are not there."""
    return _rows(arrays.taken, arrays.rows[cases])


def _rows(matrix: sparse.csr_array, rows: NDArray[np.intp]) -> sparse.csr_array:
    known = np.flatnonzero(rows >= 0)
    pick = sparse.csr_array((np.ones(len(known)), (known, rows[known])), shape=(len(rows), matrix.shape[0]))
    return pick @ matrix


def _unit_rows(matrix: sparse.csr_array) -> sparse.csr_array:
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags_array(1.0 / np.where(norms == 0, 1.0, norms)).tocsr() @ matrix


def _cosines(queries: NDArray[np.floating], others: NDArray[np.floating]) -> Scores:
    """Return (n_queries, n_others), 0 where either said nothing."""
    found = unit(np.nan_to_num(queries)).astype(np.float64) @ unit(np.nan_to_num(others)).T.astype(np.float64)
    found[np.isnan(queries).any(axis=1)] = 0.0
    found[:, np.isnan(others).any(axis=1)] = 0.0
    return found


def _from_nearest(likeness: Scores, arrays: Arrays, cases: Cases, count: int) -> Scores:
    """Return the summed likeness, (n_chunk, n_users) in, of the nearest who took a campaign, ties by user id."""
    others = likeness.copy()
    inside = np.flatnonzero(arrays.rows[cases] >= 0)
    others[inside, arrays.rows[cases][inside]] = -np.inf
    nearest = np.argsort(-np.round(others, 12), axis=1, kind="stable")[:, :count]
    weights = np.take_along_axis(others, nearest, axis=1)
    weights = np.where(weights > 0, weights, 0.0)
    shape = likeness.shape
    owner = np.repeat(np.arange(shape[0]), nearest.shape[1])
    pool = sparse.csr_array((weights.ravel(), (owner, nearest.ravel())), shape=shape)
    return np.asarray((pool @ arrays.taken).toarray())
