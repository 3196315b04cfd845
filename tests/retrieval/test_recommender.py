"""Recommendations on embedded stores, for a company small enough to be understood whole."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from support import WordEncoder, fresh_settings, load

from recs.bootstrap import connect
from recs.errors import InputError, NotFoundError, OtherModelError
from recs.model import Campaign, Conversation, Engagement, Message, Preferences, Recommendations
from recs.ranking import COMPONENTS
from recs.retrieval import Recommender
from recs.retrieval import recommender as recommender_module
from recs.retrieval import signals as signals_module
from recs.retrieval.recommender import ANSWER_VERSION

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ODD = "a/b'\"🙂 %2F\\"


def conversation(number, user_id, text, *engagements, intent=None, then=()):
    return Conversation(
        conversation_id=f"c{number}",
        user_id=user_id,
        started_at=NOW - timedelta(days=100 - number),
        messages=(
            Message(role="agent", text="How can I help?"),
            *(Message(role="user", text=t) for t in (text, *then)),
        ),
        intent=intent,
        engagements=tuple(Engagement(campaign_id=c, action=a) for c, a in engagements),
    )


CONVERSATIONS = [
    conversation(1, "ann", "my garden needs seeds", ("seeds", "convert"), intent="garden", then=["garden"]),
    conversation(2, "bob", "garden seeds please", ("seeds", "like"), ("spade", "convert"), intent="garden"),
    conversation(3, "cat", "garden tools and seeds", ("spade", "convert"), ("paused", "like"), intent="garden"),
    conversation(4, "dan", "a cot for the baby", ("cot", "convert"), intent="nursery"),
    conversation(5, "eve", "the baby needs a cot", ("cot", "like"), ("mobile", "convert"), intent="nursery"),
    conversation(6, ODD, "baby cot", ("cot", "like"), ("mobile", "dislike"), intent="nursery"),
    conversation(7, "fay", "garden seeds for my garden", intent="garden", then=["garden"]),
    conversation(8, "gus", "no words of interest"),
    conversation(9, "hal", "garden garden seeds", ("spade", "like"), intent="garden"),
]
CAMPAIGNS = [
    Campaign(campaign_id="seeds", name="Seed week", description="seeds for the garden", intents=("garden",)),
    Campaign(campaign_id="spade", name="Spade sale", description="garden tools", intents=("garden",), channel="email"),
    Campaign(campaign_id="cot", name="Cot offer", description="a cot for the baby", intents=("nursery",)),
    Campaign(campaign_id="mobile", name="Mobile", description="baby mobile", intents=("nursery",)),
    Campaign(campaign_id="paused", name="Paused", description="garden seeds", intents=("garden",), status="paused"),
    Campaign(campaign_id="over", name="Over", description="garden seeds", ends_at=NOW - timedelta(days=1)),
]


@pytest.fixture(scope="module")
def company(servers, tmp_path_factory):
    settings = fresh_settings(servers, tmp_path_factory.mktemp("company"), "company")
    stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
    encoder = WordEncoder()
    load(stores, settings, encoder, CONVERSATIONS, CAMPAIGNS)
    recommender = Recommender(stores, settings, encoder=lambda: encoder, clock=lambda: NOW)
    yield stores, recommender
    recommender.close()
    stores.close()


def ids(answer):
    return [item.campaign_id for item in answer.items]


def reasons(answer):
    return {s.campaign_id: s.reason for s in answer.suppressed}


def test_who_talks_alike_took_it(company):
    _, recommender = company
    answer = recommender.recommend("fay", k=2, use_cache=False)
    assert answer.strategy == "hybrid"
    assert set(ids(answer)) == {"seeds", "spade"}
    takers = {"ann", "bob", "cat", "hal"}
    named = [e for item in answer.items for e in item.evidence if e.kind == "neighbour"]
    assert named
    assert {e.user_id for e in named} <= takers
    for piece in named:
        assert piece.quote is not None
        assert piece.own_quote is not None
        assert piece.own_quote.text == "garden seeds for my garden"
        # Though ann and fay both said "garden" too: the shortest messages are nearest, and tell least.
        assert piece.quote.message_index == 1
    assert [e.intent for e in answer.items[0].evidence if e.kind == "intent"] == ["garden"]


def test_the_parts_add_up_to_the_score_and_items_are_in_order(company):
    _, recommender = company
    for user_id in ("ann", "bob", "fay", ODD, "nobody"):
        answer = recommender.recommend(user_id, use_cache=False)
        for item in answer.items:
            assert sum(part.contribution for part in item.breakdown) == item.score
            assert [part.component for part in item.breakdown] == list(COMPONENTS)
        scores = [item.score for item in answer.items]
        assert scores == sorted(scores, reverse=True)
        assert [item.rank for item in answer.items] == list(range(1, len(scores) + 1))


def test_what_must_not_be_offered_is_left_out_with_its_reason(company):
    _, recommender = company
    ann = recommender.recommend("ann", use_cache=False)
    assert reasons(ann) == {"seeds": "already_converted", "paused": "campaign_paused", "over": "campaign_ended"}
    odd = recommender.recommend(ODD, use_cache=False)
    assert reasons(odd)["mobile"] == "disliked"
    assert reasons(odd)["cot"] == "already_liked"
    assert not set(ids(odd)) & set(reasons(odd))


def test_co_engagement_follows_the_graph_and_says_so(company):
    _, recommender = company
    answer = recommender.recommend("ann", use_cache=False)
    spade = next(item for item in answer.items if item.campaign_id == "spade")
    links = [e for e in spade.evidence if e.kind == "co_engagement"]
    assert [e.campaign_id for e in links] == ["seeds"]
    assert next(p for p in spade.breakdown if p.component == "co_engagement").contribution > 0


def test_an_unknown_user_gets_what_is_popular_and_it_says_so(company):
    _, recommender = company
    answer = recommender.recommend("nobody", use_cache=False)
    assert answer.strategy == "popular"
    assert answer.degraded == []
    # Three users took each of cot and spade, two took seeds, one the mobile.
    assert set(ids(answer)[:2]) == {"cot", "spade"}
    assert ids(answer)[2:] == ["seeds", "mobile"]
    assert all(p.value is None for p in answer.items[0].breakdown if p.component != "engagement_prior")


def test_a_text_instead_of_a_user(company):
    _, recommender = company
    answer = recommender.recommend_text(["looking for a cot", "for our baby"], k=1)
    assert (answer.strategy, answer.user_id) == ("text", None)
    assert ids(answer) == ["cot"]
    with pytest.raises(InputError, match="no words"):
        recommender.recommend_text(["\u200b", ""])


def test_the_neighbourhood(company):
    _, recommender = company
    found = recommender.neighbours("fay", k=3)
    assert {n.user_id for n in found} <= {"ann", "bob", "cat", "hal"}
    assert [n.similarity for n in found] == sorted((n.similarity for n in found), reverse=True)
    assert recommender.neighbours("fay", k=2) == found[:2]
    with pytest.raises(NotFoundError, match="nobody"):
        recommender.neighbours("nobody")


def test_an_audience_scores_users_as_their_own_recommendations_do(company):
    _, recommender = company
    found = recommender.audience("seeds")
    assert found.members
    assert found.members[0].user_id in {"fay", "cat", "hal"}
    for member in found.members:
        own = recommender.recommend(member.user_id, k=100, use_cache=False)
        assert next(i.score for i in own.items if i.campaign_id == "seeds") == member.score
        assert sum(p.contribution for p in member.breakdown) == member.score
    assert found.suppressed["already_converted"] == 1
    with pytest.raises(NotFoundError, match="nothing like it"):
        recommender.audience("nothing like it")


def test_an_answer_is_cached_under_one_id_and_recorded(company):
    stores, recommender = company
    first = recommender.recommend("fay")
    again = recommender.recommend("fay")
    assert (first.cached, again.cached) == (False, True)
    assert again == first.model_copy(update={"cached": True})
    assert recommender.recommend("fay", k=3).recommendation_id != first.recommendation_id
    shown = stores.state.shown(first.recommendation_id)
    assert shown is not None
    kept = type(first).model_validate_json(shown)
    assert [(i.campaign_id, i.score) for i in kept.items] == [(i.campaign_id, i.score) for i in first.items]
    # Other users' words are shown, not kept.
    assert first.items[0].evidence
    assert "evidence" not in shown.replace('"evidence":[]', "")


def test_consent_is_honoured_by_the_next_request(company):
    stores, recommender = company
    assert "ann" in {n.user_id for n in recommender.neighbours("fay", k=8)}
    before = recommender.recommend("fay")
    assert recommender.recommend("fay").cached
    stores.state.put_preferences([Preferences(user_id="ann", profiling=False)])
    try:
        after = recommender.recommend("fay")
        assert not after.cached
        assert after.recommendation_id != before.recommendation_id
        assert "ann" not in after.model_dump_json()
        assert "ann" not in {n.user_id for n in recommender.neighbours("fay", k=8)}
        own = recommender.recommend("ann")
        assert own.strategy == "popular"
        assert reasons(own)["seeds"] == "already_converted"
        with pytest.raises(NotFoundError):
            recommender.neighbours("ann")
    finally:
        stores.state.put_preferences([Preferences(user_id="ann")])


def test_channels_are_honoured(company):
    stores, recommender = company
    stores.state.put_preferences([Preferences(user_id="fay", channels={"email": False})])
    try:
        assert reasons(recommender.recommend("fay"))["spade"] == "channel_opt_out"
        stores.state.put_preferences([Preferences(user_id="fay", channels=())])
        nothing = recommender.recommend("fay")
        assert nothing.items == []
        assert set(reasons(nothing).values()) == {"opted_out"}
    finally:
        stores.state.put_preferences([Preferences(user_id="fay")])


def test_weights_set_by_hand_change_the_ranking(company):
    stores, recommender = company
    by_hand = recommender._settings.model_copy(
        update={"weights": dict.fromkeys(COMPONENTS, 0.0) | {"engagement_prior": 1.0}}
    )
    other = Recommender(stores, by_hand, clock=lambda: NOW)
    try:
        answer = other.recommend("fay")
        assert set(ids(answer)[:2]) == {"cot", "spade"}
        with pytest.raises(InputError, match="encoder"):
            other.recommend_text(["hello"])
    finally:
        other.close()


def test_before_the_first_publish(servers, tmp_path):
    stores = connect(
        servers.model_copy(
            update={"state_url": f"sqlite:///{tmp_path}/state.db", "sql_url": f"sqlite:///{tmp_path}/a.db"}
        )
    )
    recommender = Recommender(stores, servers)
    try:
        with pytest.raises(NotFoundError, match="published"):
            recommender.recommend("ann")
    finally:
        recommender.close()
        stores.close()


def test_a_text_is_not_compared_with_vectors_of_another_model(company, servers):
    stores, _ = company
    other = WordEncoder()
    other.identity = "others/float32"
    recommender = Recommender(stores, servers, encoder=lambda: other, clock=lambda: NOW)
    with pytest.raises(OtherModelError, match=r"of model words/float32, .* with others/float32 here: set RECS_MODEL"):
        recommender.recommend_text(["garden"])
    # The same weights with other arithmetic are the same model.
    other.identity = "words/bfloat16"
    assert recommender.recommend_text(["garden"]).items
    recommender.close()


def test_answers_of_another_version_are_not_read_from_the_cache(company, monkeypatch):
    stores, recommender = company
    head = stores.state.head()
    key = recommender.cache_key(head, "fay", 3, True)
    recommender.keep(key, recommender.compute(head, "fay", k=3, explain=True))
    assert recommender.cached(key) is not None
    monkeypatch.setattr(recommender_module, "ANSWER_VERSION", ANSWER_VERSION + 1)
    assert recommender.cached(recommender.cache_key(head, "fay", 3, True)) is None
    # An erasure clears what every version has kept.
    stores.cache.clear()
    assert recommender.cached(key) is None


def test_a_changed_answer_has_a_new_version():
    """Where this fails, raise ANSWER_VERSION and put the new digest here."""
    fields = json.dumps(_without_words(Recommendations.model_json_schema()), sort_keys=True)
    assert (ANSWER_VERSION, hashlib.sha256(fields.encode()).hexdigest()[:12]) == (2, "195be8f03b62")


def _without_words(schema):
    if isinstance(schema, dict):
        return {k: _without_words(v) for k, v in schema.items() if k not in ("description", "title", "default")}
    return [_without_words(v) for v in schema] if isinstance(schema, list) else schema


def test_users_who_took_the_same_count_and_are_named(company):
    _, recommender = company
    # bob took ann's seeds and the spade; cat and hal took nothing that she took.
    signals, _ = recommender.score("ann")
    assert [(m.user_id, m.weight) for m in signals.alike] == [("bob", 1.0)]
    assert signals.alike[0].similarity == pytest.approx(1 / np.sqrt(2))
    spade = next(i for i in recommender.recommend("ann", use_cache=False).items if i.campaign_id == "spade")
    (alike,) = [e for e in spade.evidence if e.kind == "engaged_alike"]
    assert (alike.user_id, alike.action, alike.campaign_id, alike.weight) == ("bob", "convert", "seeds", 1.0)
    assert next(p for p in spade.breakdown if p.component == "engaged_alike").contribution > 0


def test_who_took_nothing_has_nobody_who_took_the_same(company):
    _, recommender = company
    signals, scored = recommender.score("fay")
    assert signals.alike == ()
    assert all(p.value is None for p in scored.breakdown(0) if p.component in ("engaged_alike", "co_engagement"))


def test_who_opted_out_is_not_among_those_who_took_the_same(company):
    stores, recommender = company
    stores.state.put_preferences([Preferences(user_id="bob", profiling=False)])
    try:
        signals, _ = recommender.score("ann")
        assert signals.alike == ()
        assert "bob" not in {edge.user_id for edge in signals.edges}
    finally:
        stores.state.put_preferences([Preferences(user_id="bob")])


def test_what_many_took_is_looked_through_last(company, monkeypatch):
    stores, recommender = company
    asked = []
    monkeypatch.setattr(type(stores.graph), "sharing", lambda self, ids, limit: asked.append(ids) or [])
    recommender.score(ODD)
    recommender.score("bob")  # seeds has two takers, the spade three
    monkeypatch.setattr(signals_module, "_ALIKE_ENGAGEMENTS", 4)
    recommender.score("bob")
    monkeypatch.setattr(signals_module, "_ALIKE_ENGAGEMENTS", 1)
    recommender.score("bob")
    assert asked == [["cot"], ["seeds", "spade"], ["seeds"], ["seeds"]]
