"""The contract of DocumentStore, over every server that can stand behind it."""

from __future__ import annotations

import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mongo_commands import COMMANDS, OPERATORS, PARTS, beyond
from support import ROOT

from recs.errors import StoreError, StoreUnavailableError
from recs.model import Campaign, Change, Conversation, StoredConversation
from recs.stores.documents import MongoDocuments

AT = datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)
ODD_IDS = [
    "' OR 1=1",
    '"; DROP',
    "$where",
    "a.b/c\\d",
    "line\nbreak",
    "nul",
    "nul\0",
    "nul\0in",
    "\x01",
    "\U0001f600",
    "\ue000",
    "é",
    "e\u0301",
    " ",
    "1",
    "x" * 500,
    "5f5f5f5f5f5f5f5f5f5f5f5f",
    "2026-03-01",
    "2026-03-01T00:00:00Z",
    " 2026-03-01 00:00:00",
    "2026-03-01T01:00:00+01:00",
    "2026-03-01-chat-7",
    "01/03/2026",
]


@pytest.fixture(scope="module", params=["embedded", "real"])
def mongo_url(request: pytest.FixtureRequest) -> str:
    if request.param == "embedded":
        return str(request.getfixturevalue("servers").mongo_url)
    return os.environ.get("RECS_TEST_MONGO_URL") or pytest.skip(
        "RECS_TEST_MONGO_URL: no second MongoDB to test against"
    )


@pytest.fixture
def store(mongo_url: str) -> Iterator[MongoDocuments]:
    opened = MongoDocuments(mongo_url, database=f"test_{uuid.uuid4().hex[:12]}", timeout_seconds=120)
    yield opened
    opened._client.drop_database(opened._conversations.database.name)
    opened.close()


def stored(conversation_id: str, user_id: str = "u", *, position: int = 1, text: str = "hello", **more: Any) -> Any:
    conversation = Conversation.model_validate(
        {
            "conversation_id": conversation_id,
            "user_id": user_id,
            "messages": [{"role": "user", "text": text}],
            **more,
        }
    )
    return StoredConversation(conversation, f"hash of {conversation_id} {text}", position, "run")


def ids(conversations: Any) -> list[str]:
    return [c.conversation.conversation_id for c in conversations]


def test_empty_sequences_touch_nothing(store: MongoDocuments) -> None:
    store.insert([])
    store.replace([])
    store.record_changes([])
    store.put_campaigns([])
    assert store.hashes([]) == {}
    assert store.get([]) == []
    assert store.of_users([]) == []
    assert store.delete_conversations([]) == 0
    assert list(store.scan()) == []
    assert store.campaigns() == []
    assert store.campaign_ids() == set()
    assert store.count() == 0


