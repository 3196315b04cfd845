"""How good a ranking is, per test case. Arrays in, arrays out; ranks count from 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]
Order = NDArray[np.intp]

#: Beyond this many decimals scores of one method may differ between machines, and order must not.
DECIMALS = 12


def ranking(scores: Scores, allowed: Mask) -> Order:
    """Return the columns of each row from best to worst, (n_cases, n_campaigns), those not allowed last.

    Ties fall to the lower column: campaigns are in order of their ids. Raises ValueError for scores that are not
    finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite; a method that knows nothing of a campaign gives it its lowest score")
    return np.argsort(np.where(allowed, -np.round(scores, DECIMALS), np.inf), axis=1, kind="stable")


def top(order: Order, allowed: Mask, k: int) -> Order:
    """Return each row's first k columns, (n_cases, k'), -1 where fewer are allowed."""
    first = order[:, :k]
    return np.where(np.take_along_axis(allowed, first, axis=1), first, -1)


def quality(order: Order, relevant: Mask, ks: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Return per metric its value for each case, (n_cases,), in [0, 1].

    `order` is from `ranking`, `relevant` (n_cases, n_campaigns) says what was asked for, at least one per row and all
    of it allowed. `recall@k` is the share of the relevant among the first k; `hit_rate@k` whether any is; `ndcg@k` has
    gains of 1, discounts of log2(rank + 1), and the best possible order of min(k, relevant) as its ideal; `mrr` is 1
    over the rank of the first relevant one in the whole list. Raises ValueError for a row without a relevant campaign.

    Source of NDCG: K. Järvelin and J. Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002.
    """
    asked = relevant.sum(axis=1)
    if not asked.all():
        raise ValueError("a case without a relevant campaign has no quality; leave it out")
    hits = np.take_along_axis(relevant, order, axis=1)
    found: dict[str, NDArray[np.float64]] = {"mrr": np.asarray(1.0 / (hits.argmax(axis=1) + 1.0))}
    for k in ks:
        first = hits[:, :k]
        found[f"recall@{k}"] = np.asarray(first.sum(axis=1) / asked)
        found[f"hit_rate@{k}"] = np.asarray(first.any(axis=1), dtype=np.float64)
        found[f"ndcg@{k}"] = ndcg(first, asked)
    return found


def ndcg(hits: Mask, asked: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return NDCG of lists, (n_cases,): `hits` (n_cases, k) says which places are relevant, `asked` how many there are
    in all."""
    discounts = 1.0 / np.log2(np.arange(hits.shape[1]) + 2.0)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    return np.asarray(hits @ discounts / ideal[np.minimum(asked, hits.shape[1])])


def coverage(lists: Order, n_campaigns: int) -> float:
    """Return the share of the catalogue, in [0, 1], that is in anybody's list; `lists` are from `top`."""
    return float(np.unique(lists[lists >= 0]).size / n_campaigns) if n_campaigns else 0.0


def novelty(lists: Order, takers: NDArray[np.float64], n_users: int) -> NDArray[np.float64]:
    """Return per case the mean surprise, in bits, of what is in its list, (n_cases,); NaN for an empty list.

    Surprise is -log2 of the share of the training users who took the campaign, counted as one more than there are.
    `takers` is (n_campaigns,).

    Source: T. Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 2010.
    """
    surprise = -np.log2((takers + 1.0) / (n_users + 1.0))
    listed = lists >= 0
    count = listed.sum(axis=1)
    total = np.where(listed, surprise[lists], 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
