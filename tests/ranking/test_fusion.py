"""The arithmetic of scores: exact sums, undefined values, ties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recs.ranking import contributions, normalise, rank_order, scores

_values = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(0, 8)),
    elements=st.one_of(st.floats(-1e3, 1e3), st.just(math.nan)),
)
_weight = st.floats(-50, 50)


@given(values=_values, data=st.data())
def test_the_parts_add_up_to_the_score_exactly_in_whichever_order(values, data):
    weights = data.draw(st.lists(_weight, min_size=len(values), max_size=len(values)))
    parts = contributions(values, weights)
    total = scores(parts)
    for column in range(parts.shape[1]):
        shown = parts[:, column].tolist()
        assert sum(shown) == total[column]
        assert sum(reversed(shown)) == total[column]
        assert math.fsum(shown) == total[column]


@given(values=_values, data=st.data())
def test_a_part_is_weight_times_value(values, data):
    weights = data.draw(st.lists(_weight, min_size=len(values), max_size=len(values)))
    parts = contributions(values, weights)
    expected = np.where(np.isnan(values), 0.0, np.asarray(weights)[:, None] * values)
    np.testing.assert_allclose(parts, expected, rtol=0, atol=5e-10)


def test_a_weight_of_zero_silences_a_component_and_nothing_else():
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert scores(contributions(values, [0.0, 1.0])).tolist() == [3.0, 4.0]


def test_what_is_not_known_adds_nothing():
    assert scores(contributions(np.array([[math.nan], [2.0]]), [1.0, 0.5])).tolist() == [1.0]


def test_weights_must_be_finite():
    with pytest.raises(ValueError, match="finite"):
        contributions(np.ones((1, 1)), [math.nan])


def test_a_part_too_large_to_add_exactly_is_refused():
    with pytest.raises(ValueError, match="rescale"):
        contributions(np.full((1, 1), 1e9), [1.0])


def test_a_component_that_never_varied_keeps_its_values():
    assert normalise(np.array([[2.0], [3.0]]), [0.0, 2.0]).tolist() == [[2.0], [1.5]]


def test_ties_fall_by_id_and_unknown_scores_come_last():
    order = rank_order(np.array([1.0, 2.0, 1.0, math.nan]), ["b", "c", "a", "d"])
    assert order.tolist() == [1, 2, 0, 3]


def test_nothing_ranks_to_nothing():
    assert rank_order(np.array([]), []).tolist() == []
