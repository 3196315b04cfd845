"""Metrics beside two independent references, intervals and tests beside what can be worked out by hand."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, Success, nDCG
from sklearn.metrics import ndcg_score

from recs.evaluation import metrics
from recs.evaluation.statistics import bootstrap, paired_p

KS = (1, 5, 10, 40)


def rankings(seed=1, cases=40, campaigns=30):
    """Return scores without ties, what is relevant (1 to 12 each), and what is allowed, which holds the relevant."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(cases, campaigns))
    relevant = rng.permuted(np.arange(campaigns)[None, :] < rng.integers(1, 13, size=(cases, 1)), axis=1)
    return scores, relevant, relevant | (rng.random((cases, campaigns)) < 0.7)


def test_values_equal_those_of_ir_measures():
    scores, relevant, allowed = rankings()
    found = metrics.quality(metrics.ranking(scores, allowed), relevant, KS)
    names = {RR: "mrr"}
    for k in KS:
        names |= {R @ k: f"recall@{k}", nDCG @ k: f"ndcg@{k}", Success @ k: f"hit_rate@{k}"}
    qrels = [ir_measures.Qrel(f"{u:03}", str(c), 1) for u, c in np.argwhere(relevant)]
    run = [ir_measures.ScoredDoc(f"{u:03}", str(c), float(scores[u, c])) for u, c in np.argwhere(allowed)]
    seen = 0
    for value in ir_measures.iter_calc(list(names), qrels, run):
        assert value.value == pytest.approx(found[names[value.measure]][int(value.query_id)], abs=1e-9)
        seen += 1
    assert seen == len(names) * len(scores)


def test_ndcg_equals_that_of_scikit_learn():
    scores, relevant, allowed = rankings(2)
    found = metrics.quality(metrics.ranking(scores, allowed), relevant, (10,))
    for row in range(len(scores)):
        kept = allowed[row]
        expected = ndcg_score(relevant[row, kept][None].astype(float), scores[row, kept][None], k=10, ignore_ties=True)
        assert found["ndcg@10"][row] == pytest.approx(expected)


def test_values_that_are_known():
    relevant = np.array([[0, 1, 0, 1]], dtype=bool)
    order = metrics.ranking(np.array([[4.0, 3.0, 2.0, 1.0]]), np.ones((1, 4), dtype=bool))
    found = metrics.quality(order, relevant, (2,))
    assert found["recall@2"] == [0.5]
    assert found["hit_rate@2"] == [1.0]
    assert found["mrr"] == [0.5]
    assert found["ndcg@2"] == pytest.approx([(1 / math.log2(3)) / (1 + 1 / math.log2(3))])


def test_ties_fall_by_id_and_what_is_not_allowed_comes_last():
    allowed = np.array([[True, True, False, True]])
    order = metrics.ranking(np.array([[0.0, 1.0, 9.0, 1.0]]), allowed)
    assert order.tolist() == [[1, 3, 0, 2]]
    assert metrics.top(order, allowed, 4).tolist() == [[1, 3, 0, -1]]
    # The last bits of a sum are not the same everywhere.
    assert metrics.ranking(np.array([[0.3, 0.1 + 0.2]]), np.ones((1, 2), dtype=bool)).tolist() == [[0, 1]]


def test_scores_that_say_nothing_are_refused():
    with pytest.raises(ValueError, match="finite"):
        metrics.ranking(np.array([[math.nan]]), np.ones((1, 1), dtype=bool))
    with pytest.raises(ValueError, match="relevant"):
        metrics.quality(np.array([[0]]), np.array([[False]]), (1,))


def test_coverage_and_novelty():
    lists = np.array([[0, 1], [1, -1], [-1, -1]])
    assert metrics.coverage(lists, 4) == 0.5
    # Of 7 users all took the first and one the second: shares of 1 and, counted as one more, 2 / 8.
    novelty = metrics.novelty(lists, np.array([7.0, 1.0, 0.0, 0.0]), 7)
    assert novelty[:2].tolist() == [1.0, 2.0]
    assert math.isnan(novelty[2])


def test_the_interval_is_that_of_the_mean_and_the_same_every_time():
    values = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    found = bootstrap(values, seed=1)
    assert found == bootstrap(values, seed=1)
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(found.mean - half, abs=0.15 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.15 * half)
    assert bootstrap(np.ones(5), seed=1) == (1.0, 1.0, 1.0)
    assert math.isnan(bootstrap(np.array([]), seed=1).mean)


def test_the_paired_test_counts_swaps():
    # All of eight users gain alike: of 2**8 ways to swap, two are as far from no difference.
    worse = np.zeros(8)
    assert paired_p(worse + 1, worse, seed=1) == pytest.approx(2 / 2**8, abs=0.003)
    assert paired_p(worse, worse + 1, seed=1) == paired_p(worse + 1, worse, seed=1)
    assert paired_p(worse, worse, seed=1) == 1.0
    mixed = np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    assert paired_p(mixed, np.zeros(5), seed=1) == 1.0
    assert paired_p(np.arange(1.0, 200.0), np.zeros(199), seed=1) == pytest.approx(1 / 10_001)
