"""Whether a score means the same for every user: an audience puts the scores of different users side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recs.evaluation.metrics import DECIMALS, Mask, Order, Scores

BINS = 10
#: Draws that the error by chance is the mean of.
DRAWS = 200
#: At most so many (case, campaign) pairs are looked at per method, 80 MB of scores: of more, cases are drawn.
MAX_PAIRS = 10_000_000


class Bin(NamedTuple):
    """Places of the lists that belong together, such as those whose scores are alike."""

    score_from: float
    score_to: float
    """The lowest and the highest score among them."""
    predicted: float
    """Mean predicted share of hits, in [0, 1]."""
    observed: float
    """Share of hits that there were."""
    places: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far the shares of hits that scores stand for are from those that there were."""

    error: float
    """Mean over the bins of |predicted - observed|, weighted by their places."""
    error_by_chance: float
    """What `error` would be on average if each place were a hit with exactly the predicted probability."""
    auc: float
    """Probability that a hit in anybody's list has a higher score than a miss in anybody's, ties half; NaN where there
    are no hits or no misses. .5 where scores say nothing across users."""
    cases: int
    bins: tuple[Bin, ...]
    """From low scores to high; never empty."""
    groups: dict[str, Bin]
    """The same by group of users."""


def halves(askers: NDArray[np.intp], *, seed: int) -> Mask:
    """Return which of two halves each case is in, (n_cases,), all cases of a user in the same one."""
    users, place = np.unique(askers, return_inverse=True)
    second = np.zeros(len(users), dtype=bool)
    second[np.random.default_rng(seed).permutation(len(users))[: len(users) // 2]] = True
    return np.asarray(second[place], dtype=np.bool_)


def sample(n_cases: int, n_campaigns: int, *, seed: int) -> Mask:
    """Return which cases are looked at, (n_cases,): all, or as many as MAX_PAIRS allows, at least two."""
    most = max(2, MAX_PAIRS // max(1, n_campaigns))
    chosen = np.zeros(n_cases, dtype=np.bool_)
    chosen[np.random.default_rng(seed).permutation(n_cases)[:most]] = True
    return chosen


def calibration(
    scores: Scores,
    allowed: Mask,
    relevant: Mask,
    lists: Order,
    second: Mask,
    *,
    groups: Mapping[str, Mask] | None = None,
    seed: int,
) -> Calibration | None:
    """Return how well calibrated the lists are by one map from scores to probabilities, the same for all users.

    `scores`, `allowed` and `relevant` are (n_cases, n_campaigns), `lists` the columns of each case's first k, -1 where
    there are fewer, `second` the half each case is in, `groups` which cases are of a group. In each half the
    probability of being a target is fitted as an isotonic function of the score over all pairs of a case and an
    allowed campaign, and predicts the lists of the other half. Bins are quantiles of the lists' scores, equal scores
    together. None where a half has no case or the lists are empty.

    Scores may have any scale and any monotone relation to probabilities. An error is that the same score stands for
    more or fewer hits at the top of one user's list than elsewhere in another's, as where scores grow with a user's
    history and chances do not. Users of equal scores and unequal chances make up for each other within a bin: those
    are seen in `groups`.

    A small error is no quality by itself: a method whose scores say nothing predicts the same share everywhere, and
    is right. Read it with `auc`, and beside `error_by_chance`, which takes the map for given: what is uncertain about
    the map comes on top of it.

    Sources: B. Zadrozny and C. Elkan, Transforming classifier scores into accurate multiclass probability estimates,
    KDD 2002 (the isotonic map); A. Menon et al., Predicting accurate probabilities with a ranking loss, ICML 2012 (on
    scores of a ranking); M. Naeini, G. Cooper, M. Hauskrecht, Obtaining well calibrated probabilities using Bayesian
    binning, AAAI 2015 (the error); K. Nguyen and B. O'Connor, Posterior calibration and exploratory analysis for
    natural language processing models, EMNLP 2015 (bins of equal counts); J. Bröcker and L. Smith, Increasing the
    reliability of reliability diagrams, Weather and Forecasting 2007 (the error by chance).
    """
    listed = lists >= 0
    if second.all() or not second.any() or not listed.any():
        return None
    # As in `ranking`: the last bits must not part what is tied.
    scores = np.round(scores, DECIMALS)
    predicted = np.zeros(lists.shape)
    for half in (False, True):
        fitted = second != half
        rising = isotonic(scores[fitted][allowed[fitted]], scores[fitted][relevant[fitted]])
        predicted[second == half] = rising.at(np.take_along_axis(scores[second == half], lists[second == half], axis=1))
    hit = np.take_along_axis(relevant, lists, axis=1)[listed]
    score, chance = np.take_along_axis(scores, lists, axis=1)[listed], predicted[listed]
    place = _bins(score)
    owner = np.nonzero(listed)[0]

    def summed(inside: Mask) -> Bin:
        within = score[inside]
        share = float(chance[inside].mean()), float(hit[inside].mean())
        return Bin(float(within.min()), float(within.max()), *share, len(within))

    drawn = np.random.default_rng(seed).random((DRAWS, len(hit))) < chance
    return Calibration(
        error=_error(hit[None], chance, place)[0],
        error_by_chance=float(_error(drawn, chance, place).mean()),
        auc=auc(score, hit),
        cases=len(scores),
        bins=tuple(summed(place == i) for i in range(place.max() + 1)),
        groups={name: summed(of[owner]) for name, of in (groups or {}).items() if of[owner].any()},
    )


class Isotonic(NamedTuple):
    """A probability that never falls as the score rises: a step at some of the scores of hits."""

    steps: NDArray[np.float64]
    """(n,), rising."""
    probability: NDArray[np.float64]
    """(n + 1,): below the first step, then from each step on."""

    def at(self, scores: Scores) -> Scores:
        """Return the probability of each score, of the same shape."""
        return np.asarray(self.probability[np.searchsorted(self.steps, scores, side="right")])


def isotonic(scores: NDArray[np.float64], hits: NDArray[np.float64]) -> Isotonic:
    """Return the isotonic least squares fit of being a hit on the score; `hits` are those of the scores that are hits.

    Least squares puts whatever lies between two neighbouring hits together with the lower one, so only hits and the
    number of scores between them are needed, and millions of scores need not be sorted.
    """
    from scipy.optimize import isotonic_regression

    steps = np.unique(hits)
    counts = np.bincount(np.searchsorted(steps, scores, side="right"), minlength=len(steps) + 1)
    found = np.bincount(np.searchsorted(steps, hits, side="right"), minlength=len(steps) + 1)
    there = counts > 0
    probability = np.zeros(len(counts))
    if there.any():
        probability[there] = isotonic_regression(found[there] / counts[there], weights=counts[there]).x
    if not there[0] and len(counts) > 1:
        probability[0] = probability[1]  # nothing was ever scored as low: no other than the lowest
    return Isotonic(steps, np.clip(probability, 0.0, 1.0))


def auc(scores: NDArray[np.float64], hit: Mask) -> float:
    """Return the share of pairs of a hit and a miss in which the hit has the higher score, ties half; else NaN."""
    from scipy.stats import rankdata

    hits, misses = int(hit.sum()), int((~hit).sum())
    if not hits or not misses:
        return float("nan")
    return float((rankdata(scores)[hit].sum() - hits * (hits + 1) / 2) / (hits * misses))


def _bins(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the number of each score's bin, (n,), from 0 without a gap; equal scores have the same."""
    edges = np.quantile(scores, np.arange(1, BINS) / BINS, method="higher")
    return np.asarray(np.unique(np.searchsorted(edges, scores, side="right"), return_inverse=True)[1], dtype=np.intp)


def _error(hits: Mask, predicted: NDArray[np.float64], place: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the error of each row of hits, (n_rows, n) in: the bins' places cancel out of the weighted mean."""
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    excess = np.add.reduceat((hits - predicted)[:, order], starts, axis=1)
    return np.asarray(np.abs(excess).sum(axis=1) / len(place))
