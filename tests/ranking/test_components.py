"""Each component on data that can be checked in the head."""

import numpy as np
import pytest
from scipy import sparse

from recs.model import CoEngagement
from recs.ranking import components, ease_links


def test_neighbours_count_by_the_cube_of_their_similarity():
    weights = components.neighbour_weights(np.array([1.0, 0.5, -0.5]))
    np.testing.assert_allclose(weights, [8 / 9, 1 / 9, 0])


def test_nobody_similar_is_no_evidence_rather_than_a_division_by_zero():
    assert components.neighbour_weights(np.array([0.0, -1.0])).tolist() == [0.0, 0.0]
    assert components.neighbour_weights(np.array([])).tolist() == []


def test_neighbours_say_the_weighted_share_that_took_a_campaign():
    shares = components.neighbours_share(np.array([0.75, 0.25]), [(0, 0, 1.0), (1, 0, 1.0), (1, 1, -1.0)], 3)
    assert shares.tolist() == [1.0, -0.25, 0.0]


def test_co_engagement_adds_the_links_from_what_the_user_took():
    links = [(0, 2, 0.5), (1, 2, 0.25), (1, 0, 0.1)]
    assert components.co_engagement(links, {1: 1.0}, 3).tolist() == [0.1, 0.0, 0.25]
    both = components.co_engagement(links, {0: 1.0, 1: 1.0}, 3)
    np.testing.assert_allclose(both, np.array([0.1, 0.0, 0.75]))


def test_a_component_is_measured_by_how_its_values_stand_out_for_the_user():
    np.testing.assert_allclose(components.standing_out(np.array([3.0, 0.0, -4.0, 0.0])), [1.2, 0.0, -1.6, 0.0])
    longer = components.standing_out(np.array([30.0, 0.0, -40.0, 0.0]))
    np.testing.assert_allclose(longer, [1.2, 0.0, -1.6, 0.0])
    assert components.standing_out(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(components.standing_out(np.full(2, np.nan))).all()
    assert components.standing_out(np.array([])).tolist() == []


def test_users_who_took_the_same_are_alike_by_the_cosine():
    similarity = components.engagement_similarity(np.array([2.0, 1.0]), 4, np.array([4, 1]))
    np.testing.assert_allclose(similarity, [0.5, 0.5])


def test_co_engagement_cannot_say_anything_of_a_user_who_took_nothing():
    assert np.isnan(components.co_engagement([(0, 1, 1.0)], {}, 2)).all()


def test_intent_is_the_share_of_conversations_that_a_campaign_is_meant_for():
    value = components.intent({"return": 0.75, "garden": 0.25}, {"return": [0], "garden": [0, 1]}, 3)
    assert value.tolist() == [1.0, 0.25, 0.0]
    assert np.isnan(components.intent({}, {"return": [0]}, 1)).all()


def test_content_follows_what_the_user_took_before_what_the_user_said():
    campaigns = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [np.nan, np.nan]], dtype=np.float32)
    centre = np.zeros(2)
    took = components.content(campaigns, {0: 1.0}, np.array([0.0, 1.0]), centre)
    said = components.content(campaigns, {}, np.array([0.0, 1.0]), centre)
    np.testing.assert_allclose(took[:4], [1, -1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(said[:4], [0, 0, 1, -1], atol=1e-6)
    assert np.isnan(took[4])
    assert np.isnan(components.content(campaigns, {}, None, centre)).all()


def test_similarity_is_measured_from_the_mean_user():
    centre = np.array([1.0, 0.0])
    query = np.array([1.0, 0.5], dtype=np.float32)
    others = np.array([[1.0, 2.0], [1.0, -2.0], [1.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(components.centred_similarity(query, others, centre), [1, -1, 0], atol=1e-6)


def test_ease_finds_the_pair_that_goes_together():
    # Users of the checkerboard: a and b are always taken together, c alone.
    taken = sparse.csr_array(np.array([[1, 1, 0]] * 10 + [[0, 0, 1]] * 10, dtype=np.float64))
    links = ease_links(taken, ["a", "b", "c"], links_per_campaign=1, regularisation=1.0)
    assert [(x.source, x.target) for x in links] == [("a", "b"), ("b", "a")]
    # Worked by hand: G + I = [[11, 10], [10, 11]] for a and b; -P_ab / P_bb = 10 / 11.
    assert links[0].weight == pytest.approx(10 / 11, abs=1e-6)


def test_ease_links_do_not_depend_on_the_order_of_users_and_ties_fall_by_id():
    rows = np.array([[1, 1, 1], [1, 1, 1]], dtype=np.float64)
    links = ease_links(sparse.csr_array(rows), ["z", "a", "m"], links_per_campaign=1, regularisation=1.0)
    assert [(x.source, x.target) for x in links] == [("a", "m"), ("m", "a"), ("z", "a")]


def test_ease_of_nothing_is_nothing():
    assert ease_links(sparse.csr_array((0, 0)), [], links_per_campaign=5) == []
    empty = sparse.csr_array((3, 2), dtype=np.float64)
    assert ease_links(empty, ["a", "b"], links_per_campaign=5) == list[CoEngagement]()
