"""The contract of VectorStore and VectorIndex, over every server that can stand behind it."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recs.errors import StoreError, StoreUnavailableError
from recs.stores.ports import SPACES, Hit, Vector, VectorIndex, VectorRecord
from recs.stores.vectors import MilvusVectors

ODD_KEYS = [
    "' OR 1=1",
    'pk in ["a"]',
    "$where",
    "a.b/c\\d",
    "line\nbreak",
    "nul",
    "nul\0in",
    "\U0001f600",
    "é",
    "e\u0301",
    "",
    " ",
    "1",
    "x" * 500,
]


@pytest.fixture(scope="module", params=["embedded", "real"])
def address(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    """URL and token."""
    if request.param == "embedded":
        return str(request.getfixturevalue("servers").milvus_url), None
    url = os.environ.get("RECS_TEST_MILVUS_URL") or pytest.skip("RECS_TEST_MILVUS_URL: no Milvus to test against")
    return url, os.environ.get("RECS_TEST_MILVUS_TOKEN")


@pytest.fixture(scope="module")
def store(address: tuple[str, str | None]) -> Iterator[MilvusVectors]:
    opened = MilvusVectors(address[0], token=address[1], timeout_seconds=120, shards=2)
    yield opened
    opened.close()


@pytest.fixture
def build(store: MilvusVectors) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex[:12]}"
    yield name
    store.drop(name)


@pytest.fixture
def index(store: MilvusVectors, build: str) -> VectorIndex:
    return store.create(build, 2)


def vector(*numbers: float) -> Vector:
    return np.array(numbers, dtype=np.float32)


def record(key: str, *numbers: float, owner: str = "") -> VectorRecord:
    return VectorRecord(key, vector(*numbers), owner)


def keys(hits: Sequence[Hit]) -> list[str]:
    return [hit.key for hit in hits]


def test_empty_sequences_touch_nothing(index: VectorIndex) -> None:
    for space in SPACES:
        index.upsert(space, [])
        index.delete(space, [])
        index.delete_owner(space, "nobody")
        assert index.get(space, []) == {}
        assert index.search(space, vector(1, 0), 5) == []
        assert list(index.keys(space)) == []
        assert index.count(space) == 0
    index.flush()


def test_lagging_reads_see_what_a_count_has_seen(store: MilvusVectors, index: VectorIndex) -> None:
    lagging = store.open(index.build, lagging=True)
    for round_ in range(3):
        name = f"u{round_}"
        index.upsert("users", [record(name, 1, round_)])
        assert index.count("users") == 1
        assert list(lagging.get("users", [name])) == [name]
        assert keys(lagging.search("users", vector(1, 0), 5)) == [name]
        index.delete("users", [name])
        assert index.count("users") == 0
        assert lagging.get("users", [name]) == {}
        assert lagging.search("users", vector(1, 0), 5) == []


def test_vectors_come_back_as_they_went_in(index: VectorIndex) -> None:
    third = np.float32(1) / np.float32(3)
    index.upsert("users", [record("a", third, -1e-30), record("b", 0, 1)])
    found = index.get("users", ["b", "unknown", "a", "a"])
    assert set(found) == {"a", "b"}
    assert found["a"].dtype == np.float32
    np.testing.assert_array_equal(found["a"], vector(third, -1e-30))
    assert index.get("texts", ["a"]) == {}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vectors=st.dictionaries(
        st.text(max_size=20), st.tuples(*[st.floats(-100, 100, width=32)] * 2), min_size=1, max_size=6
    )
)
def test_round_trip_and_search_of_anything(index: VectorIndex, vectors: dict[str, tuple[float, float]]) -> None:
    index.delete("texts", list(index.keys("texts")))
    index.upsert("texts", [record(key, *numbers) for key, numbers in vectors.items()])
    found = index.get("texts", list(vectors))
    assert {key: tuple(map(float, v)) for key, v in found.items()} == vectors
    hits = index.search("texts", vector(1, 2), 10)
    scores = {key: x + 2 * y for key, (x, y) in vectors.items()}
    assert [(hit.key, hit.score) for hit in hits] == sorted(scores.items(), key=lambda s: (-s[1], s[0]))


def test_upsert_replaces(index: VectorIndex) -> None:
    index.upsert("users", [record("a", 1, 0), record("a", 2, 0), record("b", 0, 1)])
    index.upsert("users", [record("a", 3, 0)])
    index.upsert("users", [record("a", 3, 0)])
    assert index.count("users") == 2
    assert [(hit.key, hit.score) for hit in index.search("users", vector(1, 0), 9)] == [("a", 3.0), ("b", 0.0)]


def test_search_is_best_first_with_ties_by_key(index: VectorIndex) -> None:
    index.upsert("users", [record(f"tie {i:03}", 1, 1) for i in range(99, -1, -1)])
    index.upsert("users", [record("best", 2, 1), record("worst", -1, 0), record("\ue000", 1.5, 0)])
    index.upsert("users", [record("\U0001f600", 1.5, 0)])
    for _ in range(2):
        hits = index.search("users", vector(1, 0), 6)
        assert keys(hits) == ["best", "\ue000", "\U0001f600", "tie 000", "tie 001", "tie 002"]
        assert [hit.score for hit in hits] == [2.0, 1.5, 1.5, 1.0, 1.0, 1.0]
        assert all(hit.vector is None for hit in hits)
        assert keys(index.search("users", vector(1, 0), 1000))[-1] == "worst"
        assert len(index.search("users", vector(1, 0), 1000)) == 104
        index.flush()
    (hit,) = index.search("users", vector(1, 0), 1, with_vectors=True)
    assert hit.vector is not None
    np.testing.assert_array_equal(hit.vector, vector(2, 1))
    assert index.search("users", vector(1, 0), 0) == []
    with pytest.raises(StoreError, match="at most"):
        index.search("users", vector(1, 0), 20_000)


def test_equal_vectors_in_any_segment_have_equal_scores(store: MilvusVectors, build: str) -> None:
    index = store.create(build, 384)
    rng = np.random.default_rng(7)
    same = rng.normal(size=384).astype(np.float32)
    for part in range(4):
        noise = [VectorRecord(f"noise {part} {i}", rng.normal(size=384).astype(np.float32)) for i in range(50 + part)]
        index.upsert("texts", [*noise, VectorRecord(f"same {part}", same)])
        index.flush()
    hits = index.search("texts", same, 4)
    assert keys(hits) == [f"same {part}" for part in range(4)]
    assert len({hit.score for hit in hits}) == 1


def test_any_key_and_owner_works(index: VectorIndex) -> None:
    for odd in ODD_KEYS:
        index.upsert("conversations", [record(key, 1, 0, owner=key) for key in ODD_KEYS])
        assert set(index.get("conversations", [odd])) == {odd}
        if odd:
            index.delete_owner("conversations", odd)
        else:
            index.delete("conversations", [odd])
        others = sorted(key for key in ODD_KEYS if key != odd)
        assert sorted(index.keys("conversations")) == others
        assert keys(index.search("conversations", vector(1, 0), 50)) == others


def test_deletes_are_seen_at_once(index: VectorIndex) -> None:
    index.upsert("conversations", [record(f"c{i}", i, 0, owner=f"u{i % 2}") for i in range(10)])
    index.flush()
    index.delete("conversations", ["c9", "c8", "unknown"])
    index.delete_owner("conversations", "u1")
    index.delete_owner("conversations", "nobody")
    index.delete_owner("conversations", "")
    assert keys(index.search("conversations", vector(1, 0), 9)) == ["c6", "c4", "c2", "c0"]
    assert index.count("conversations") == 4
    assert sorted(index.keys("conversations")) == ["c0", "c2", "c4", "c6"]
    index.upsert("conversations", [record("c9", 9, 0)])
    assert keys(index.search("conversations", vector(1, 0), 1)) == ["c9"]


def test_more_rows_than_one_call_carries(store: MilvusVectors, build: str) -> None:
    index = store.create(build, 2)
    expected = {f"k{i}" for i in range(9_500)}
    index.upsert("texts", [record(f"k{i}", i, 1) for i in range(9_500)])
    index.flush()
    found = list(index.keys("texts"))
    assert len(found) == 9_500
    assert set(found) == expected
    asked = [f"k{i}" for i in range(2_500)]
    assert set(index.get("texts", asked)) == set(asked)
    index.delete("texts", asked)
    assert index.count("texts") == 7_000


def test_builds_stand_side_by_side(store: MilvusVectors) -> None:
    one, two = (f"t{uuid.uuid4().hex[:12]}" for _ in range(2))
    try:
        store.create(one, 2).upsert("users", [record("a", 1, 0)])
        store.create(two, 3).upsert("users", [record("a", 1, 0, 0)])
        assert store.create(one, 2).count("users") == 1
        assert store.open(one).build == one
        assert {one, two} <= set(store.builds())
        assert store.open(two).search("users", vector(1, 0, 0), 1)[0].score == 1.0
        with pytest.raises(StoreError, match="2 dimensions"):
            store.create(one, 3)
        store.point_alias(one)
        store.point_alias(two)
        store.point_alias(two)
        store.drop(one)
        assert one not in store.builds()
        with pytest.raises(StoreError, match="does not exist"):
            store.open(one)
    finally:
        store.drop(one)
        store.drop(two)


def test_collections_are_made_with_the_shards_asked_for(store: MilvusVectors, build: str) -> None:
    store.create(build, 2)
    with store._connection.client() as client:
        made = {client.describe_collection(f"recs_{space}_{build}")["num_shards"] for space in SPACES}
    assert made == ({1} if store._is_exact() else {2})


def test_more_replicas_than_query_nodes_are_refused(address: tuple[str, str | None], build: str) -> None:
    store = MilvusVectors(address[0], token=address[1], timeout_seconds=120, replicas=50)
    if store._is_exact():
        store.create(build, 2).upsert("users", [record("a", 1, 0)])
    else:
        with pytest.raises(StoreError, match="refused to hold 50 replicas of recs_texts_") as raised:
            store.create(build, 2)
        assert not isinstance(raised.value, StoreUnavailableError)
    store.close()


def test_a_loaded_build_keeps_its_replicas(
    address: tuple[str, str | None], index: VectorIndex, build: str, store: MilvusVectors
) -> None:
    index.upsert("users", [record("a", 1, 0)])
    other = MilvusVectors(address[0], token=address[1], timeout_seconds=120, shards=3, replicas=50)
    assert other.create(build, 2).count("users") == 1
    assert keys(other.open(build).search("users", vector(1, 0), 1)) == ["a"]
    other.close()


def test_a_build_that_was_cut_short_is_finished(store: MilvusVectors, build: str) -> None:
    store.create(build, 2)
    with store._connection.client() as client:
        client.release_collection(f"recs_users_{build}")
        client.drop_index(f"recs_users_{build}", "vector")
        client.release_collection(f"recs_texts_{build}")
    index = store.create(build, 2)
    for space in ("users", "texts"):
        index.upsert(space, [record("a", 1, 0)])
        assert keys(index.search(space, vector(1, 0), 1)) == ["a"]


def test_a_build_name_is_checked(store: MilvusVectors) -> None:
    for call in (lambda: store.create("A-b", 2), lambda: store.open(""), lambda: store.drop("a_b")):
        with pytest.raises(StoreError, match="cannot name a build"):
            call()


def test_a_refusal_is_a_store_error(index: VectorIndex) -> None:
    with pytest.raises(StoreError) as raised:
        index.upsert("users", [record("a", 1, 0, 0)])
    assert not isinstance(raised.value, StoreUnavailableError)


def test_many_threads_read(index: VectorIndex) -> None:
    index.upsert("users", [record(f"u{i}", i, 1) for i in range(20)])

    def read(n: int) -> bool:
        return all(
            keys(index.search("users", vector(1, 0), 2)) == ["u19", "u18"]
            and set(index.get("users", [f"u{n}"])) == {f"u{n}"}
            for _ in range(10)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_check_and_close_twice(address: tuple[str, str | None]) -> None:
    store = MilvusVectors(address[0], token=address[1], timeout_seconds=120)
    check = store.check()
    assert check.role == "vectors"
    assert "milvus" in check.product.lower()
    assert check.milliseconds > 0
    assert check.counts["builds"] >= 0
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.builds()


@pytest.mark.parametrize("listening", [True, False], ids=["says nothing", "is not there"])
def test_a_server_that_does_not_answer_is_unavailable_in_time(listening: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tarpit:
        port = tarpit.getsockname()[1]
        if not listening:
            tarpit.close()
        store = MilvusVectors(f"http://user:secret@127.0.0.1:{port}", token="secret", timeout_seconds=0.5)
        for call in (store.check, store.builds, lambda: store.open("a"), lambda: store.create("a", 2)):
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}") as raised:
                call()
            assert time.monotonic() - began < 1.5
            assert raised.value.store == "vectors"
            assert "secret" not in str(raised.value)
        store.close()
