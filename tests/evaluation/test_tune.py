"""Weights that are learned: only on evidence, from what serving would have known, and used by serving afterwards."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_data import POSITIVE, conversation, dataset
from support import WordEncoder, fresh_settings, load

from recs.batch.fits import forget_fits, keep_fit, kept_fits
from recs.bootstrap import connect
from recs.evaluation import folds as folds_module
from recs.evaluation import leave_last_out
from recs.evaluation.folds import text_folds, user_folds
from recs.evaluation.learning import learn_weights, read_learned
from recs.evaluation.past import Past
from recs.evaluation.split import texts_between
from recs.evaluation.tune import Fold, fit_weights
from recs.model import Message, Preferences
from recs.ranking import COMPONENTS, DEFAULT_WEIGHTS
from recs.retrieval import Recommender

SAID = {"g": "garden seeds and a spade", "b": "a cot for the baby"}
SEED = 7


def company():
    """Gardeners and parents, who take and meet campaigns in turn; some have intents, some said nothing."""
    rows = [
        conversation(
            f"{kind}{user}-{turn}",
            f"{kind}{user}",
            10 * turn + user,
            (likes[(user + turn) % 3], "like"),
            (likes[(user + turn) % 3 + 1], "convert", 10 * turn + user),
            (likes[(user + 2 * turn) % 4], "mention" if user % 2 else "dislike"),
            text=f"{SAID[kind]} number{user}",
            intent=kind if user % 3 else None,
        )
        for kind, likes in (("g", "abca"), ("b", "defd"))
        for user in range(6)
        for turn in range(2 + user % 2)
    ]
    silent = [
        conversation(f"s-{turn}", "silent", turn, (c, "like"), said=(Message(role="agent", text="hello"),))
        for turn, c in enumerate("ab")
    ]
    return dataset(*rows, *silent, conversation("l", "looker", 3, ("a", "view"), text="garden"))


@pytest.fixture(scope="module")
def stored(servers, tmp_path_factory):
    settings = fresh_settings(servers, tmp_path_factory.mktemp("tune"), "tune")
    stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
    data, encoder = company(), WordEncoder()
    load(stores, settings, encoder, [s.conversation for s in data.conversations], data.campaigns)
    recommender = Recommender(stores, settings, encoder=lambda: encoder)
    yield data, stores, recommender, settings, encoder
    recommender.close()
    stores.close()


def test_what_would_have_been_known_is_what_serving_knows(stored):
    data, stores, recommender, settings, encoder = stored
    generation = stores.state.generation()
    index = stores.vectors.open(generation.build)
    learned = read_learned(stores, settings, generation, index, texts=False)
    past = Past(
        learned.conversations,
        learned.vectors,
        learned.nodes,
        learned.campaign_vectors,
        settings,
        predicted=learned.predicted,
    )
    for user_id in (*sorted({s.conversation.user_id for s in data.conversations}), "nobody"):
        served, _ = recommender.score(user_id)
        found = past.signals(user_id)
        assert found.known.pool == served.known.pool
        assert found.known.alike == served.known.alike
        assert found.known.edges == served.known.edges
        assert found.known.links == served.known.links
        np.testing.assert_allclose(found.raw, served.raw, rtol=1e-9, atol=1e-12)
    asked = encoder.encode(["garden baby"])[0]
    served, _ = recommender.score_text(["garden baby"])
    np.testing.assert_allclose(past.signals_of_text(asked).raw, served.raw, rtol=1e-9, atol=1e-12)


def test_who_opted_out_is_not_learned_from(stored):
    _, stores, _, settings, _ = stored
    generation = stores.state.generation()
    stores.state.put_preferences([Preferences(user_id="g1", profiling=False)])
    try:
        index = stores.vectors.open(generation.build)
        learned = read_learned(stores, settings, generation, index, texts=False)
        assert "g1" not in {s.conversation.user_id for s in learned.conversations}
    finally:
        stores.state.put_preferences([Preferences(user_id="g1")])


def test_folds_go_back_one_conversation_at_a_time_and_never_know_the_answer(stored, monkeypatch):
    data, stores, _, settings, _ = stored
    generation = stores.state.generation()
    learned = read_learned(stores, settings, generation, stores.vectors.open(generation.build), texts=False)
    first = leave_last_out(data, POSITIVE)
    assert user_folds(learned, settings, POSITIVE) == []  # too few to say anything
    monkeypatch.setattr(folds_module, "LEAST_CASES", 2)
    fold, earlier = user_folds(learned, settings, POSITIVE)
    assert (fold.name, earlier.name) == ("last but 1", "last but 2")
    assert set(earlier.users) <= {f"{kind}{user}" for kind in "gb" for user in (1, 3, 5)}
    new = {c.user_id for c in first.cases}
    assert set(fold.users) <= new
    assert fold.targets.any(axis=1).all()
    assert not (fold.targets & ~fold.unseen).any()
    assert np.isfinite(fold.values).all()
    assert fold.values.shape == (len(fold.users), len(COMPONENTS), 6)


def test_texts_are_asked_about_in_order_of_time():
    data = company()
    split = texts_between(data, POSITIVE, 0.6, 0.8)
    last = max(s.order_key() for s in split.train)
    assert all(case.query is not None for case in split.cases)
    assert all(last < s.order_key() for case in split.cases for s in case.held_out)
    assert len(split.cases) == 7


def fold(values, targets, *, name="fold", moments=None):
    """Return a fold of which only these components say anything."""
    shape = (len(targets), len(COMPONENTS), np.shape(targets)[1])
    filled = np.zeros(shape, dtype=np.float32)
    for component, given in values.items():
        filled[:, COMPONENTS.index(component)] = given
    users = tuple(f"u{i}" for i in range(len(targets)))
    moments = moments or tuple((1, float(i)) for i in range(len(targets)))
    return Fold(name, filled, np.asarray(targets, dtype=bool), np.ones_like(targets, dtype=bool), users, moments)


def noise(cases, campaigns, seed):
    return np.random.default_rng(seed).normal(size=(cases, campaigns))


def answers(cases, campaigns):
    return np.eye(campaigns, dtype=bool)[np.arange(cases) % campaigns]


def test_a_component_that_misleads_loses_its_weight():
    targets = answers(200, 30)
    found = fit_weights(
        [fold({"co_engagement": noise(200, 30, 1), "content": targets * 2 + noise(200, 30, 2)}, targets)],
        DEFAULT_WEIGHTS,
        seed=SEED,
    )
    assert found.weights["co_engagement"] < 0.3 * found.weights["content"]
    assert found.ndcg > found.ndcg_default
    assert found.gain_low > 0
    assert found.steps
    assert min(found.weights.values()) >= 0


def test_what_says_nothing_leaves_the_default():
    targets = answers(200, 30)
    for seed in range(10, 20):
        values = {name: noise(200, 30, 100 * seed + i) for i, name in enumerate(COMPONENTS)}
        found = fit_weights([fold(values, targets)], DEFAULT_WEIGHTS, seed=SEED)
        assert found.weights == dict(DEFAULT_WEIGHTS)
        assert found.ndcg == found.ndcg_default


def test_a_handful_of_users_leaves_the_default():
    targets = answers(6, 30)
    found = fit_weights(
        [fold({"co_engagement": noise(6, 30, 1), "content": targets + noise(6, 30, 2)}, targets)],
        DEFAULT_WEIGHTS,
        seed=SEED,
    )
    assert found.weights == dict(DEFAULT_WEIGHTS)
    assert fit_weights([], DEFAULT_WEIGHTS, seed=SEED).weights == dict(DEFAULT_WEIGHTS)


def test_what_helped_once_and_helps_no_more_is_not_learned():
    targets = answers(300, 30)
    early = (np.arange(300) < 200)[:, None]
    content = np.where(early, targets * 3 + noise(300, 30, 2), targets * -3 + noise(300, 30, 3))
    values = {"co_engagement": targets * 0.5 + noise(300, 30, 1), "content": content}
    drifting = fit_weights([fold(values, targets)], DEFAULT_WEIGHTS, seed=SEED)
    assert drifting.weights["content"] <= DEFAULT_WEIGHTS["content"]


def test_one_user_in_many_folds_is_one_observation():
    targets = answers(8, 30)
    values = {"co_engagement": noise(8, 30, 1), "content": targets * 1.2 + noise(8, 30, 2)}
    many = [fold(values, targets, name=str(i)) for i in range(50)]
    assert fit_weights(many, DEFAULT_WEIGHTS, seed=SEED).weights == dict(DEFAULT_WEIGHTS)


def test_what_is_learned_is_kept_with_the_next_generation_and_served(stored):
    _, stores, recommender, settings, encoder = stored
    fit, told = learn_weights(stores, settings, stores.state.generation(), actions=POSITIVE, seed=SEED)
    assert told["weights"] == fit.weights
    assert json.loads(json.dumps(told)) == told
    assert told["data"]["users"] == 14
    before = recommender.score("g1")[1]
    keep_fit(stores.state, "users", {**told, "weights": {**fit.weights, "content": 2.0}})
    keep_fit(stores.state, "texts", {**told, "weights": {**fit.weights, "content": 5.0}})
    try:
        assert stores.state.is_dirty()
        generation = load(stores, settings, encoder)
        assert generation.weights["content"] == 2.0
        assert generation.text_weights["content"] == 5.0
        assert stores.state.generation().fit == kept_fits(stores.state).told()
        after = recommender.score("g1")[1]
        assert after.weights["content"] == 2.0
        assert not np.array_equal(after.scores, before.scores)
        assert recommender.score_text(["garden"])[1].weights["content"] == 5.0
    finally:
        forget_fits(stores.state)
        again = load(stores, settings, encoder)
    assert again.weights == dict(DEFAULT_WEIGHTS)
    assert (again.text_weights, again.fit) == ({}, {})
    assert np.array_equal(recommender.score("g1")[1].scores, before.scores)


def test_texts_can_be_learned_from(stored, monkeypatch):
    _, stores, _, settings, _ = stored
    generation = stores.state.generation()
    learned = read_learned(stores, settings, generation, stores.vectors.open(generation.build), texts=True)
    assert learned.texts
    # The company is too small for a fold of the least size.
    assert text_folds(learned, settings, POSITIVE) == []
    monkeypatch.setattr(folds_module, "LEAST_CASES", 2)
    late, earlier = text_folds(learned, settings, POSITIVE)
    assert (late.name, earlier.name) == ("texts 80% to 100%", "texts 60% to 80%")
    known = [COMPONENTS[i] for i in range(len(COMPONENTS)) if late.values[:, i].any()]
    assert known == ["similar_users", "content", "engagement_prior"]
    monkeypatch.undo()
    _, told = learn_weights(stores, settings, generation, actions=POSITIVE, seed=SEED, who="texts")
    assert told["cases"] == 0
    assert told["weights"] == dict(DEFAULT_WEIGHTS)
