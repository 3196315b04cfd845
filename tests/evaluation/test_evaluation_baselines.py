"""Each baseline on data that can be ranked in the head, and the figures that come of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_data import POSITIVE, conversation, dataset

from recs.errors import InputError
from recs.evaluation import arrays_of, baseline_methods, baselines, evaluate, leave_last_out, split_by_field
from recs.evaluation.baselines import Words
from recs.ranking import ease_links

CASES = np.array([0, 1])


def company(**more):
    """Two who share a taste and are tested (ann, bob), others who took the same (cat: a, b, c) or not (dan, eve: d)."""
    return dataset(
        conversation("d1", "dan", 1, ("d", "like")),
        conversation("c1", "cat", 2, ("a", "like"), ("b", "like"), ("c", "convert"), ("c", "like")),
        conversation("a1", "ann", 3, ("a", "like"), ("e", "view"), ("e", "mention")),
        conversation("b1", "bob", 4, ("a", "like"), ("b", "convert")),
        conversation("a2", "ann", 5, ("b", "like")),
        conversation("e1", "eve", 6, ("d", "like")),
        conversation("b2", "bob", 7, ("c", "like"), ("b", "like")),
        categories={"a": ("x",), "b": ("x",), "c": ("x", "y"), "d": ("y",)},
        **more,
    )


@pytest.fixture
def arrays():
    return arrays_of(leave_last_out(company(), POSITIVE), company().campaigns, POSITIVE)


def words(arrays):
    """Let ann talk like cat, bob like dan, and eve say nothing."""
    angle = {"ann": 0.0, "bob": 2.0, "cat": 0.1, "dan": 2.2, "eve": math.nan}
    users = np.array([[math.cos(angle[u]), math.sin(angle[u])] for u in arrays.user_ids], dtype=np.float32)
    return Words(users, users[arrays.rows])


def test_matrices(arrays):
    assert arrays.user_ids == ("ann", "bob", "cat", "dan", "eve")
    assert arrays.taken.toarray()[:3].tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert arrays.met.toarray()[0].tolist() == [1, 0, 0, 0, 2, 0]
    assert arrays.rows.tolist() == [0, 1]
    assert arrays.conversations.tolist() == [1, 1]
    assert arrays.targets.toarray().tolist() == [[0, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0]]
    assert arrays.had.toarray().tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]


def test_popularity_counts_users(arrays):
    assert baselines.popularity(arrays)(CASES).tolist() == [[3, 2, 1, 2, 0, 0]] * 2


def test_popularity_before_does_not_know_what_comes(arrays):
    # Before ann's second conversation eve had not been there yet.
    assert baselines.popularity_before(arrays)(CASES).tolist() == [[3, 2, 1, 1, 0, 0], [3, 2, 1, 2, 0, 0]]


def test_popularity_by_category_stays_in_what_the_user_took(arrays):
    ann = baselines.popularity_by_category(arrays)(CASES)[0]
    assert np.argsort(-ann, kind="stable").tolist() == [0, 1, 2, 3, 4, 5]
    assert ann[1] > 1 > ann[3] > 0 == ann[4]


def test_repeat_counts_what_was_met(arrays):
    assert baselines.repeat(arrays)(CASES)[0].tolist() == [1, 0, 0, 0, 2, 0]


def test_item_knn_sums_cosines_of_takers(arrays):
    ann, bob = baselines.item_knn(arrays)(CASES)
    a_b, a_c, b_c = 2 / math.sqrt(6), 1 / math.sqrt(3), 1 / math.sqrt(2)
    assert ann == pytest.approx([0, a_b, a_c, 0, 0, 0])
    assert bob == pytest.approx([a_b, a_b, a_c + b_c, 0, 0, 0])


def test_user_knn_sums_cosines_of_those_who_took_the_same(arrays):
    ann, _ = baselines.user_knn(arrays)(CASES)
    bob, cat = 1 / math.sqrt(2), 1 / math.sqrt(3)
    assert ann == pytest.approx([bob + cat, bob + cat, cat, 0, 0, 0])
    nearest, _ = baselines.user_knn(arrays, neighbours=1)(CASES)
    assert nearest == pytest.approx([bob, bob, 0, 0, 0, 0])


def test_users_who_talk_alike(arrays):
    ann, bob = baselines.user_knn_text(arrays, words(arrays), neighbours=1)(CASES)
    assert (ann > 0).tolist() == [True, True, True, False, False, False]
    assert (bob > 0).tolist() == [False, False, False, True, False, False]
    # As the vectors are, only cat is on ann's side: those who are not alike at all count nothing.
    ann, _ = baselines.top5_neighbours(arrays, words(arrays))(CASES)
    assert ann == pytest.approx([math.cos(0.1)] * 3 + [0] * 3, abs=1e-6)
    assert ann[0] > ann[1] > ann[2]  # the more popular first


def test_ease_is_the_model_that_co_engagement_is_cut_from(arrays):
    links = {
        (x.source, x.target): x.weight for x in ease_links(arrays.taken, arrays.campaign_ids, links_per_campaign=9)
    }
    ann, bob = baselines.ease(arrays)(CASES)
    assert ann == pytest.approx([links.get(("a", c), 0.0) for c in arrays.campaign_ids], abs=1e-6)
    expected = [links.get(("a", c), 0.0) + links.get(("b", c), 0.0) for c in arrays.campaign_ids]
    assert bob == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("name", ["als", "bpr", "random"])
def test_what_is_drawn_is_drawn_alike_every_time(arrays, name):
    method = getattr(baselines, name)
    first = method(arrays, seed=1)(CASES)
    assert first.tolist() == method(arrays, seed=1)(CASES).tolist()
    assert first.tolist() != method(arrays, seed=2)(CASES).tolist()
    # Whichever other cases come along.
    assert method(arrays, seed=1)(CASES[1:])[0] == pytest.approx(first[1], rel=1e-9, abs=1e-15)


def test_als_finds_what_goes_together(arrays):
    bob = baselines.als(arrays, seed=1)(CASES)[1]
    assert bob[2] > bob[3]


def test_who_is_not_known_gets_what_is_popular():
    found = dataset(
        conversation("d1", "dan", 1, ("d", "like"), split="dev"),
        conversation("t1", "new", 2, ("d", "like"), split="test", brand="y"),
        categories={"d": ("y",)},
    )
    arrays = arrays_of(split_by_field(found, POSITIVE, "split"), found.campaigns, POSITIVE)
    methods = baseline_methods(arrays, None)
    assert set(methods) == {"random", "popularity", "popularity_by_category"}
    assert baselines.item_knn(arrays)(np.array([0])).tolist() == [[0, 0, 0, 1, 0, 0]]
    # The conversation names its brand, which is a category.
    assert methods["popularity_by_category"](np.array([0]))[0, 3] > 1


def test_figures_new_only_and_all(arrays):
    methods = {"hybrid": baselines.item_knn(arrays), **baseline_methods(arrays, words(arrays), seed=1)}
    found = evaluate(arrays, methods, seed=1)
    figures = found.figures
    assert figures["users"] == 2
    assert found.segments == {"one": 2}
    # The first new one for both is the one that was held out; with nothing left out, bob is offered a again.
    assert figures["ndcg@10.item_knn"] == figures["mrr.item_knn"] == 1.0
    assert figures["mrr.item_knn.all"] == 1.0
    assert figures["mrr.popularity.all"] == pytest.approx(0.5)
    assert figures["hit_rate@5.item_knn"] == 1.0
    assert figures["coverage@10.item_knn"] == pytest.approx(5 / 6)  # a is new to nobody
    assert figures["p.hybrid_vs.item_knn"] == 1.0
    assert figures["difference.hybrid_vs.popularity"] >= 0
    for name in found.methods:
        for metric in ("recall@10", "ndcg@10", "novelty@10"):
            assert figures[f"{metric}.{name}.low"] <= figures[f"{metric}.{name}"] <= figures[f"{metric}.{name}.high"]
    assert all(math.isfinite(value) for value in figures.values())
    assert evaluate(arrays, methods, seed=1).figures == figures


def test_nothing_new_to_find_is_said():
    found = dataset(conversation("a1", "ann", 1, ("a", "like")), conversation("a2", "ann", 2, ("a", "like")))
    arrays = arrays_of(leave_last_out(found, POSITIVE), found.campaigns, POSITIVE)
    with pytest.raises(InputError, match="new to them"):
        evaluate(arrays, {"popularity": baselines.popularity(arrays)})