def test_a_conversation_comes_back_as_it_went_in(store: MongoDocuments) -> None:
    went_in = StoredConversation(
        Conversation.model_validate(
            {
                "conversation_id": "c1",
                "user_id": "u1",
                "started_at": AT.astimezone(timezone(timedelta(hours=5))),
                "channel": "chat",
                "messages": [
                    {
                        "role": "user",
                        "text": "nul \0 \u2028 \U0001f600",
                        "at": AT,
                        "mood": {"$set": 1, "a.b": [1, 1.0]},
                    },
                    {"role": "agent", "text": ""},
                ],
                "intent": "cancel",
                "engagements": [
                    {"campaign_id": "k1", "action": "convert", "at": AT, "value": 9.5, "currency": "EUR", "x": None}
                ],
                "seq": float("inf"),
                "big": 2**70,
                "cls": "a name that Python uses",
                "_fields_set": [],
                "": {"nested": [True, None, "é\0"]},
            }
        ),
        "hash",
        7,
        "run",
    )
    store.insert([went_in])
    (came_out,) = store.get(["c1"])
    assert came_out == went_in
    assert came_out.conversation.model_dump() == went_in.conversation.model_dump()
    assert repr(came_out.conversation.model_extra) == repr(went_in.conversation.model_extra)
    assert came_out.conversation.started_at == AT


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
texts = st.text(max_size=30)
times = st.none() | st.datetimes(timezones=st.just(UTC))
conversations = st.fixed_dictionaries(
    {
        "user_id": texts,
        "started_at": times,
        "channel": st.none() | texts,
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["user", "agent"]), "text": texts, "at": times}), max_size=3
        ),
        "engagements": st.lists(
            st.fixed_dictionaries(
                {
                    "campaign_id": texts,
                    "action": st.sampled_from(["view", "like"]),
                    "value": st.none() | st.floats(allow_nan=False),
                }
            ),
            max_size=2,
        ),
        "seq": st.none() | st.floats(allow_nan=False),
        "extra key": json_values,
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.dictionaries(texts, conversations, min_size=1, max_size=4), position=st.integers(1, 2**62))
def test_round_trip_of_anything(store: MongoDocuments, records: dict[str, dict[str, Any]], position: int) -> None:
    went_in = [
        StoredConversation(Conversation.model_validate({"conversation_id": key, **r}), "h", position, "run")
        for key, r in records.items()
    ]
    store.delete_conversations(ids(store.scan()))
    store.insert(went_in)
    assert store.get(list(records)) == went_in
    assert list(store.scan()) == sorted(went_in, key=lambda s: s.conversation.conversation_id)
    assert [s.conversation.messages for s in store.scan(texts=False)] == [()] * len(went_in)
    assert ids(store.scan(texts=False)) == ids(store.scan())
    for user_id in {s.conversation.user_id for s in went_in}:
        of_user = [s for s in went_in if s.conversation.user_id == user_id]
        assert store.of_users([user_id]) == sorted(of_user, key=StoredConversation.order_key)


def test_insert_and_replace_are_upserts(store: MongoDocuments) -> None:
    store.insert([stored("a"), stored("b")])
    store.insert([stored("a"), stored("b", text="new"), stored("c")])
    store.replace([stored("c", text="newer"), stored("d")])
    store.replace([stored("d")])
    assert store.hashes(["a", "b", "c", "d", "e"]) == {
        "a": "hash of a hello",
        "b": "hash of b new",
        "c": "hash of c newer",
        "d": "hash of d hello",
    }
    assert store.count() == 4


def test_of_several_versions_in_one_call_the_last_stays(store: MongoDocuments) -> None:
    store.insert([stored("a", text="old"), stored("a", text="new")])
    store.replace([stored("b", text="old"), stored("b", text="new")])
    assert [s.conversation.messages[0].text for s in store.get(["a", "b"])] == ["new", "new"]


def test_a_conversation_that_moves_to_another_user_stays_one(store: MongoDocuments) -> None:
    store.insert([stored(i, "u1") for i in ("a", "b", "c", "d")])
    store.replace([stored("a", "u2"), stored("b", "u1"), stored("c", "u3", text="new"), stored("new", "u2")])
    store.insert([stored("d", "u2"), stored("newer", "u1")])
    assert store.count() == 6
    assert ids(store.scan()) == ["a", "b", "c", "d", "new", "newer"]
    assert [ids(store.of_users([u])) for u in ("u1", "u2", "u3")] == [["b", "newer"], ["a", "d", "new"], ["c"]]
    assert store.get(["a", "c", "d"]) == [stored("a", "u2"), stored("c", "u3", text="new"), stored("d", "u2")]
    # Two that change places.
    store.replace([stored("a", "u3"), stored("c", "u2")])
    assert [ids(store.of_users([u])) for u in ("u1", "u2", "u3")] == [["b", "newer"], ["c", "d", "new"], ["a"]]
    assert store.delete_user("u3") == 1
    assert store.count() == 5


