"""Weights learned from the past: what would have ranked best what users took next.

The default weights are where it starts, and a weight leaves them only on evidence: few steps, none below zero, each
accepted only where what it gains over all validation users is beyond its noise and is a gain among the latest of them
too. Little data, or data that says nothing, leaves the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recs.evaluation import metrics, statistics
from recs.evaluation.split import Moment
from recs.ranking import COMPONENTS

K = 10
#: A step is taken where its gain is so many standard errors above 0. Some twenty steps are tried at a time, so that
#: one of them reaches 2 by chance alone about every second time, 3 about once in forty.
STEP_ERRORS = 3.0
MOST_STEPS = 8
#: What a weight may become in a step: these multiples of what it is, or, where it is 0, these weights.
_FACTORS = (0.0, 0.5, 2.0)
_FROM_ZERO = (0.1, 0.3)
#: How much popularity orders what a single component leaves open.
_TIE_BREAK = 0.01


@dataclass(frozen=True, slots=True)
class Fold:
    """Validation users of one moment: what serving would have known of them, and what they took next."""

    name: str
    values: NDArray[np.float32]
    """(n_cases, n_components, n_campaigns), normalised, in the order of COMPONENTS; 0 where nothing is known."""
    targets: NDArray[np.bool_]
    """(n_cases, n_campaigns): new campaigns that were taken; at least one each."""
    unseen: NDArray[np.bool_]
    """(n_cases, n_campaigns): what was new to the user."""
    users: tuple[str, ...]
    moments: tuple[Moment | None, ...]
    """When the answer was given."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of weights that was made."""

    weights: Mapping[str, float]
    gain: float
    """Mean gain of NDCG@10 over the weights before."""
    errors: float
    """The gain in standard errors."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What was learned, from what, and what it gains."""

    weights: dict[str, float]
    default: dict[str, float]
    cases: int
    users: int
    folds: dict[str, int]
    """Fold to its number of validation cases."""
    ndcg_default: float
    ndcg: float
    """NDCG@10 of the fitted weights on the cases that they were fitted to: no estimate of what is to come."""
    alone: dict[str, float] = field(default_factory=dict)
    """NDCG@10 of each component by itself, popularity settling ties."""
    steps: tuple[Step, ...] = ()
    gain_low: float = 0.0
    gain_high: float = 0.0
    """95% interval of the gain over the default."""


def fit_weights(
    folds: Sequence[Fold], default: Mapping[str, float], *, seed: int, step_errors: float = STEP_ERRORS
) -> Fit:
    """Return the weights that a greedy search from the default ends at.

    At each step all single changes are tried, and each component by itself in case a mixture is wrong altogether; the
    one that gains most is taken if the gain is `step_errors` standard errors above 0, users being the independent
    observations, and not negative over the later half of the cases.
    """
    trial = _Trial(folds)
    start = np.array([default[name] for name in COMPONENTS])
    first = trial.ndcg(start)
    current, reached = start, first
    steps: list[Step] = []
    while len(steps) < MOST_STEPS and len(first):
        best: tuple[float, float, NDArray[np.float64], NDArray[np.float64]] | None = None
        for candidate in _candidates(current):
            found = trial.ndcg(candidate)
            gain, error, late = trial.compare(found, reached)
            if gain > 0 and late >= 0 and gain > step_errors * error and (best is None or gain > best[0]):
                best = (gain, gain / error if error else np.inf, candidate, found)
        if best is None:
            break
        current, reached = best[2], best[3]
        steps.append(Step(_named(current), best[0], best[1]))
    interval = statistics.bootstrap(trial.by_user(reached - first), seed=seed)
    return Fit(
        weights=_named(current),
        default=_named(start),
        cases=len(first),
        users=trial.n_users,
        folds={fold.name: len(fold.users) for fold in folds},
        ndcg_default=_mean(first),
        ndcg=_mean(reached),
        alone={name: _mean(trial.ndcg(_alone(i))) for i, name in enumerate(COMPONENTS)} if len(first) else {},
        steps=tuple(steps),
        gain_low=interval.low if len(first) else 0.0,
        gain_high=interval.high if len(first) else 0.0,
    )


class _Trial:
    """Tries weights on all folds."""

    def __init__(self, folds: Sequence[Fold]) -> None:
        self._folds = folds
        users = [user for fold in folds for user in fold.users]
        self._user = np.unique(users, return_inverse=True)[1] if users else np.empty(0, dtype=np.intp)
        self.n_users = int(self._user.max(initial=-1)) + 1
        moments = [moment for fold in folds for moment in fold.moments]
        known = sorted(moment for moment in moments if moment is not None)
        middle = known[len(known) // 2] if known else None
        self._late = np.array([m is not None and middle is not None and m >= middle for m in moments], dtype=np.bool_)

    def ndcg(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return NDCG@10 for every case of every fold, in order."""
        if not self._folds:
            return np.empty(0)
        return np.concatenate([_ndcg(fold, weights) for fold in self._folds])

    def compare(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float]:
        """Return the mean gain of the first, its standard error, and the mean gain over the later half."""
        difference = first - second
        mean = float(difference.mean())
        # A user's cases in several folds are no independent observations.
        off = np.bincount(self._user, weights=difference - mean, minlength=self.n_users)
        error = float(np.sqrt((off**2).sum()) / len(difference))
        return mean, error, float(difference[self._late].mean()) if self._late.any() else 0.0

    def by_user(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each user's mean."""
        counts = np.maximum(np.bincount(self._user, minlength=self.n_users), 1)
        return np.asarray(np.bincount(self._user, weights=values, minlength=self.n_users) / counts)


def _ndcg(fold: Fold, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = np.zeros(fold.targets.shape, dtype=np.float32)
    for component in np.flatnonzero(weights).tolist():
        scores += np.float32(weights[component]) * fold.values[:, component]
    scores[~fold.unseen] = -np.inf
    size = min(K, fold.targets.shape[1])
    # Only what reaches the first ten is put in order; ties fall to the lower column, as in serving.
    least = np.partition(scores, -size, axis=1)[:, -size]
    first = np.empty((len(scores), size), dtype=np.intp)
    for row in range(len(scores)):
        columns = np.flatnonzero(scores[row] >= least[row])
        first[row] = columns[np.argsort(-scores[row, columns], kind="stable")[:size]]
    return metrics.ndcg(np.take_along_axis(fold.targets, first, axis=1), fold.targets.sum(axis=1))


def _candidates(weights: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    found = []
    for component, weight in enumerate(weights.tolist()):
        for value in [weight * factor for factor in _FACTORS] if weight else _FROM_ZERO:
            changed = weights.copy()
            changed[component] = value
            if changed.any():
                found.append(changed)
    return found + [_alone(component) for component in range(len(weights))]


def _alone(component: int) -> NDArray[np.float64]:
    weights = np.zeros(len(COMPONENTS))
    weights[COMPONENTS.index("engagement_prior")] = _TIE_BREAK
    weights[component] = 1.0
    return weights


def _named(weights: NDArray[np.float64]) -> dict[str, float]:
    return {name: float(f"{weight:.6g}") for name, weight in zip(COMPONENTS, weights.tolist(), strict=True)}


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
