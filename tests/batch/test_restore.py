"""Stores that were lost, or restored to an earlier time than the others: what check finds and repair brings back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pymongo
import pytest
from support import WordEncoder, fresh_settings, load

from recs.batch.check import check_stores, repair
from recs.batch.fingerprint import fingerprint
from recs.bootstrap import connect
from recs.errors import BuildMissingError, RunError
from recs.model import Campaign, Conversation, Engagement, Message, Preferences
from recs.stores.ports import RunRecord

T0 = datetime(2026, 1, 1, tzinfo=UTC)
CAMPAIGNS = [
    Campaign(campaign_id="a", name="A", description="garden", intents=("plant",), categories=("home", "green")),
    Campaign(campaign_id="b", name="B", description="kitchen", ends_at=T0 + timedelta(microseconds=1)),
]


def said(conversation_id, user_id, text, *liked, intent=None):
    return Conversation(
        conversation_id=conversation_id,
        user_id=user_id,
        started_at=T0,
        messages=(Message(role="user", text=text),),
        intent=intent,
        engagements=tuple(Engagement(campaign_id=campaign_id, action="like") for campaign_id in liked),
    )


CONVERSATIONS = [said("1", "u", "garden", "a", "b", intent="plant"), said("2", "v", "kitchen", "a", "b")]


@pytest.fixture
def settings(servers, tmp_path):
    return fresh_settings(servers, tmp_path, "restore")


@pytest.fixture
def stores(settings):
    stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
    load(stores, settings, WordEncoder(), CONVERSATIONS, CAMPAIGNS)
    yield stores
    stores.close()


def found(stores):
    return {(f.store, f.what) for f in check_stores(stores, max_text_chars=100).findings}


def repaired(stores, settings):
    """Do what `recs check --repair` does, and return the fingerprint."""
    repair(stores, check_stores(stores, max_text_chars=100))
    load(stores, settings, WordEncoder())
    assert found(stores) == set()
    return fingerprint(stores)


def test_lost_vectors_are_computed_anew(stores, settings):
    whole = fingerprint(stores)
    stores.vectors.drop("b1")
    with pytest.raises(BuildMissingError, match="does not exist"):
        fingerprint(stores)
    assert ("vectors", "build missing") in found(stores)
    assert repaired(stores, settings) == whole


def test_a_lost_graph_is_projected_again(stores, settings):
    whole = fingerprint(stores)
    stores.graph.delete_users(["u", "v"])
    stores.graph.delete_campaigns(["a", "b"])
    assert found(stores) >= {("graph", "campaigns missing"), ("graph", "users missing")}
    assert repaired(stores, settings) == whole


def test_lost_metrics_are_projected_again(stores, settings, tmp_path):
    whole = fingerprint(stores)
    stores.metrics.replace_facts(["1", "2"], [])
    stores.metrics.keep_generations([])
    assert repaired(stores, settings) == whole


def test_a_lost_state_store_loses_what_is_nowhere_else(stores, settings, servers, tmp_path):
    whole = fingerprint(stores)
    stores.state.put_preferences([Preferences(user_id="v", channels={"post": False})])
    stores.close()
    other = settings.model_copy(update={"state_url": f"sqlite:///{tmp_path}/other.db"})
    stores = connect(other, timeout_seconds=settings.load_timeout_seconds)
    assert ("state", "generation missing") in found(stores)
    # Consent is gone, the rest is there.
    assert repaired(stores, other) == whole
    assert list(stores.state.all_preferences()) == []
    stores.close()


def test_documents_restored_to_an_earlier_time_take_the_rest_with_them(stores, settings):
    whole = fingerprint(stores)
    with pymongo.MongoClient(settings.mongo_url) as client:
        database = client[settings.mongo_database]
        names = ("conversations", "campaigns")
        kept = {name: list(database[name].find()) for name in names}
        later = [said("2", "v", "bathroom", "c"), said("3", "w", "cellar", "c")]
        catalogue = [
            Campaign(campaign_id="a", name="A2", intents=("build",)),
            Campaign(campaign_id="c", name="C", description="cellar"),
        ]
        load(stores, settings, WordEncoder(), later, catalogue)
        assert fingerprint(stores) != whole
        for name in names:
            database[name].drop()
            database[name].insert_many(kept[name])
    assert found(stores) >= {
        ("graph", "users without a conversation"),
        ("graph", "campaigns that are not in the catalogue"),
        ("graph", "campaigns that differ from the catalogue"),
        ("metrics", "conversations with facts that are not stored"),
        ("vectors", "vectors of conversations that are not stored or say nothing"),
        ("vectors", "vectors of campaigns that are not in the catalogue"),
        ("vectors", "vectors of users without words"),
    }
    assert repaired(stores, settings) == whole


def test_a_pause_outlives_a_repair(stores, settings):
    stores.graph.set_status("a", "paused")
    assert found(stores) == set()
    stores.documents.put_campaigns([CAMPAIGNS[0].model_copy(update={"name": "A2"})])
    assert found(stores) == {("graph", "campaigns that differ from the catalogue")}
    repaired(stores, settings)
    assert (stores.graph.campaigns()["a"].name, stores.graph.campaigns()["a"].status) == ("A2", "paused")


def test_a_lost_catalogue_does_not_take_the_campaigns_with_it(stores, settings):
    with pymongo.MongoClient(settings.mongo_url) as client:
        client[settings.mongo_database]["campaigns"].drop()
    repair(stores, check_stores(stores, max_text_chars=100))
    assert set(stores.graph.campaigns()) == {"a", "b"}
    load(stores, settings, WordEncoder(), campaigns=CAMPAIGNS)
    assert found(stores) == set()


@pytest.mark.parametrize("store", ["graph", "metrics"])
def test_a_store_from_before_the_generation_is_noticed(stores, settings, store):
    generation = stores.state.generation()
    counts = {"co_engagement_links": 2, "campaigns_with_metrics": 2}
    stores.state.put_run(RunRecord(generation.run_id, T0, T0, "published", counts=counts, generation=1))
    assert found(stores) == set()
    whole = fingerprint(stores)
    if store == "graph":
        stores.graph.keep_co_engagement([])
    else:
        stores.metrics.keep_generations([])
    [finding] = check_stores(stores, max_text_chars=100).findings
    assert (finding.store, finding.ids) == (store, ["1"])
    assert repaired(stores, settings) == whole


def test_answers_from_before_are_not_served_after_a_repair(stores, settings):
    stores.cache.set("answer1:2.0:x", b"of a generation that is lost", 60)
    repair(stores, check_stores(stores, max_text_chars=100))
    assert stores.cache.get("answer1:2.0:x") is None


def test_no_repair_while_a_run_is_going_on(stores):
    with stores.state.run_lock("busy"), pytest.raises(RunError, match="busy"):
        repair(stores, check_stores(stores, max_text_chars=100))