def test_a_large_conversation_takes_its_parts_to_another_user(store: MongoDocuments) -> None:
    def large(user_id: str) -> StoredConversation:
        return stored("big", user_id, text="x" * 5_000_000)

    store.insert([large("u1")])
    store.replace([large("u2")])
    assert store.get(["big"]) == [large("u2")]
    assert {d["user_key"] for d in store._parts.find()} == {":u2"}
    assert store._parts.estimated_document_count() == 2
    assert store.delete_user("u1") == 0
    assert store.get(["big"]) == [large("u2")]
    assert store.delete_user("u2") == 1
    assert store._parts.estimated_document_count() == 0


@pytest.mark.parametrize("method", ["insert", "replace"])
def test_writers_of_one_conversation_follow_each_other(store: MongoDocuments, method: str) -> None:
    def write(n: int) -> None:
        getattr(store, method)([stored("same", f"u{n % 4}", text=str(n)), stored(f"c{n % 2}", text=str(n))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(16)))
    (same,) = store.get(["same"])
    assert ids(store.scan()) == ["c0", "c1", "same"]
    assert ids(store.of_users([same.conversation.user_id]))[-1:] == ["same"]


def test_a_refused_write_does_not_show_what_was_written(store: MongoDocuments) -> None:
    with pytest.raises(StoreError, match="1 writes, the first because") as raised, store._errors():
        store._conversations.insert_many([{"_id": ":c", "text": "s3cret"}] * 2, ordered=False)
    assert "s3cret" not in str(raised.value)


def test_get_keeps_the_order_asked_for(store: MongoDocuments) -> None:
    store.insert([stored(f"c{i}") for i in range(450)])
    asked = [f"c{i}" for i in range(449, -1, -1)]
    assert ids(store.get(["unknown", *asked])) == asked
    assert ids(store.get(["c3", "c1", "c3"])) == ["c3", "c1"]


def test_of_users_sorts_by_user_then_age(store: MongoDocuments) -> None:
    store.insert(
        [
            stored("third", "u1", started_at=AT, position=1),
            stored("late", "u1", started_at=AT + timedelta(microseconds=1), position=1),
            stored("tied b", "u1", started_at=AT, position=2),
            stored("tied a", "u1", started_at=AT, position=2),
            stored("first", "u1", seq=1, position=9),
            stored("second", "u1", position=2),
            stored("other", "\U0001f600"),
            stored("before", "\ue000"),
            stored("unasked", "u2"),
        ]
    )
    found = store.of_users(["\U0001f600", "u1", "\ue000", "nobody", "u1"])
    assert ids(found) == ["first", "second", "third", "tied a", "tied b", "late", "before", "other"]
    bare = store.of_users(["u1"], texts=False)
    assert ids(bare) == ids(found)[:6]
    assert {s.conversation.messages for s in bare} == {()}


def test_scan_goes_by_code_point_over_pages(store: MongoDocuments) -> None:
    expected = sorted([f"c{i}" for i in range(650)] + ODD_IDS)
    store.insert([stored(i) for i in reversed(expected)])
    assert ids(store.scan()) == expected


@pytest.mark.parametrize("odd", ODD_IDS, ids=ascii)
def test_any_id_works(store: MongoDocuments, odd: str) -> None:
    others = [o for o in ODD_IDS if o != odd]
    store.insert([stored(o, o) for o in ODD_IDS])
    assert ids(store.get([odd])) == [odd]
    assert ids(store.of_users([odd])) == [odd]
    change = Change(odd, "old", "new", "run", AT)
    store.record_changes([change, Change(others[0], "old", "new", "run", AT)])
    assert store.changes(odd) == [change]
    store.put_campaigns([Campaign(campaign_id=o, name=o) for o in ODD_IDS])
    assert store.campaign_ids() == set(ODD_IDS)
    assert store.delete_user(odd) == 1
    assert store.changes(odd) == []
    assert ids(store.scan()) == sorted(others)
    assert len(store.changes(others[0])) == 1


