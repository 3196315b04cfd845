"""What explanations say would be the case, against stores in which it is."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from support import WordEncoder, fresh_settings, load

from recs.batch import intents, relationships, vectors
from recs.bootstrap import connect
from recs.errors import InputError, NotFoundError, StoreUnavailableError
from recs.model import ACTION_STRENGTH, Campaign, Conversation, Engagement, Message, Preferences
from recs.ranking import COMPONENTS
from recs.retrieval import Recommender, counterfactual, signals
from recs.retrieval.dissent import dissent_of
from recs.retrieval.stability import overlap

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ODD = "a/b'\"🙂 %2F\\"
TOPICS = {
    "garden": "seeds spade soil lawn roses hedge watering compost",
    "nursery": "cot baby mobile pram nappies bottle crib blanket",
    "office": "desk chair lamp screen keyboard paper printer cable",
}
CAMPAIGNS = [
    Campaign(
        campaign_id=f"{topic}/{i}",
        name=f"{topic.title()} offer {i}",
        description=" ".join(TOPICS[topic].split()[i : i + 3]),
        intents=(topic,) if i % 2 else (),
        status="paused" if i == 5 else "active",
    )
    for topic in TOPICS
    for i in range(6)
]
CAMPAIGN_IDS = sorted(c.campaign_id for c in CAMPAIGNS)
ACTIONS = ["view", "click", "like", "convert", "convert", "mention", "dislike"]


def _conversations():
    """Some people who talk and buy by topic, more or less; every third conversation has no label."""
    rng = random.Random(11)
    found = []
    for number in range(30):
        user_id = ODD if number == 0 else f"u{number:02}"
        first, second = rng.sample(sorted(TOPICS), 2)
        for _ in range(rng.randint(1, 5)):
            topic = first if rng.random() < 0.75 else second
            place = len(found)
            texts = [" ".join(rng.choices(TOPICS[topic].split(), k=4)) for _ in range(rng.randint(1, 3))]
            found.append(
                Conversation(
                    conversation_id=f"c/{place} of {user_id}",
                    user_id=user_id,
                    started_at=NOW - timedelta(days=rng.choice([2, 3, 30, 90, 200]), minutes=place),
                    messages=(
                        Message(role="agent", text="How can I help?"),
                        *(Message(role="user", text=text) for text in texts),
                        Message(role="user", text="  "),
                    ),
                    intent=None if place % 3 == 0 else topic,
                    engagements=(
                        *(
                            Engagement(campaign_id=f"{topic}/{rng.randrange(6)}", action=rng.choice(ACTIONS))
                            for _ in range(rng.randint(0, 3))
                        ),
                        # One that the catalogue does not have, and the graph therefore leaves out.
                        *((Engagement(campaign_id="long gone", action="convert"),) if place % 5 == 0 else ()),
                    ),
                )
            )
    return found


CONVERSATIONS = _conversations()
USERS = sorted({c.user_id for c in CONVERSATIONS})
SOME_USERS = [ODD, *USERS[3:18:3]]


class Company:
    def __init__(self, settings):
        self.settings = settings
        self.stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
        self.encoder = WordEncoder()
        load(self.stores, settings, self.encoder, CONVERSATIONS, CAMPAIGNS)
        self.recommender = Recommender(self.stores, settings, encoder=lambda: self.encoder, clock=lambda: NOW)

    def of(self, user_id):
        return self.stores.documents.of_users([user_id])

    @contextmanager
    def where(self, user_id, conversations):
        """Let a user have these conversations for a while, in every store, under the same generation."""
        before = self.of(user_id)
        self._project(user_id, before, conversations)
        try:
            yield
        finally:
            self._project(user_id, conversations, before)

    def _project(self, user_id, old, new):
        stores = self.stores
        index = stores.vectors.open("b1")
        ids = sorted({s.conversation.conversation_id for s in [*old, *new]})
        stores.documents.delete_conversations(ids)
        stores.documents.insert(new)
        embedder = vectors.Embedder(self.encoder, index, max_text_chars=self.settings.max_text_chars)
        vectors.load_embedded(index, vectors.embed_conversations(stores, embedder, ids))
        predictor = intents.Predictor(stores, index, self.encoder.identity)
        relationships.load_relationships(stores, [user_id], predictor)
        relationships.load_facts(stores, ids)
        vectors.load_user_vectors(stores, index, [user_id], half_life_days=self.settings.recency_half_life_days)
        for space in ("conversations", "users"):
            index.count(space)  # what this has seen, answers see too

    @contextmanager
    def opted_out(self, user_id):
        self.stores.state.put_preferences([Preferences(user_id=user_id, profiling=False)])
        try:
            yield
        finally:
            self.stores.state.put_preferences([Preferences(user_id=user_id)])


@pytest.fixture(scope="module")
def company(servers, tmp_path_factory):
    settings = fresh_settings(servers, tmp_path_factory.mktemp("whatif"), "whatif")
    company = Company(settings.model_copy(update={"neighbour_pool": 6, "frequency_cap": 1}))
    yield company
    company.recommender.close()
    company.stores.close()


def assert_same(standing, real):
    """What would follow is what does follow, to the last bit."""
    found, scored = real
    np.testing.assert_array_equal(standing.signals.raw, found.raw)
    assert standing.signals.pool == found.pool
    assert standing.signals.alike == found.alike
    assert standing.signals.edges == found.edges
    assert standing.signals.own == found.own
    assert standing.signals.links == found.links
    assert standing.signals.recent_views == found.recent_views
    np.testing.assert_array_equal(standing.scored.parts, scored.parts)
    np.testing.assert_array_equal(standing.scored.scores, scored.scores)
    np.testing.assert_array_equal(standing.scored.order, scored.order)
    assert standing.scored.reasons == scored.reasons


def assert_tells(told, before, after):
    """A counterfactual says of each item what the two real answers say."""
    old = {item.campaign_id: item for item in before.items}
    new = {item.campaign_id: item for item in after.items}
    top_before, top_after = ([item.campaign_id for item in answer.items[: told.k]] for answer in (before, after))
    assert told.entered == [c for c in top_after if c not in top_before]
    assert told.left == [c for c in top_before if c not in top_after]
    assert [move.campaign_id for move in told.items] == [*top_before, *told.entered]
    for move in told.items:
        for item, rank, score, side in (
            (old.get(move.campaign_id), move.rank_before, move.score_before, "before"),
            (new.get(move.campaign_id), move.rank_after, move.score_after, "after"),
        ):
            assert (item is None) == (rank is None)
            if item is not None:
                assert (rank, score) == (item.rank, item.score)
                assert [getattr(p, side) for p in move.parts] == [p.contribution for p in item.breakdown]
        assert [p.component for p in move.parts] == list(COMPONENTS)
        assert sum(p.difference for p in move.parts) == move.difference == move.score_after - move.score_before


def test_nothing_taken_away_is_what_is_answered(company):
    for user_id in USERS:
        assert_same(company.recommender.what_if(user_id).before, company.recommender.score(user_id))


def test_the_data_have_what_the_tests_are_about(company):
    reasons, moved_up = Counter(), 0
    for user_id in USERS:
        found, scored = company.recommender.score(user_id)
        reasons.update(scored.reasons)
        moved_up += len(found.pool) == 6
        assert found.own is not None
    assert {"already_converted", "disliked", "campaign_paused", "frequency_cap", None} <= set(reasons)
    assert moved_up == len(USERS)
    assert any(company.recommender.score(user_id)[0].own.predicted for user_id in SOME_USERS)
    assert any(company.recommender.score(user_id)[0].alike for user_id in SOME_USERS)
    # Some have one conversation: without it they are nobody.
    assert 1 in {len(company.of(user_id)) for user_id in SOME_USERS}
    assert max(len(company.of(user_id)) for user_id in SOME_USERS) > 3


@pytest.mark.parametrize("user_id", SOME_USERS, ids=ascii)
def test_without_a_neighbour_is_as_if_they_had_opted_out(company, user_id):
    recommender = company.recommender
    what_if = recommender.what_if(user_id)
    before = recommender.recommend(user_id, k=100, use_cache=False)
    members = dict.fromkeys(u for u, _ in (*what_if.known.pool, *what_if.known.alike))
    for neighbour_id in list(members)[:8]:
        standing = what_if.standing(what_if.without("neighbour", neighbour_id))
        told = recommender.counterfactual(user_id, "neighbour", neighbour_id, k=4)
        with company.opted_out(neighbour_id):
            assert_same(standing, recommender.score(user_id))
            assert_tells(told, before, recommender.recommend(user_id, k=100, use_cache=False))
        assert neighbour_id not in {m.user_id for m in standing.signals.pool}
        # The next in line has moved up.
        assert len(standing.signals.pool) == len(what_if.known.pool)


def test_the_next_moves_up_among_those_who_took_the_same(company, monkeypatch):
    for module in (signals, counterfactual):
        monkeypatch.setattr(module, "ALIKE_USERS", 2)
    recommender = company.recommender
    user_id = next(u for u in USERS if len(recommender.what_if(u)._alike) > 3)
    what_if = recommender.what_if(user_id)
    first, second = (u for u, _ in what_if.known.alike)
    standing = what_if.standing(what_if.without("neighbour", first))
    assert standing.signals.alike[0].user_id == second
    assert len(standing.signals.alike) == 2
    with company.opted_out(first):
        assert_same(standing, recommender.score(user_id))


@pytest.mark.parametrize("user_id", SOME_USERS, ids=ascii)
def test_without_a_conversation_is_as_if_it_were_deleted(company, user_id):
    recommender = company.recommender
    what_if = recommender.what_if(user_id)
    before = recommender.recommend(user_id, k=100, use_cache=False)
    theirs = company.of(user_id)
    for gone in theirs:
        its_id = gone.conversation.conversation_id
        standing = what_if.standing(what_if.without("conversation", its_id))
        told = recommender.counterfactual(user_id, "conversation", its_id, k=4)
        with company.where(user_id, [s for s in theirs if s is not gone]):
            found, scored = recommender.score(user_id)
            if len(theirs) > 1:
                np.testing.assert_array_equal(standing.signals.vector, found.vector)
            assert_same(standing, (found, scored))
            assert_tells(told, before, recommender.recommend(user_id, k=100, use_cache=False))


@pytest.mark.parametrize("user_id", SOME_USERS, ids=ascii)
def test_without_a_campaign_is_as_if_they_had_never_met_it(company, user_id):
    recommender = company.recommender
    what_if = recommender.what_if(user_id)
    before = recommender.recommend(user_id, k=100, use_cache=False)
    theirs = company.of(user_id)
    assert what_if.known.own is not None
    for campaign_id in sorted({e.campaign_id for e in what_if.known.own.engagements}):
        standing = what_if.standing(what_if.without("campaign", campaign_id))
        told = recommender.counterfactual(user_id, "campaign", campaign_id, k=4)
        assert told.without_name is not None
        with company.where(user_id, [_without_campaign(s, campaign_id) for s in theirs]):
            assert_same(standing, recommender.score(user_id))
            assert_tells(told, before, recommender.recommend(user_id, k=100, use_cache=False))


def test_views_that_are_taken_away_do_not_count_towards_the_cap(company):
    recommender = company.recommender
    spared = set()
    for user_id in USERS:
        theirs = company.of(user_id)
        what_if = recommender.what_if(user_id)
        for campaign_id in what_if.known.recent_views:
            without = what_if.standing(what_if.without("campaign", campaign_id))
            with company.where(user_id, [_without_campaign(s, campaign_id) for s in theirs]):
                assert_same(without, recommender.score(user_id))
            gone = next(s for s in theirs if Engagement(campaign_id=campaign_id, action="view") in _engagements(s))
            without = what_if.standing(what_if.without("conversation", gone.conversation.conversation_id))
            with company.where(user_id, [s for s in theirs if s is not gone]):
                assert_same(without, recommender.score(user_id))
            column = CAMPAIGN_IDS.index(campaign_id)
            spared.add((what_if.before.scored.reasons[column], without.scored.reasons[column]))
    assert ("frequency_cap", None) in spared


def _engagements(stored):
    return stored.conversation.engagements


def _without_campaign(stored, campaign_id):
    kept = tuple(e for e in stored.conversation.engagements if e.campaign_id != campaign_id)
    return replace(stored, conversation=stored.conversation.model_copy(update={"engagements": kept}))


def test_the_stores_are_as_they_were(company):
    """The tests above put back what they changed; else they would have tested little."""
    assert company.stores.documents.count() == len(CONVERSATIONS)
    assert company.stores.state.profiling_opt_outs() == set()


def test_one_campaign_can_be_asked_for(company):
    told = company.recommender.counterfactual(ODD, "neighbour", _neighbour(company, ODD), campaign_id="office/0", k=3)
    assert [move.campaign_id for move in told.items] == ["office/0"]
    paused = company.recommender.counterfactual(ODD, "neighbour", _neighbour(company, ODD), campaign_id="office/5")
    (move,) = paused.items
    assert (move.rank_before, move.reason_before, move.rank_after) == (None, "campaign_paused", None)


def _neighbour(company, user_id):
    return company.recommender.what_if(user_id).known.pool[0][0]


def test_what_is_not_there_cannot_be_taken_away(company):
    recommender = company.recommender
    for without in ("neighbour", "conversation", "campaign"):
        with pytest.raises(NotFoundError, match="'nothing like it'"):
            recommender.counterfactual(ODD, without, "nothing like it")
    with pytest.raises(NotFoundError, match="campaign 'no such' is not known"):
        recommender.counterfactual(ODD, "neighbour", _neighbour(company, ODD), campaign_id="no such")
    with pytest.raises(NotFoundError, match="campaign 'no such' is not known"):
        recommender.explanation(ODD, "no such")
    for ask in (recommender.stability, lambda u: recommender.explanation(u, "office/0")):
        with pytest.raises(NotFoundError, match="nothing is known of user 'nobody'"):
            ask("nobody")


def test_who_opted_out_is_not_explained_and_not_named(company):
    recommender = company.recommender
    neighbour_id = _neighbour(company, ODD)
    with company.opted_out(ODD), pytest.raises(NotFoundError, match="opted out of profiling"):
        recommender.explanation(ODD, "office/0")
    with company.opted_out(neighbour_id):
        for campaign in CAMPAIGNS:
            assert neighbour_id not in recommender.explanation(ODD, campaign.campaign_id).model_dump_json()
        with pytest.raises(NotFoundError, match="is not among the users who count"):
            recommender.counterfactual(ODD, "neighbour", neighbour_id)


# -- what matters most -------------------------------------------------------------------------------------------------


def test_effects_are_the_counterfactuals_the_greatest_first(company):
    recommender = company.recommender
    for user_id in SOME_USERS[:3]:
        item = recommender.recommend(user_id, use_cache=False).items[0]
        explained = recommender.explanation(user_id, item.campaign_id)
        assert (explained.rank, explained.score, explained.breakdown) == (item.rank, item.score, item.breakdown)
        kinds = {"neighbour", "engaged_alike"}
        named = {e.user_id for e in item.evidence if e.kind in kinds}
        assert {e.without_id for e in explained.effects if e.without == "neighbour"} == named
        own = recommender.score(user_id)[0].own
        campaigns = {e.without_id for e in explained.effects if e.without == "campaign"}
        assert campaigns == {e.campaign_id for e in own.engagements}
        theirs = {s.conversation.conversation_id for s in company.of(user_id)}
        assert {e.without_id for e in explained.effects if e.without == "conversation"} == theirs
        assert explained.not_tried == 0
        sizes = [abs(e.move.difference) for e in explained.effects]
        assert sizes == sorted(sizes, reverse=True)
        for effect in explained.effects:
            told = recommender.counterfactual(user_id, effect.without, effect.without_id, campaign_id=item.campaign_id)
            assert told.items == [effect.move]


def test_the_number_that_is_tried_is_bounded_and_said(company, monkeypatch):
    monkeypatch.setattr(counterfactual, "CAMPAIGNS_TRIED", 1)
    monkeypatch.setattr(counterfactual, "CONVERSATIONS_TRIED", 1)
    user_id = max(USERS, key=lambda u: len(company.of(u)))
    own = company.recommender.score(user_id)[0].own
    explained = company.recommender.explanation(user_id, "garden/0")
    (conversation,) = (e for e in explained.effects if e.without == "conversation")
    assert conversation.without_id == company.of(user_id)[-1].conversation.conversation_id
    campaigns = {e.campaign_id for e in own.engagements}
    assert explained.not_tried == len(campaigns) - 1 + len(company.of(user_id)) - 1


# -- dissent -----------------------------------------------------------------------------------------------------------


def _did(user_id, campaign_id):
    """Return what somebody did with a campaign, by the raw conversations: its strongest action, None for nothing."""
    done = [
        (e.action, e.at or c.started_at)
        for c in CONVERSATIONS
        for e in c.engagements
        if (c.user_id, e.campaign_id) == (user_id, campaign_id)
    ]
    if any(action == "dislike" for action, _ in done):
        done = [(action, at) for action, at in done if action == "dislike"]
    return max(done, key=lambda row: (ACTION_STRENGTH[row[0]], row[0], row[1]), default=None)


def _standpoint(user_id, campaign_id):
    did = _did(user_id, campaign_id)
    if did is None:
        return "never_met"
    return {"like": "took", "convert": "took", "dislike": "disliked"}.get(did[0], "met")


def test_dissent_is_what_the_raw_conversations_say(company):
    told = Counter()
    for user_id in USERS:
        found, _ = company.recommender.score(user_id)
        for campaign_id in (c.campaign_id for c in CAMPAIGNS):
            dissent = dissent_of(campaign_id, found)
            for opinion, members in zip(dissent.opinions, (found.pool, found.alike), strict=True):
                weights = {"took": [], "met": [], "disliked": [], "never_met": []}
                counted = [m for m in members if m.weight > 0]
                for member in counted:
                    weights[_standpoint(member.user_id, campaign_id)].append(member.weight)
                for name, theirs in weights.items():
                    assert getattr(opinion, name) == len(theirs)
                    assert getattr(opinion, f"{name}_share") == pytest.approx(sum(theirs), abs=1e-12)
                assert opinion.users == len(counted)
                assert sum(getattr(opinion, f"{name}_share") for name in weights) == pytest.approx(
                    1.0 if counted else 0.0
                )
                voices = [v for v in dissent.voices if v.group == opinion.group]
                against = {m.user_id for m in counted if _standpoint(m.user_id, campaign_id) in ("met", "disliked")}
                assert {v.user_id for v in voices} == against
                assert [v.weight for v in voices] == sorted((v.weight for v in voices), reverse=True)
                assert all((v.action, v.at) == _did(v.user_id, campaign_id) for v in voices)
                told.update(v.action for v in voices)
    assert set(told) == {"view", "click", "mention", "dislike"}


def test_an_explanation_has_the_dissent_of_its_campaign(company):
    for user_id in SOME_USERS[:2]:
        found, _ = company.recommender.score(user_id)
        for campaign_id in ("garden/1", "nursery/1"):
            assert company.recommender.explanation(user_id, campaign_id).dissent == dissent_of(campaign_id, found)


def test_voices_are_bounded_and_the_rest_is_counted(company):
    bounded = 0
    for user_id in USERS:
        found, _ = company.recommender.score(user_id)
        for campaign in CAMPAIGNS:
            whole = dissent_of(campaign.campaign_id, found)
            short = dissent_of(campaign.campaign_id, found, limit=1)
            assert short.more_voices == len(whole.voices) - len(short.voices)
            assert short.opinions == whole.opinions
            bounded += short.more_voices
    assert bounded


# -- stability ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user_id", SOME_USERS[:4], ids=ascii)
def test_stability_is_what_is_left_without_the_turn(company, user_id):
    recommender = company.recommender
    told = recommender.stability(user_id)
    theirs = company.of(user_id)
    top = [item.campaign_id for item in recommender.recommend(user_id, k=5, use_cache=False).items]
    assert told.top == top
    turns = [
        (s.conversation.conversation_id, i) for s in theirs for i, m in enumerate(s.conversation.messages) if _said(m)
    ]
    assert [(t.conversation_id, t.message_index) for t in told.turns] == turns[::-1][:20]
    assert told.messages == len(turns)
    for turn in told.turns:
        with company.where(user_id, [_without_turn(s, turn) for s in theirs]):
            after = [item.campaign_id for item in recommender.recommend(user_id, k=5, use_cache=False).items]
        assert turn.overlap == len(set(top) & set(after)) / len(top)
        assert turn.entered == [c for c in after if c not in top]
        assert turn.left == [c for c in top if c not in after]
    assert told.mean == sum(t.overlap for t in told.turns) / len(told.turns)
    assert told.lowest == min(t.overlap for t in told.turns)
    few = recommender.stability(user_id, limit=2)
    assert (few.turns, few.messages) == (told.turns[:2], told.messages)


def _said(message):
    return message.role == "user" and message.text.strip()


def _without_turn(stored, turn):
    c = stored.conversation
    if c.conversation_id != turn.conversation_id:
        return stored
    kept = tuple(m for i, m in enumerate(c.messages) if i != turn.message_index)
    return replace(stored, conversation=c.model_copy(update={"messages": kept}))


def test_lists_do_change_without_single_turns(company):
    assert any(company.recommender.stability(user_id).lowest < 1 for user_id in USERS)


def test_stability_of_a_text(company):
    texts = ["seeds and soil for the lawn", "", "a cot for the baby", "a lamp for my desk"]
    told = company.recommender.stability_text(texts)
    top = [item.campaign_id for item in company.recommender.recommend_text(texts, k=5).items]
    assert (told.top, told.user_id, told.messages) == (top, None, 3)
    assert [(t.conversation_id, t.message_index) for t in told.turns] == [(None, 3), (None, 2), (None, 0)]
    for turn in told.turns:
        rest = [text for i, text in enumerate(texts) if i != turn.message_index]
        after = [item.campaign_id for item in company.recommender.recommend_text(rest, k=5).items]
        assert turn.overlap == len(set(top) & set(after)) / 5
    single = company.recommender.stability_text(["a cot for the baby"])
    assert (single.turns, single.mean, single.lowest) == ([], None, None)
    with pytest.raises(InputError, match="no words"):
        company.recommender.stability_text([""])


def test_the_overlap_is_a_share_of_what_was_there():
    assert overlap(["a", "b", "c", "d"], ["d", "a", "x", "y"]) == 0.5
    with pytest.raises(ValueError, match="empty"):
        overlap([], ["a"])


# -- stores that do not answer -----------------------------------------------------------------------------------------


def _fails(store):
    def fail(*args, **kwargs):
        raise StoreUnavailableError(store, "is down")

    return fail


def test_what_was_missing_is_named_and_missing_on_both_sides(company, monkeypatch):
    recommender = company.recommender
    user_id = next(u for u in USERS if company.recommender.score(u)[0].alike)
    recommender.score(user_id)  # the catalogue is held
    monkeypatch.setattr(type(company.stores.vectors), "open", _fails("vectors"))
    explained = recommender.explanation(user_id, "garden/0")
    assert explained.degraded == ["vectors"]
    assert explained.dissent.opinions[0].users == 0
    assert {e.without for e in explained.effects} >= {"campaign", "conversation"}
    for effect in explained.effects:
        parts = {p.component: (p.before, p.after) for p in effect.move.parts}
        assert parts["similar_users"] == (0.0, 0.0)
    with pytest.raises(StoreUnavailableError, match="vectors"):
        recommender.counterfactual(user_id, "neighbour", "somebody")
    with pytest.raises(StoreUnavailableError, match="vectors"):
        recommender.stability(user_id)


@pytest.mark.parametrize(("store", "method"), [("graph", "user"), ("state", "preferences"), ("documents", "of_users")])
def test_without_what_it_cannot_do_without_there_is_no_explanation(company, monkeypatch, store, method):
    recommender = company.recommender
    recommender.score(ODD)
    monkeypatch.setattr(type(getattr(company.stores, store)), method, _fails(store))
    with pytest.raises(StoreUnavailableError, match=store):
        recommender.explanation(ODD, "garden/0")
