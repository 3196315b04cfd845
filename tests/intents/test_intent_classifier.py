"""The classifier of intents: right answers, abstaining, refusals, the same every time, kept as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from recs.errors import InputError
from recs.intents import IntentClassifier, confusion, evaluate, fit, most_confused, per_intent
from recs.intents.classifier import GIVEN_UP, enough
from recs.intents.measure import ABSTAINED, OUT_OF_SCOPE

DIM = 24
NAMES = ("cancel", "move", "pay", "refund")


def directions(seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(DIM, DIM)))[0]


def spoken(*counts, seed=1, spread=0.25, of=NAMES):
    """Vectors around one direction per intent, of any length, and their labels."""
    rng = np.random.default_rng(seed)
    around = directions()
    rows = [(around[i] + spread * rng.normal(size=DIM), name) for i, name in enumerate(of) for _ in range(counts[i])]
    vectors = np.array([row for row, _ in rows]) * rng.uniform(0.5, 2, size=(len(rows), 1))
    return vectors.astype(np.float32), [name for _, name in rows]


def elsewhere(count, seed=2):
    """Vectors around directions that no intent has."""
    rng = np.random.default_rng(seed)
    which = rng.integers(len(NAMES), DIM, size=count)
    return (directions()[which] + 0.2 * rng.normal(size=(count, DIM))).astype(np.float32)


def test_intents_are_recognised_and_the_unknown_is_left_alone():
    vectors, labels = spoken(40, 40, 40, 40)
    fitted = fit(vectors, labels, model="words")
    assert fitted.labels == NAMES
    assert fitted.examples == dict.fromkeys(NAMES, 40)
    assert fitted.measured["accuracy"] > 0.9
    asked, truth = spoken(50, 50, 50, 50, seed=3)
    found = fitted.predict(asked)
    answered = [(p.intent, t) for p, t in zip(found, truth, strict=True) if p.intent is not None]
    assert np.mean([p == t for p, t in answered]) > 0.95
    assert len(answered) > 150
    assert all(0 <= p.confidence <= 1 and (p.intent is not None) == (p.confidence >= fitted.threshold) for p in found)
    assert sum(p.intent is None for p in fitted.predict(elsewhere(100))) > 90


def test_without_examples_of_the_unknown_a_twentieth_of_the_right_answers_is_given_up():
    vectors, labels = spoken(60, 60, 60, 60)
    fitted = fit(vectors, labels, model="words")
    right = fitted.measured["coverage"] * fitted.measured["precision"]
    assert right == pytest.approx(fitted.measured["accuracy"] * (1 - GIVEN_UP), abs=0.01)
    assert "out_of_scope_recall" not in fitted.measured


def test_examples_of_the_unknown_set_the_threshold_and_are_never_predicted():
    vectors, labels = spoken(40, 40, 40, 40)
    around = np.vstack([vectors, elsewhere(60)])
    fitted = fit(around, [*labels, *["oos"] * 60], model="words")
    assert fitted.labels == NAMES
    assert fitted.unknown == 60
    assert fitted.measured["out_of_scope_recall"] > 0.9
    assert {p.intent for p in fitted.predict(elsewhere(200, seed=5))} <= {None, *NAMES}
    # By another name they are an intent like any other, unless it is said what they are.
    assert "misc" in fit(around, [*labels, *["misc"] * 60], model="words").labels
    assert "misc" not in fit(around, [*labels, *["misc"] * 60], model="words", out_of_scope=["misc"]).labels


def test_two_intents_are_enough_and_rare_ones_are_left_out():
    vectors, labels = spoken(10, 10, 9, 0)
    fitted = fit(vectors, labels, model="words")
    assert fitted.labels == ("cancel", "move")
    assert fitted.weights.shape == (2, DIM)
    assert {p.intent for p in fitted.predict(spoken(20, 20, 0, 0, seed=7)[0])} >= {"cancel", "move"}


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (50, 0, 0, 0), (50, 9, 9, 9)])
def test_too_few_examples_are_refused(counts):
    vectors, labels = spoken(*counts) if sum(counts) else (np.empty((0, DIM), dtype=np.float32), [])
    assert not enough(labels)
    with pytest.raises(InputError, match="at least 2 intents with 10 labelled conversations each"):
        fit(vectors, labels, model="words")


def test_the_same_examples_give_the_same_classifier():
    vectors, labels = spoken(30, 30, 30, 30)
    assert fit(vectors, labels, model="m").to_bytes() == fit(vectors, labels, model="m").to_bytes()


def test_a_confidence_does_not_depend_on_what_else_is_asked():
    vectors, labels = spoken(30, 30, 30, 30)
    fitted = fit(vectors, labels, model="m")
    together = fitted.predict(vectors)
    assert [fitted.predict(v[None])[0] for v in vectors] == together


def test_silence_is_no_intent():
    fitted = fit(*spoken(30, 30, 30, 30), model="m")
    found = fitted.predict(np.array([np.zeros(DIM), np.full(DIM, np.nan)], dtype=np.float32))
    assert [(p.intent, p.confidence) for p in found] == [(None, 0.0)] * 2
    assert fitted.predict(np.empty((0, DIM), dtype=np.float32)) == []


def test_it_is_kept_as_json():
    vectors, labels = spoken(20, 20, 20, 20, of=("a", "é", "\ud800 half", "z"))
    fitted = fit(vectors, labels, model="m")
    kept = fitted.to_bytes()
    again = IntentClassifier.from_bytes(kept)
    assert again.to_bytes() == kept
    assert again.predict(vectors) == fitted.predict(vectors)
    with pytest.raises(InputError, match="format 99"):
        IntentClassifier.from_bytes(json.dumps({**json.loads(kept), "format": 99}).encode())


def test_what_predicts_imports_no_scikit_learn():
    code = (
        "import sys, recs.intents.kept, recs.intents.classifier; "
        "print([m for m in sys.modules if m in ('sklearn', 'pandas', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_evaluation_by_hand():
    vectors, labels = spoken(40, 40, 40, 40)
    fitted = fit(vectors, labels, model="words")
    asked, truth = spoken(10, 10, 10, 10, seed=9)
    asked = np.vstack([asked, elsewhere(20)])
    found = evaluate(fitted, asked, [*truth, *["oos"] * 10, *["never learned"] * 10])
    assert found.truth == (*truth, *[OUT_OF_SCOPE] * 20)
    predicted = [p.intent or ABSTAINED for p in fitted.predict(asked)]
    assert list(found.predicted) == predicted
    answered = [p != ABSTAINED for p in predicted]
    figures = {name: interval.mean for name, interval in found.figures.items()}
    assert figures["coverage"] == pytest.approx(np.mean(answered[:40]))
    assert figures["out_of_scope_recall"] == pytest.approx(1 - np.mean(answered[40:]))
    assert figures["out_of_scope_precision"] == pytest.approx((20 - sum(answered[40:])) / (60 - sum(answered)))
    assert figures["precision"] == pytest.approx(
        sum(p == t for p, t in zip(predicted, found.truth, strict=True)) / sum(answered)
    )
    assert figures["answered_right"] <= figures["accuracy"]
    for interval in found.figures.values():
        assert interval.low <= interval.mean <= interval.high
    assert evaluate(fitted, asked, [*truth, *["oos"] * 20]).figures == found.figures
    inside = evaluate(fitted, asked[:40], truth).figures
    assert np.isnan([inside["out_of_scope_recall"].mean, inside["out_of_scope_precision"].mean]).all()


TRUTH = ["a", "a", "a", "b", "b", "c", OUT_OF_SCOPE, OUT_OF_SCOPE]
PREDICTED = ["a", "b", "b", "b", ABSTAINED, "a", "a", ABSTAINED]


def test_confusion_is_a_frame():
    table = confusion(TRUTH, PREDICTED)
    assert list(table.index) == ["a", "b", "c", OUT_OF_SCOPE]
    assert list(table.columns) == ["a", "b", "c", ABSTAINED]
    assert table.to_numpy().tolist() == [[1, 2, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [1, 0, 0, 1]]
    assert (table.index.name, table.columns.name) == ("intent", "predicted")


def test_most_confused_pairs():
    rows = most_confused(TRUTH, PREDICTED)
    assert rows.to_numpy().tolist() == [["a", "b", 2, 2 / 3], [OUT_OF_SCOPE, "a", 1, 0.5], ["c", "a", 1, 1.0]]
    assert len(most_confused(TRUTH, PREDICTED, n=1)) == 1
    assert most_confused(["a"], ["a"]).empty


def test_figures_per_intent():
    table = per_intent(TRUTH, PREDICTED)
    assert list(table.index) == ["a", "b", "c", OUT_OF_SCOPE]
    assert table["conversations"].tolist() == [3, 2, 1, 2]
    assert table["answered"].tolist() == [1, 0.5, 1, 0.5]
    assert table["recall"].tolist() == [1 / 3, 0.5, 0, 0.5]
    assert table["precision"].iloc[[0, 1, 3]].tolist() == [1 / 3, 1 / 3, 0.5]
    assert np.isnan(table["precision"].iloc[2])
