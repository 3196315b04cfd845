"""What the stages of a run do, without Prefect, on embedded stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from pymilvus import MilvusClient
from support import WordEncoder, fresh_settings, hash_of, load, load_raw, staged

from recs.batch import publish
from recs.batch.check import check_stores, repair
from recs.batch.erase import erase_user
from recs.batch.fingerprint import fingerprint
from recs.bootstrap import connect
from recs.edges import edges_of, facts_of
from recs.errors import RunError
from recs.model import Campaign, Conversation, Engagement, Message, StoredConversation
from recs.stores.ports import VectorRecord

T0 = datetime(2026, 1, 1, tzinfo=UTC)
CAMPAIGNS = [
    Campaign(campaign_id="a", name="A", description="garden", intents=("plant",)),
    Campaign(campaign_id="b", name="B", description="kitchen", categories=("home",)),
]


def said(conversation_id, user_id, text, *engagements, intent=None, day=0):
    return Conversation(
        conversation_id=conversation_id,
        user_id=user_id,
        started_at=T0 + timedelta(days=day),
        messages=(Message(role="user", text=text),),
        intent=intent,
        engagements=engagements,
    )


def liked(campaign_id):
    return Engagement(campaign_id=campaign_id, action="like")


@pytest.fixture
def settings(servers, tmp_path):
    return fresh_settings(servers, tmp_path, "batch")


@pytest.fixture
def stores(settings):
    stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
    for conversation in stores.documents.scan():
        stores.documents.delete_user(conversation.conversation.user_id)
    yield stores
    stores.close()


def test_facts_count_per_campaign_and_action_and_take_the_latest_time():
    at = T0 + timedelta(hours=5)
    conversation = said(
        "c",
        "u",
        "hello",
        Engagement(campaign_id="b", action="view"),
        Engagement(campaign_id="b", action="view", at=at),
        Engagement(campaign_id="a", action="convert", value=2.0, currency="EUR"),
        Engagement(campaign_id="a", action="convert", value=3.0, currency="EUR", at=at),
    )
    facts = [(f.campaign_id, f.action, f.count, f.at, f.value, f.currency) for f in facts_of(conversation)]
    assert facts == [("a", "convert", 2, at, 5.0, "EUR"), ("b", "view", 2, at, None, None)]


def test_values_in_two_currencies_are_not_added():
    first, second = (Engagement(campaign_id="a", action="convert", value=1.0, currency=c) for c in ("EUR", "USD"))
    assert [(f.count, f.value, f.currency) for f in facts_of(said("c", "u", "x", first, second))] == [(2, None, None)]


def test_edges_sum_over_all_conversations_of_a_user():
    stored = [
        StoredConversation(said("1", "u", "x", liked("a"), intent="plant"), "h", 1, "r"),
        StoredConversation(said("2", "u", "x", liked("a"), intent="plant", day=3), "h", 2, "r"),
    ]
    edges = edges_of("u", stored)
    assert [(e.campaign_id, e.action, e.count, e.last_at) for e in edges.engagements] == [
        ("a", "like", 2, T0 + timedelta(days=3))
    ]
    assert edges.intents == {"plant": 2}


def test_the_same_input_again_changes_nothing_and_embeds_nothing(stores, settings):
    encoder = WordEncoder()
    conversations = [said("1", "u", "garden", liked("a")), said("2", "v", "garden"), said("3", "v", "kitchen")]
    assert load(stores, settings, encoder, conversations, CAMPAIGNS) is not None
    assert sorted(encoder.encoded) == ["A. garden", "B. kitchen home", "garden", "kitchen"]
    before = fingerprint(stores)
    assert load(stores, settings, encoder, conversations, CAMPAIGNS) is None
    assert len(encoder.encoded) == 4
    assert fingerprint(stores) == before
    assert check_stores(stores, max_text_chars=100).findings == []


def test_counts_of_new_changed_and_known(stores, settings):
    first, second = said("1", "u", "garden"), said("2", "u", "kitchen")
    counts = load_raw(stores, [staged(first), staged(second)], run_id="r1")
    assert (counts.loaded, counts.updated, counts.duplicate) == (2, 0, 0)
    changed = said("2", "u", "kitchen sink")
    counts = load_raw(stores, [staged(first), staged(changed)], run_id="r2")
    assert (counts.loaded, counts.updated, counts.duplicate) == (1, 1, 1)
    assert [(c.old_hash, c.new_hash, c.run_id) for c in stores.documents.changes("2")] == [
        (hash_of(second), hash_of(changed), "r2")
    ]


def test_a_changed_conversation_embeds_its_new_text_alone(stores, settings):
    encoder = WordEncoder()
    load(stores, settings, encoder, [said("1", "u", "garden"), said("2", "v", "kitchen")], CAMPAIGNS)
    encoder.encoded.clear()
    load(stores, settings, encoder, [said("1", "u", "garden"), said("2", "v", "bathroom", liked("b"))])
    assert encoder.encoded == ["bathroom"]
    assert [e.campaign_id for e in stores.graph.engagements_of(["v"])] == ["b"]
    assert check_stores(stores, max_text_chars=100).findings == []


def test_a_conversation_that_moves_to_another_user_leaves_nothing_behind(stores, settings):
    encoder = WordEncoder()
    load(stores, settings, encoder, [said("1", "u", "garden", liked("a"))], CAMPAIGNS)
    load(stores, settings, encoder, [said("1", "v", "garden", liked("a"))])
    assert stores.graph.user("u") is None
    assert [e.user_id for e in stores.graph.engaged_with(["a"], 10)] == ["v"]
    assert set(stores.vectors.open("b1").keys("users")) == {"v"}
    assert check_stores(stores, max_text_chars=100).findings == []


def test_what_an_interrupted_run_left_is_finished_by_the_next(stores, settings):
    encoder = WordEncoder()
    conversations = [said("1", "u", "garden", liked("a"), intent="plant"), said("2", "v", "kitchen", liked("b"))]
    load(stores, settings, encoder, conversations, CAMPAIGNS)
    whole = fingerprint(stores)
    for store in (stores.graph, stores.metrics):
        for user_id in ("u", "v"):
            store.delete_users([user_id]) if store is stores.graph else store.delete_user(user_id)
    for user_id in ("u", "v"):
        stores.documents.delete_user(user_id)
    load_raw(stores, [staged(c, i) for i, c in enumerate(conversations, start=1)], run_id="killed")
    assert {f.store for f in check_stores(stores, max_text_chars=100).findings} >= {"graph", "metrics", "state"}
    load(stores, settings, encoder)
    assert fingerprint(stores) == whole


def test_check_finds_what_differs_and_repair_mends_it(stores, settings):
    encoder = WordEncoder()
    load(stores, settings, encoder, [said("1", "u", "garden", liked("a")), said("2", "v", "sink")], CAMPAIGNS)
    whole = fingerprint(stores)
    stores.graph.delete_users(["u"])
    stores.metrics.replace_facts(["1"], [])
    index = stores.vectors.open("b1")
    index.delete("conversations", ["2"])
    index.delete("users", ["v"])
    report = check_stores(stores, max_text_chars=100)
    assert {(f.store, tuple(f.ids)) for f in report.findings} == {
        ("metrics", ("1",)),
        ("vectors", ("2",)),
        ("vectors", ("v",)),
        ("graph", ("u",)),
    }
    repair(stores, report)
    load(stores, settings, encoder)
    assert check_stores(stores, max_text_chars=100).findings == []
    assert fingerprint(stores) == whole


def test_a_conversation_without_words_is_kept_without_a_vector(stores, settings):
    load(stores, settings, WordEncoder(), [said("1", "u", " \u200b ", liked("a"))], CAMPAIGNS)
    assert stores.documents.count() == 1
    assert list(stores.vectors.open("b1").keys("conversations")) == []
    assert stores.graph.user("u") is not None
    assert check_stores(stores, max_text_chars=100).findings == []


def test_co_engagement_links_are_of_the_generation(stores, settings):
    both = [said(str(i), f"u{i}", "garden", liked("a"), liked("b")) for i in range(3)]
    generation = load(stores, settings, WordEncoder(), both, CAMPAIGNS)
    links = stores.graph.co_engaged("u0", generation.number)
    assert [(x.source, x.target) for x in links] == [("a", "b"), ("b", "a")]
    assert links[0].weight == pytest.approx(links[1].weight)
    assert stores.graph.co_engaged("u0", generation.number + 1) == []


def test_the_generation_before_stays_readable_and_older_ones_go(stores, settings):
    encoder = WordEncoder()
    for day in range(3):
        load(stores, settings, encoder, [said(f"{day}", f"u{day}", "garden", liked("a"), day=day)], CAMPAIGNS)
    assert stores.state.head().generation == 3
    assert [bool(stores.metrics.campaign_metrics(n, ["a"])) for n in (1, 2, 3)] == [False, True, True]
    publish.drop_unread(stores)
    assert stores.vectors.builds() == ["b1"]


def test_the_centre_is_the_mean_user_and_scales_are_positive(stores, settings):
    encoder = WordEncoder()
    conversations = [said("1", "u", "garden", liked("a")), said("2", "v", "kitchen", liked("b"))]
    generation = load(stores, settings, encoder, conversations, CAMPAIGNS)
    users = encoder.encode(["garden", "kitchen"])
    np.testing.assert_allclose(generation.centre, users.mean(axis=0), atol=1e-6)
    assert min(generation.scales.values()) > 0


def test_erasing_a_user_takes_it_out_of_every_store(stores, settings):
    encoder = WordEncoder()
    load(stores, settings, encoder, [said("1", "u", "canary garden", liked("a")), said("2", "v", "sink")], CAMPAIGNS)
    receipt = erase_user(stores, settings, "u")
    assert receipt["documents"] == {"conversations": 1}
    assert receipt["graph"] == {"users": 1, "engagements": 1}
    assert receipt["metrics"] == {"facts": 1}
    assert stores.documents.of_users(["u"]) == []
    assert stores.graph.user("u") is None
    index = stores.vectors.open("b1")
    assert set(index.keys("users")) == {"v"}
    assert set(index.keys("conversations")) == {"2"}
    assert stores.metrics.counts()["users"] == 0
    assert [f.what for f in check_stores(stores, max_text_chars=100).findings] == ["change that is not published yet"]
    assert erase_user(stores, settings, "u")["documents"] == {"conversations": 0}


def test_a_build_that_is_only_partly_there_does_not_stop_an_erasure(stores, settings):
    load(stores, settings, WordEncoder(), [said("1", "u", "garden"), said("2", "v", "kitchen")], CAMPAIGNS)
    half = stores.vectors.create("b9", 16)
    half.upsert("users", [VectorRecord("u", np.ones(16, dtype=np.float32))])
    token = settings.milvus_token.get_secret_value() if settings.milvus_token else ""
    client = MilvusClient(settings.milvus_url, token=token, dedicated=True)
    client.drop_collection("recs_texts_b9")
    client.close()
    with stores.state.run_lock("r1"), pytest.raises(RunError, match="run r1 has been running"):
        erase_user(stores, settings, "u")
    erase_user(stores, settings, "u")
    assert stores.vectors.builds() == ["b1"]
    assert set(stores.vectors.open("b1").keys("users")) == {"v"}
