"""From conversation vectors to intents: a linear head over the sentence encoder, which abstains where it is not sure.

Arrays in, arrays out. The encoder is frozen; what is learned is one logistic regression over unit vectors, and the
confidence below which nothing is said. scikit-learn is imported where something is fitted, not before.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recs.embed.vectors import unit
from recs.errors import InputError

#: Fewer are refused: cross-validation would measure nothing.
LEAST_EXAMPLES = 10
LEAST_INTENTS = 2
SEED = 0

#: Labels that stand for "none of the intents" unless others are given.
OUT_OF_SCOPE_LABELS = ("oos", "out_of_scope")

#: Inverse strength of the regularisation. Of 1, 3, 10, 30 and 100 it was as good as any on parts of the training data
#: of BANKING77 and CLINC150 that were held out, and the best where out-of-scope examples are a class; docs/intents.md.
_C = 10.0
_FOLDS = 5
#: Without examples of what is out of scope, abstaining may cost this share of the right answers.
GIVEN_UP = 0.05
_DECIMALS = 5
_FORMAT = 1

Vectors = NDArray[np.floating]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one conversation is taken for."""

    intent: str | None
    """None: the classifier abstains."""
    confidence: float
    """0 to 1, of the likeliest intent: the geometric mean of its probability and of the cosine to its examples."""


@dataclass(frozen=True, slots=True)
class IntentClassifier:
    """A fitted head. Rows of the arrays follow `labels`; the head may have one row more, for what is out of scope."""

    model: str
    """Identity of the encoder's weights: vectors of another model mean nothing to it."""
    labels: tuple[str, ...]
    weights: NDArray[np.float32]
    """(n_labels, dim), or (n_labels + 1, dim) where out-of-scope examples were given."""
    intercepts: NDArray[np.float32]
    centres: NDArray[np.float32]
    """Mean example of each label at length 1, (n_labels, dim)."""
    threshold: float
    examples: Mapping[str, int]
    """Label to the number of examples that it was learned from."""
    unknown: int
    """Examples of what is out of scope."""
    measured: Mapping[str, float]
    """Cross-validated on the examples: `accuracy` without abstaining, `coverage` (share that is answered), `precision`
    (share of the answers that are right), and `out_of_scope_recall` where there were examples of that."""

    def scores(self, vectors: Vectors) -> tuple[NDArray[np.intp], Floats]:
        """Return the likeliest label's position and its confidence, both (n,), of vectors (n, dim) of any length.

        A vector of zeros or NaN has confidence 0.
        """
        return _scores(vectors, self.weights, self.intercepts, self.centres)

    def predict(self, vectors: Vectors) -> list[Prediction]:
        """Return what each of the vectors (n, dim) is taken for."""
        best, confidence = self.scores(vectors)
        return [
            Prediction(self.labels[label] if sure >= self.threshold else None, float(sure))
            for label, sure in zip(best.tolist(), confidence.tolist(), strict=True)
        ]

    def to_bytes(self) -> bytes:
        """Return the classifier as JSON in UTF-8; arrays are little-endian float32 in base64."""
        content = {
            "format": _FORMAT,
            "model": self.model,
            "labels": self.labels,
            "threshold": self.threshold,
            "examples": dict(self.examples),
            "unknown": self.unknown,
            "measured": dict(self.measured),
            "dim": self.weights.shape[1],
            **{name: _packed(getattr(self, name)) for name in ("weights", "intercepts", "centres")},
        }
        # A label may hold half a surrogate pair, which only the escape of JSON can carry.
        return json.dumps(content, ensure_ascii=True, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, kept: bytes) -> IntentClassifier:
        """Return what `to_bytes` made; raises InputError where it is of another format."""
        content = json.loads(kept)
        if content.get("format") != _FORMAT:
            raise InputError(
                f"the classifier is of format {content.get('format')}, this package reads {_FORMAT}: "
                "`recs intents fit` makes a new one"
            )
        dim = content["dim"]
        return cls(
            model=content["model"],
            labels=tuple(content["labels"]),
            weights=_unpacked(content["weights"]).reshape(-1, dim),
            intercepts=_unpacked(content["intercepts"]),
            centres=_unpacked(content["centres"]).reshape(-1, dim),
            threshold=content["threshold"],
            examples=content["examples"],
            unknown=content["unknown"],
            measured=content["measured"],
        )


def out_of_scope_labels(given: Collection[str] | None) -> Collection[str]:
    return OUT_OF_SCOPE_LABELS if given is None else given


def enough(intents: Sequence[str], out_of_scope: Collection[str] | None = None) -> bool:
    """Return whether `fit` would take these labels."""
    return len(_learnable(intents, out_of_scope_labels(out_of_scope))) >= LEAST_INTENTS


