"""How well intents are recognised on conversations that were held back, in figures and in frames for a notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recs.evaluation.statistics import Interval, bootstrap
from recs.intents.classifier import SEED, IntentClassifier, out_of_scope_labels

if TYPE_CHECKING:
    import pandas as pd

#: How a conversation that got no intent, and one that has none of the learned ones, are called in frames.
ABSTAINED = "(abstained)"
OUT_OF_SCOPE = "(out of scope)"


@dataclass(frozen=True, slots=True)
class IntentEvaluation:
    """What came out, per held-back conversation and in sum."""

    truth: tuple[str, ...]
    """The label, OUT_OF_SCOPE for those that stand for it and for intents that were not learned."""
    predicted: tuple[str, ...]
    """The intent, or ABSTAINED."""
    likeliest: tuple[str, ...]
    """The intent without abstaining."""
    confidence: tuple[float, ...]
    figures: dict[str, Interval]
    """Each with its 95% bootstrap interval over conversations; see `evaluate`."""


def evaluate(
    classifier: IntentClassifier,
    vectors: NDArray[np.floating],
    intents: Sequence[str],
    *,
    out_of_scope: Collection[str] | None = None,
    seed: int = SEED,
) -> IntentEvaluation:
    """Return how a classifier does on vectors (n, dim) with their labels (n,), none of which it was learned from.

    Of the conversations in scope: `accuracy` is the share whose likeliest intent is right, `answered_right` the share
    that is answered, and rightly, `coverage` the share that is answered. `precision` is the share of right ones among
    all answers. `out_of_scope_recall` is the share of conversations out of scope that are not answered,
    `out_of_scope_precision` the share of them among all that are not answered. What there is nothing of is NaN; so are
    the last two where nothing is out of scope.
    """
    known = set(classifier.labels) - set(out_of_scope_labels(out_of_scope))
    truth = tuple(i if i in known else OUT_OF_SCOPE for i in intents)
    best, confidence = classifier.scores(vectors)
    likeliest = tuple(classifier.labels[label] for label in best.tolist())
    sure = confidence >= classifier.threshold
    predicted = tuple(name if s else ABSTAINED for name, s in zip(likeliest, sure.tolist(), strict=True))

    inside = np.array([t != OUT_OF_SCOPE for t in truth], dtype=bool)
    right = np.array([t == name for t, name in zip(truth, likeliest, strict=True)], dtype=bool)
    shares = {
        "accuracy": right[inside],
        "answered_right": (right & sure)[inside],
        "coverage": sure[inside],
        "precision": right[sure],
        "out_of_scope_recall": ~sure[~inside],
        "out_of_scope_precision": np.empty(0, dtype=bool) if inside.all() else ~inside[~sure],
    }
    figures = {name: bootstrap(values.astype(np.float64), seed=seed) for name, values in shares.items()}
    return IntentEvaluation(truth, predicted, likeliest, tuple(confidence.tolist()), figures)


def confusion(truth: Sequence[str], predicted: Sequence[str]) -> pd.DataFrame:
    """Return how many conversations of each intent (rows) were taken for each (columns); all names are sorted.

    What was not answered is the last column, what is out of scope the last row.
    """
    import pandas as pd

    frame = pd.crosstab(pd.Series(list(truth), name="intent"), pd.Series(list(predicted), name="predicted"))
    rows = sorted({*truth} - {OUT_OF_SCOPE}) + [OUT_OF_SCOPE] * (OUT_OF_SCOPE in truth)
    columns = sorted({*truth, *predicted} - {OUT_OF_SCOPE, ABSTAINED}) + [ABSTAINED] * (ABSTAINED in predicted)
    return frame.reindex(index=rows, columns=columns, fill_value=0)


def most_confused(truth: Sequence[str], predicted: Sequence[str], *, n: int = 20) -> pd.DataFrame:
    """Return the n pairs of intents that are mixed up most: `intent`, `predicted`, `count`, and `share` of the intent.

    What was not answered is not mixed up; what is out of scope and was answered is.
    """
    import pandas as pd

    of_intent, pairs = Counter(truth), Counter(zip(truth, predicted, strict=True))
    mixed = [
        (intent, other, count, count / of_intent[intent])
        for (intent, other), count in pairs.items()
        if intent != other and other != ABSTAINED
    ]
    mixed.sort(key=lambda row: (-row[2], row[0], row[1]))
    return pd.DataFrame(mixed[:n], columns=["intent", "predicted", "count", "share"])


def per_intent(truth: Sequence[str], predicted: Sequence[str]) -> pd.DataFrame:
    """Return a row per intent: `conversations`, `answered` (share), `recall` (answered rightly) and `precision`.

    `precision` is NaN for an intent that nothing was taken for. The row for what is out of scope has as `recall` the
    share that was not answered.
    """
    import pandas as pd

    totals, answers_of, pairs = Counter(truth), Counter(predicted), Counter(zip(truth, predicted, strict=True))
    rows = {}
    for name in sorted(totals, key=lambda name: (name == OUT_OF_SCOPE, name)):
        total, wanted = totals[name], ABSTAINED if name == OUT_OF_SCOPE else name
        right, answers = pairs[name, wanted], answers_of[wanted]
        rows[name] = {
            "conversations": total,
            "answered": 1 - pairs[name, ABSTAINED] / total,
            "recall": right / total,
            "precision": right / answers if answers else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("intent").astype({"conversations": int})