def test_delete_conversations_counts_what_went(store: MongoDocuments) -> None:
    store.insert([stored(f"c{i}") for i in range(450)])
    assert store.delete_conversations([*(f"c{i}" for i in range(449)), "unknown"]) == 449
    assert ids(store.scan()) == ["c449"]
    assert store.delete_conversations(["c0"]) == 0


def test_delete_user_takes_conversations_and_changes(store: MongoDocuments) -> None:
    store.insert([stored("a", "u1"), stored("b", "u1"), stored("c", "u2")])
    store.record_changes([Change(i, "old", "new", "run", AT) for i in "abc"])
    assert store.delete_user("u1") == 2
    assert store.delete_user("u1") == 0
    assert ids(store.scan()) == ["c"]
    assert [store.changes(i) for i in "ab"] == [[], []]
    assert len(store.changes("c")) == 1


def test_changes_come_oldest_first_and_are_recorded_once(store: MongoDocuments) -> None:
    older = Change("a", "h1", "h2", "run 1", AT)
    newer = Change("a", "h2", "h3", "run 2", AT + timedelta(microseconds=1))
    store.record_changes([newer, older])
    store.record_changes([newer])
    assert store.changes("a") == [older, newer]
    assert store.changes("b") == []


def test_a_conversation_larger_than_a_document_may_be(store: MongoDocuments) -> None:
    def large(letter: str) -> StoredConversation:
        messages = [{"role": "user", "text": letter * 1_000_000, "at": AT}] * 20
        return StoredConversation(
            Conversation.model_validate({"conversation_id": "big", "user_id": "u", "messages": messages, "x": letter}),
            f"hash {letter}",
            1,
            "run",
        )

    store.insert([stored("a"), large("x"), stored("c")])
    assert store.get(["big"]) == [large("x")]
    store.insert([large("y")])
    assert list(store.scan()) == [stored("a"), large("y"), stored("c")]
    assert store._parts.estimated_document_count() == 5
    assert store.of_users(["u"], texts=False)[1].conversation.messages == ()
    store.replace([stored("big")])
    assert store.get(["big"]) == [stored("big")]
    assert store._parts.estimated_document_count() == 0
    store.replace([large("z")])
    assert store.delete_user("u") == 3
    assert store._parts.estimated_document_count() == 0


def test_campaigns_keep_everything_in_order(store: MongoDocuments) -> None:
    full = Campaign.model_validate(
        {
            "campaign_id": "k2",
            "name": "N",
            "description": "d",
            "intents": ["b", "a"],
            "categories": ["x"],
            "channel": "email",
            "starts_at": AT,
            "ends_at": AT + timedelta(days=1),
            "status": "paused",
            "budget": {"a.b": 1.0, "$x": 1},
        }
    )
    others = [Campaign(campaign_id=i, name="n") for i in ("\U0001f600", "\ue000", "k10", "nul\0")]
    store.put_campaigns([full, *others])
    store.put_campaigns([others[0], full])
    assert store.campaigns() == [others[2], full, others[3], others[1], others[0]]
    assert store.campaign_ids() == {"k2", "\U0001f600", "\ue000", "k10", "nul\0"}
    store.put_campaigns([Campaign(campaign_id="k2", name="renamed")])
    assert store.campaigns()[1] == Campaign(campaign_id="k2", name="renamed")


def test_a_value_that_cannot_be_stored_names_the_conversation(store: MongoDocuments) -> None:
    with pytest.raises(StoreError, match="'bad'"):
        store.insert([stored("bad", odd=object())])


def test_many_threads_read(store: MongoDocuments) -> None:
    store.insert([stored(f"c{i}", f"u{i % 8}") for i in range(80)])

    def read(n: int) -> list[str]:
        return [i for _ in range(10) for i in ids(store.of_users([f"u{n}"]))]

    with ThreadPoolExecutor(8) as pool:
        for n, found in enumerate(pool.map(read, range(8))):
            assert set(found) == {f"c{i}" for i in range(n, 80, 8)}
            assert len(found) == 100