def fit(
    vectors: Vectors,
    intents: Sequence[str],
    *,
    model: str,
    out_of_scope: Collection[str] | None = None,
    seed: int = SEED,
) -> IntentClassifier:
    """Return a classifier learned from vectors (n, dim) and their labels (n,).

    Intents with fewer than 10 examples are left out. Labels in `out_of_scope` (None: `oos` and `out_of_scope`) stand
    for "none of these": they are a class of their own that is never predicted. The threshold is chosen on held-out
    confidences of 5 folds. With out-of-scope examples it is what makes the mean of two shares greatest: in-scope
    examples that are answered rightly, and out-of-scope examples that are not answered. Without, it gives up 5% of the
    right answers. The same input in the same order gives the same classifier. Raises InputError where fewer than 2
    intents have 10 examples.
    """
    out_of_scope = out_of_scope_labels(out_of_scope)
    labels = _learnable(intents, out_of_scope)
    if len(labels) < LEAST_INTENTS:
        raise InputError(
            f"at least {LEAST_INTENTS} intents with {LEAST_EXAMPLES} labelled conversations each are needed to learn "
            f"from; there {'is' if len(labels) == 1 else 'are'} {len(labels)} among {len(intents):,} labelled ones"
        )
    position = {label: i for i, label in enumerate(labels)}
    unknown = len(labels)
    unknowns = sum(intent in out_of_scope for intent in intents)
    if unknowns >= LEAST_EXAMPLES:
        position |= dict.fromkeys(out_of_scope, unknown)
    else:
        unknowns = 0
    rows = [i for i, intent in enumerate(intents) if intent in position]
    x = unit(np.asarray(vectors)[rows])
    y = np.array([position[intents[i]] for i in rows], dtype=np.intp)

    best, confidence = _held_out(x, y, unknown, seed)
    threshold = _threshold(best, confidence, y, unknown)
    weights, intercepts = _head(x, y, unknown)
    return IntentClassifier(
        model=model,
        labels=labels,
        weights=weights,
        intercepts=intercepts,
        centres=_centres(x, y, unknown),
        threshold=threshold,
        examples={label: int((y == i).sum()) for i, label in enumerate(labels)},
        unknown=unknowns,
        measured=_measured(best, confidence, y, unknown, threshold),
    )


def _learnable(intents: Sequence[str], out_of_scope: Collection[str]) -> tuple[str, ...]:
    counts = Counter(intent for intent in intents if intent and intent not in out_of_scope)
    return tuple(sorted(intent for intent, count in counts.items() if count >= LEAST_EXAMPLES))


def _held_out(x: Vectors, y: NDArray[np.intp], unknown: int, seed: int) -> tuple[NDArray[np.intp], Floats]:
    """Return what each example is taken for, and how surely, by a head that has not seen it."""
    from sklearn.model_selection import StratifiedKFold

    best, confidence = np.zeros(len(y), dtype=np.intp), np.zeros(len(y))
    for train, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(x, y):
        weights, intercepts = _head(x[train], y[train], unknown)
        centres = _centres(x[train], y[train], unknown)
        best[test], confidence[test] = _scores(x[test], weights, intercepts, centres)
    return best, confidence


def _head(x: Vectors, y: NDArray[np.intp], unknown: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weights and intercepts, one row per class, `unknown` last where there are examples of it."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # One thread: sums come in one order, and on a busy machine it is many times faster than threads that wait.
    with threadpool_limits(1):
        head = LogisticRegression(C=_C, max_iter=300, tol=1e-3).fit(x, y)
    weights, intercepts = head.coef_, head.intercept_
    if len(head.classes_) == 2:  # which scikit-learn keeps as one row, of the second
        weights, intercepts = np.vstack([np.zeros_like(weights), weights]), np.append(0.0, intercepts)
    return np.round(weights, _DECIMALS).astype(np.float32), np.round(intercepts, _DECIMALS).astype(np.float32)


def _centres(x: Vectors, y: NDArray[np.intp], unknown: int) -> NDArray[np.float32]:
    means = np.stack([x[y == label].mean(axis=0, dtype=np.float64) for label in range(unknown)])
    return np.round(unit(means), _DECIMALS).astype(np.float32)


def _scores(
    vectors: Vectors, weights: NDArray[np.float32], intercepts: NDArray[np.float32], centres: NDArray[np.float32]
) -> tuple[NDArray[np.intp], Floats]:
    # In float64 and rounded: a confidence must not depend on how many conversations are looked at together.
    x = np.nan_to_num(unit(vectors).astype(np.float64))
    logits = x @ weights.T.astype(np.float64) + intercepts
    logits -= logits.max(axis=1, keepdims=True)
    probability = np.exp(logits)
    probability /= probability.sum(axis=1, keepdims=True)
    best = np.argmax(np.round(probability[:, : len(centres)], 9), axis=1)
    rows = np.arange(len(x))
    cosine = np.einsum("ij,ij->i", x, centres[best].astype(np.float64))
    confidence = np.sqrt(probability[rows, best] * np.clip(cosine, 0.0, 1.0))
    return best, np.round(confidence, 6)


def _threshold(best: NDArray[np.intp], confidence: Floats, y: NDArray[np.intp], unknown: int) -> float:
    inside = y < unknown
    right = (best == y) & inside
    if inside.all():
        return round(float(np.quantile(confidence[right], GIVEN_UP)), 6) if right.any() else 1.0
    candidates = np.unique(np.append(confidence, 0.0))
    # Sorted once instead of compared per candidate: how many lie at or above, and how many below.
    answered = len(confidence[right]) - np.searchsorted(np.sort(confidence[right]), candidates, side="left")
    declined = np.searchsorted(np.sort(confidence[~inside]), candidates, side="left")
    worth = answered / inside.sum() + declined / (~inside).sum()
    return round(float(candidates[np.argmax(np.round(worth, 12))]), 6)


def _measured(
    best: NDArray[np.intp], confidence: Floats, y: NDArray[np.intp], unknown: int, threshold: float
) -> dict[str, float]:
    inside, answered = y < unknown, confidence >= threshold
    right = (best == y) & inside
    found = {
        "accuracy": right[inside].mean(),
        "coverage": answered[inside].mean(),
        "precision": right[answered].mean() if answered.any() else 0.0,
    }
    if not inside.all():
        found["out_of_scope_recall"] = (~answered[~inside]).mean()
    return {name: round(float(value), 4) for name, value in found.items()}


def _packed(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()


def _unpacked(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
