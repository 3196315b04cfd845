"""Every method on the same cases, by the same rules: figures, intervals and tests."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recs.errors import InputError
from recs.evaluation import baselines, calibration, metrics, statistics
from recs.evaluation.arrays import Arrays
from recs.evaluation.baselines import Method, Words
from recs.evaluation.calibration import Calibration

KS = (5, 10, 20)
SEED = 20260301
#: The one that the others are tested against.
SERVED = "hybrid"
#: What the test and the intervals of the table are of.
TESTED = "ndcg@10"

#: Segments by the number of training conversations: least and most, None where there is no most.
SEGMENTS: Mapping[str, tuple[int, int | None]] = {"none": (0, 0), "one": (1, 1), "few": (2, 4), "many": (5, None)}

#: Length of the list that coverage, novelty and calibration are of.
LIST = 10

_CHUNK = 256


@dataclass(slots=True)
class Evaluation:
    """What came out."""

    users: int
    """Cases with at least one campaign that was new to the user: those the figures are means over."""
    users_all: int
    """Cases with any target: those that the figures ending in `.all` are means over."""
    segments: dict[str, int]
    methods: tuple[str, ...]
    figures: dict[str, float] = field(default_factory=dict)
    per_case: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """`ndcg@10.METHOD` for each case, in order of their keys."""
    calibration: dict[str, Calibration] = field(default_factory=dict)
    """By method; empty where there are too few users to part them in two."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By method, of scoring and judging together."""


def baseline_methods(arrays: Arrays, words: Words | None, *, seed: int = SEED) -> dict[str, Method]:
    """Return the baselines by name; without words those on texts are left out, without any history those on it."""
    found: dict[str, Method] = {
        "random": baselines.random(arrays, seed=seed),
        "popularity": baselines.popularity(arrays),
        "popularity_by_category": baselines.popularity_by_category(arrays),
    }
    if any(before is not None for before in arrays.before):
        found["popularity_before"] = baselines.popularity_before(arrays)
    if words is not None:
        found["top5_neighbours"] = baselines.top5_neighbours(arrays, words)
        found["user_knn_text"] = baselines.user_knn_text(arrays, words)
    if (arrays.rows >= 0).any():
        found["repeat"] = baselines.repeat(arrays)
        found["item_knn"] = baselines.item_knn(arrays)
        found["user_knn"] = baselines.user_knn(arrays)
        found["ease"] = baselines.ease(arrays)
        if not missing_methods():
            found["als"] = baselines.als(arrays, seed=seed)
            found["bpr"] = baselines.bpr(arrays, seed=seed)
    return found


def missing_methods() -> list[str]:
    """Return the methods that cannot be compared with because the optional package implicit is not installed."""
    return [] if importlib.util.find_spec("implicit") is not None else ["als", "bpr"]


def evaluate(arrays: Arrays, methods: Mapping[str, Method], *, seed: int = SEED) -> Evaluation:
    """Return the figures of every method, new-only and, ending in `.all`, with nothing left out.

    New-only drops from the targets and from the ranking what the user took in training; a case without a new target
    is left out. The whole catalogue is ranked. Figures are means over cases; `.low` and `.high` are their 95%
    bootstrap interval, `p.hybrid_vs.METHOD` the paired randomisation test on NDCG@10. Raises InputError where no case
    has a new target.
    """
    protocol = _Protocol.of(arrays)
    counts = arrays.conversations[protocol.new]
    if not len(counts):
        raise InputError("no user has a target that is new to them; there is nothing to evaluate")
    members = {
        name: (counts >= least) & (counts <= (counts.max() if most is None else most))
        for name, (least, most) in SEGMENTS.items()
    }
    segments = {name: int(inside.sum()) for name, inside in members.items() if inside.any()}
    kept = calibration.sample(len(counts), arrays.n_campaigns, seed=seed)
    found = Evaluation(len(counts), int(protocol.any_target.sum()), segments, tuple(methods))
    figures = found.figures
    figures.update({"users": found.users, "users.all": found.users_all})
    figures.update({f"users.{name}": count for name, count in segments.items()})
    for name, method in methods.items():
        began = time.monotonic()
        measured = protocol.measure(arrays, method, kept)
        for metric, values in measured.new.items():
            interval = statistics.bootstrap(values[~np.isnan(values)], seed=seed)
            figures[f"{metric}.{name}"] = interval.mean
            figures[f"{metric}.{name}.low"] = interval.low
            figures[f"{metric}.{name}.high"] = interval.high
            for segment in segments if metric in ("recall@10", TESTED) else ():
                figures[f"{metric}.{name}.{segment}"] = float(values[members[segment]].mean())
        figures[f"coverage@{LIST}.{name}"] = metrics.coverage(measured.lists, arrays.n_campaigns)
        figures.update({f"{metric}.{name}.all": float(values.mean()) for metric, values in measured.every.items()})
        found.per_case[f"{TESTED}.{name}"] = measured.new[TESTED]
        calibrated = protocol.calibration(arrays, measured, kept, members, seed=seed)
        if calibrated is not None:
            found.calibration[name] = calibrated
            figures[f"calibration_error@{LIST}.{name}"] = calibrated.error
            figures[f"calibration_error@{LIST}.{name}.chance"] = calibrated.error_by_chance
            if not np.isnan(calibrated.auc):
                figures[f"auc@{LIST}.{name}"] = calibrated.auc
        found.seconds[name] = time.monotonic() - began
    if SERVED in methods:
        served = found.per_case[f"{TESTED}.{SERVED}"]
        for name in methods:
            if name != SERVED:
                other = found.per_case[f"{TESTED}.{name}"]
                figures[f"p.{SERVED}_vs.{name}"] = statistics.paired_p(served, other, seed=seed)
                figures[f"difference.{SERVED}_vs.{name}"] = float((served - other).mean())
    return found