def test_check_counts_and_close_twice(store: MongoDocuments, mongo_url: str) -> None:
    store.insert([stored("a"), stored("b")])
    store.put_campaigns([Campaign(campaign_id="k", name="n")])
    check = store.check()
    assert check.role == "documents"
    assert check.product
    assert check.milliseconds > 0
    assert check.counts == {"conversations": 2, "campaigns": 1, "changes": 0}
    other = MongoDocuments(mongo_url)
    other.close()
    other.close()
    with pytest.raises(StoreError):
        other.count()


@pytest.mark.parametrize("listening", [True, False], ids=["says nothing", "is not there"])
def test_a_server_that_does_not_answer_is_unavailable_in_time(listening: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tarpit:
        port = tarpit.getsockname()[1]
        if not listening:
            tarpit.close()
        store = MongoDocuments(f"mongodb://user:secret@127.0.0.1:{port}", timeout_seconds=0.5)
        for call in (store.check, store.count, lambda: store.get(["a"]), lambda: store.insert([stored("a")])):
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}") as raised:
                call()
            assert time.monotonic() - began < 1.5
            assert raised.value.store == "documents"
            assert "secret" not in str(raised.value)
        store.close()


def test_a_url_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(StoreError, match="not a MongoDB URL"):
        MongoDocuments("redis://127.0.0.1")


def test_what_is_not_in_the_list_is_seen() -> None:
    assert beyond({"find": "c", "filter": {"a": {"$in": [1], "$gt": 2}}, "limit": 3, "$db": "d"}) == set()
    assert beyond({"find": "c", "filter": {"$or": [{"a": {"$regex": "x"}}]}, "hint": "i"}) == {
        "$or",
        "$regex",
        "find.hint",
    }
    assert beyond({"update": "c", "updates": [{"q": {"_id": 1}, "u": {"$set": {"a": 1}}, "collation": {}}]}) == {
        "$set",
        "updates.collation",
    }
    assert beyond({"aggregate": "c", "pipeline": []}) == {"aggregate"}


@pytest.mark.parametrize("collection", ["conversations", "conversation_parts"])
def test_an_update_without_the_shard_key_is_seen(collection: str) -> None:
    def update(q: dict[str, Any], u: dict[str, Any], **more: Any) -> set[str]:
        return beyond({"update": collection, "updates": [{"q": q, "u": u, "upsert": True, **more}]})

    whole = {"_id": ":c", "user_key": ":u"}
    seen = {f"update of {collection} without its user_key"}
    assert update(whole, whole) == set()
    assert update({"_id": ":c"}, whole) == seen
    assert update({"_id": ":c", "user_key": {"$in": [":u"]}}, whole) == seen
    assert update(whole, {"_id": ":c", "user_key": ":v"}) == seen
    assert update(whole, whole, multi=True) == seen
    assert beyond({"delete": collection, "deletes": [{"q": {"_id": ":c"}, "limit": 0}]}) == set()
    assert beyond({"delete": collection, "deletes": [{"q": {"_id": ":c"}, "limit": 1}]}) == {
        f"delete of one of {collection} without its user_key"
    }


def test_the_list_is_in_the_docs() -> None:
    text = (ROOT / "docs/real-servers.md").read_text()
    told: dict[str, set[str]] = {}
    for commands, options in re.findall(r"^\| (`.*) \| (.*) \|$", text.partition("| command |")[2], re.MULTILINE):
        words = re.findall(r"`(\w+)`", options)
        told |= {command: set(words) for command in re.findall(r"`(\w+)`", commands)}
    parts = {name: set[str]().union(*(PARTS.get(option, ()) for option in found)) for name, found in COMMANDS.items()}
    assert told == {name: options | parts[name] for name, options in COMMANDS.items()}
    assert set(re.findall(r"`(\$\w+)`", text.partition("Operators in filters")[2].partition(".")[0])) == OPERATORS
