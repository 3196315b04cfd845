"""Calibration beside a reference, and on scores of which it is known how well they are calibrated."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from evaluation_data import POSITIVE, conversation, dataset
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from recs.evaluation import arrays_of, calibration, evaluate, leave_last_out, split_by_field
from recs.evaluation.calibration import auc, halves, isotonic, sample
from recs.evaluation.metrics import ranking, top


def judged(scores, relevant, second, k=10, **more):
    allowed = np.ones(scores.shape, dtype=bool)
    lists = top(ranking(scores, allowed), allowed, k)
    return calibration.calibration(scores, allowed, relevant, lists, second, seed=1, **more)


def world(users=2_000, campaigns=60, seed=1):
    """Return probabilities of a hit, mean .07 and different for every user, and hits drawn by them."""
    rng = np.random.default_rng(seed)
    chance = rng.beta(1.0, 4.0, size=(users, 1)) * rng.beta(1.0, 2.0, size=(users, campaigns))
    return chance, rng.random(chance.shape) < chance, halves(np.arange(users), seed=seed)


@pytest.mark.parametrize("decimals", [1, 12])
def test_the_map_equals_that_of_scikit_learn(decimals):
    rng = np.random.default_rng(decimals)
    scores = np.round(rng.normal(size=5_000), decimals)
    hit = rng.random(5_000) < 0.3 / (1 + np.exp(-scores))
    found = isotonic(scores, scores[hit])
    expected = IsotonicRegression().fit(scores, hit.astype(float)).predict(scores)
    assert found.at(scores) == pytest.approx(expected, abs=1e-12)
    assert len(found.steps) <= hit.sum()


def test_the_map_of_nothing():
    assert isotonic(np.array([1.0, 2.0]), np.array([])).at(np.array([[0.0, 3.0]])).tolist() == [[0.0, 0.0]]
    # Below the lowest score that was seen it is no other than there.
    assert isotonic(np.array([2.0, 2.0]), np.array([2.0])).at(np.array([1.0, 2.0])).tolist() == [0.5, 0.5]


def test_errors_that_can_be_counted():
    scores = np.array([[4.0, 3.0, 2.0, 1.0]] * 2)
    hits = np.array([[True, False, False, False]] * 2)
    second = np.array([False, True])
    same = judged(scores, hits, second, k=2)
    assert (same.error, same.error_by_chance, same.auc) == (0.0, 0.0, 1.0)
    assert [tuple(b) for b in same.bins] == [(3.0, 3.0, 0.0, 0.0, 2), (4.0, 4.0, 1.0, 1.0, 2)]
    # Ten times as much for the second user: 30 and 40 are beyond the first user's 4, which was a hit, so both are sure
    # hits; 3 and 4 are below the second user's 40, so neither is one.
    scaled = judged(scores * np.array([[1.0], [10.0]]), hits, second, k=2, groups={"one": ~second, "other": second})
    assert scaled.error == 0.5
    assert [b.predicted for b in scaled.bins] == [0.0, 0.0, 1.0, 1.0]
    assert [b.observed for b in scaled.bins] == [0.0, 1.0, 0.0, 1.0]
    assert scaled.auc == pytest.approx(0.75)
    assert scaled.groups == {"one": (3.0, 4.0, 0.0, 0.5, 2), "other": (30.0, 40.0, 1.0, 0.5, 2)}


def test_probabilities_are_calibrated_and_so_is_whatever_rises_with_them():
    chance, hits, second = world()
    found = judged(chance, hits, second)
    assert found.error == pytest.approx(found.error_by_chance, abs=0.004)
    assert found.auc > 0.7
    assert sum(b.places for b in found.bins) == 20_000
    assert [b.places for b in found.bins] == [2_000] * 10
    for b in found.bins:
        assert b.predicted == pytest.approx(b.observed, abs=0.04)
        assert b.score_from - 0.02 < b.predicted < b.score_to + 0.02
    logs = judged(5.0 + np.log(chance), hits, second)
    assert logs.error == pytest.approx(found.error)
    assert logs.auc == pytest.approx(found.auc)


def test_scores_that_grow_with_the_user_and_not_with_the_chance_are_told():
    chance, hits, second = world()
    scale = np.random.default_rng(2).choice([0.1, 1.0, 10.0], size=(len(chance), 1))
    scaled = judged(chance * scale, hits, second)
    right = judged(chance, hits, second)
    assert scaled.error > 3 * right.error
    assert scaled.error > 3 * scaled.error_by_chance
    assert scaled.auc < right.auc - 0.1
    # Each user's order is as it was, so no figure of ranking can tell.
    assert (ranking(chance * scale, hits | True) == ranking(chance, hits | True)).all()


def test_chances_that_make_up_for_each_other_are_seen_by_group():
    rng = np.random.default_rng(3)
    scores = rng.random((2_000, 40))
    often = rng.random(2_000) < 0.5
    hits = rng.random(scores.shape) < scores * np.where(often, 0.3, 0.1)[:, None]
    found = judged(scores, hits, halves(np.arange(2_000), seed=1), groups={"often": often, "seldom": ~often})
    assert found.error < 0.02
    assert found.groups["often"].observed > 1.3 * found.groups["often"].predicted
    assert found.groups["seldom"].observed < 0.7 * found.groups["seldom"].predicted


def test_scores_that_say_nothing_predict_the_same_everywhere():
    chance, hits, second = world()
    found = judged(np.random.default_rng(4).random(chance.shape), hits, second)
    assert found.error < 0.01
    assert found.auc == pytest.approx(0.5, abs=0.03)
    assert all(b.predicted == pytest.approx(hits.mean(), abs=0.03) for b in found.bins)
    flat = judged(np.zeros(chance.shape), hits, second)
    assert len(flat.bins) == 1
    assert flat.auc == 0.5


def test_the_error_by_chance_is_that_of_drawing():
    # A sixth of all pairs are hits and every score is the same: one bin, so the error is that of a mean of 3,000 draws.
    hits = np.tile(np.arange(60) % 6 == 0, (300, 1))
    found = judged(np.zeros(hits.shape), hits, halves(np.arange(300), seed=1))
    expected = math.sqrt(2 / math.pi) * math.sqrt(1 / 6 * 5 / 6 / 3_000)
    assert found.error_by_chance == pytest.approx(expected, rel=0.15)


def test_auc_equals_that_of_scikit_learn():
    rng = np.random.default_rng(5)
    scores, hit = np.round(rng.random(500), 2), rng.random(500) < 0.2
    assert auc(scores, hit) == pytest.approx(roc_auc_score(hit, scores))
    assert math.isnan(auc(scores, hit & False))
    assert math.isnan(auc(scores, hit | True))


def test_a_user_is_in_one_half():
    second = halves(np.array([7, 7, 3, 3, 3, 9, 1]), seed=1)
    assert second.tolist() == halves(np.array([7, 7, 3, 3, 3, 9, 1]), seed=1).tolist()
    assert second[0] == second[1]
    assert second[2] == second[3] == second[4]
    assert len({second[0], second[2], second[5], second[6]}) == 2
    found = dataset(
        conversation("train", "ann", 1, ("a", "like"), split="dev"),
        *(conversation(f"t{i}", user, 2 + i, ("b", "like"), split="test") for i, user in enumerate("xyxy")),
    )
    askers = arrays_of(split_by_field(found, POSITIVE, "split"), found.campaigns, POSITIVE).askers
    assert len(set(askers.tolist())) == 2


def test_too_many_pairs_are_drawn_from(monkeypatch):
    assert sample(50, 200, seed=1).all()
    monkeypatch.setattr(calibration, "MAX_PAIRS", 1_000)
    assert sample(50, 200, seed=1).sum() == 5
    assert sample(50, 200, seed=1).tolist() == sample(50, 200, seed=1).tolist()
    assert sample(50, 20_000, seed=1).sum() == 2


def several():
    """Eight users who take a, b and c one after another, the last of which is tested."""
    return dataset(
        *(
            conversation(f"{user}{turn}", user, turn, (campaign, "like"))
            for place, user in enumerate("stuvwxyz")
            for turn, campaign in enumerate(("abc", "bca", "cab")[place % 3])
        )
    )


@pytest.mark.parametrize("pairs", [10_000_000, 24])
def test_an_evaluation_tells_calibration_of_each_method(monkeypatch, pairs):
    monkeypatch.setattr(calibration, "MAX_PAIRS", pairs)
    data = several()
    arrays = arrays_of(leave_last_out(data, POSITIVE), data.campaigns, POSITIVE)
    takers = arrays.takers()
    known = {
        "sure": lambda cases: arrays.targets[cases].toarray() + 0.0,
        "popular": lambda cases: np.tile(takers, (len(cases), 1)),
    }
    found = evaluate(arrays, known)
    cases = min(8, pairs // 6)
    assert found.figures["calibration_error@10.sure"] == 0.0
    assert found.figures["auc@10.sure"] == 1.0
    assert found.calibration["sure"].cases == cases
    # Each user took two of the six campaigns, so four are new.
    assert found.calibration["sure"].bins == ((0.0, 0.0, 0.0, 0.0, 3 * cases), (1.0, 1.0, 1.0, 1.0, cases))
    assert found.calibration["sure"].groups == {"few": (0.0, 1.0, 0.25, 0.25, 4 * cases)}
    assert 0 <= found.figures["calibration_error@10.popular"] <= 1


def test_one_user_cannot_be_parted():
    data = dataset(conversation("a1", "ann", 1, ("a", "like")), conversation("a2", "ann", 2, ("b", "like")))
    arrays = arrays_of(leave_last_out(data, POSITIVE), data.campaigns, POSITIVE)
    found = evaluate(arrays, {"popular": lambda cases: np.zeros((len(cases), 6))})
    assert found.calibration == {}
    assert not [name for name in found.figures if "calibration" in name or name.startswith("auc")]


def test_importing_stays_quick():
    code = "import sys, recs.evaluation; print([m for m in ('scipy.optimize', 'scipy.stats') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