@dataclass(frozen=True, slots=True)
class _Measured:
    """One method's values per case."""

    new: dict[str, NDArray[np.float64]]
    """Metric to its values, of the cases with a new target."""
    every: dict[str, NDArray[np.float64]]
    """The same with nothing left out, of the cases with any target."""
    lists: NDArray[np.intp]
    """The first ten new ones for each case with a new target."""
    scores: NDArray[np.float64]
    """(n_kept, n_campaigns), of those of the same cases that were to be kept."""


@dataclass(frozen=True, slots=True)
class _Protocol:
    """Which cases count, (n_cases,)."""

    new: NDArray[np.bool_]
    """Those with a target that is new to the user."""
    any_target: NDArray[np.bool_]

    @classmethod
    def of(cls, arrays: Arrays) -> _Protocol:
        asked = np.asarray(arrays.targets.sum(axis=1)).ravel()
        known = np.asarray(arrays.targets.multiply(arrays.had).sum(axis=1)).ravel()
        return cls(asked > known, asked > 0)

    def measure(self, arrays: Arrays, method: Method, kept: NDArray[np.bool_]) -> _Measured:
        """Score each case once, and look at its ranking both ways; `kept` says whose scores are kept, (n_new,)."""
        new: list[dict[str, NDArray[np.float64]]] = []
        every: list[dict[str, NDArray[np.float64]]] = []
        lists: list[NDArray[np.intp]] = []
        scored: list[NDArray[np.float64]] = []
        keep = np.zeros_like(self.new)
        keep[self.new] = kept
        takers, n_users = arrays.takers(), len(arrays.user_ids)
        asked = np.flatnonzero(self.any_target)
        for start in range(0, len(asked), _CHUNK):
            cases = asked[start : start + _CHUNK]
            scores = method(cases)
            targets, unseen = arrays.targets[cases].toarray() > 0, arrays.had[cases].toarray() == 0
            every.append(metrics.quality(metrics.ranking(scores, np.ones_like(unseen)), targets, KS))
            some = self.new[cases]
            order = metrics.ranking(scores[some], unseen[some])
            lists.append(metrics.top(order, unseen[some], LIST))
            quality = metrics.quality(order, (targets & unseen)[some], KS)
            new.append({**quality, f"novelty@{LIST}": metrics.novelty(lists[-1], takers, n_users)})
            scored.append(scores[keep[cases]])
        return _Measured(_joined(new), _joined(every), np.concatenate(lists), np.concatenate(scored))

    def calibration(
        self,
        arrays: Arrays,
        measured: _Measured,
        kept: NDArray[np.bool_],
        segments: Mapping[str, NDArray[np.bool_]],
        *,
        seed: int,
    ) -> Calibration | None:
        """Judge the scores that were kept; `kept` and the segments' members are (n_new,)."""
        cases = np.flatnonzero(self.new)[kept]
        unseen = arrays.had[cases].toarray() == 0
        return calibration.calibration(
            measured.scores,
            unseen,
            (arrays.targets[cases].toarray() > 0) & unseen,
            measured.lists[kept],
            calibration.halves(arrays.askers[cases], seed=seed),
            groups={name: inside[kept] for name, inside in segments.items()},
            seed=seed,
        )


def _joined(chunks: Sequence[Mapping[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
