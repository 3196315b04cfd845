"""The contract of StateStore, over SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recs.errors import RunError, StoreError, StoreUnavailableError
from recs.model import Generation, Head, Preferences
from recs.stores.ports import RunRecord
from recs.stores.state import SqlState

AT = datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)
ODD_IDS = [
    "' OR 1=1 --",
    '"; DROP TABLE preferences; --',
    "%(name)s :name",
    "line\nbreak",
    "",
    "nul\0in",
    "\1",
    "\U0001f600",
    "\ue000",
    "é",
    "x" * 500,
]


@pytest.fixture
def store(sql_url: str) -> Iterator[SqlState]:
    opened = SqlState(sql_url, timeout_seconds=20)
    yield opened
    opened.close()


def generation(number: int, run_id: str = "r1", **changes: Any) -> Generation:
    values: dict[str, Any] = {
        "number": number,
        "build": "b1",
        "model": "minilm",
        "run_id": run_id,
        "published_at": AT,
        "newest_at": None,
        "weights": {"content": 0.1, "prior": 1 / 3},
        "scales": {"content": 2.0},
        "centre": (0.1, -1e-300, 3.0),
        "users": 7,
    }
    return Generation(**(values | changes))


class TestGenerations:
    def test_a_new_store_has_none(self, store: SqlState) -> None:
        assert store.head() == Head(0, 0)
        assert store.generation() is None
        assert store.generation(1) is None
        assert not store.is_dirty()

    def test_publishing_moves_the_head_and_clears_the_mark(self, store: SqlState) -> None:
        store.mark_dirty()
        first = generation(1, newest_at=AT)
        store.publish(first)
        assert store.head() == Head(1, 0)
        assert store.generation() == store.generation(1) == first
        assert not store.is_dirty()
        second = generation(2, weights={"ünï": 1.5e-9}, centre=())
        store.publish(second)
        assert store.generation() == second
        assert store.generation(1) == first
        assert store.generation(3) is None

    @pytest.mark.parametrize("number", [0, 1, 3, -1])
    def test_a_wrong_number_is_refused_and_changes_nothing(self, store: SqlState, number: int) -> None:
        store.publish(generation(1))
        store.mark_dirty()
        with pytest.raises(StoreError, match=f"generation {number}: the current one is 1"):
            store.publish(generation(number))
        assert store.head() == Head(1, 0)
        assert store.is_dirty()

    def test_of_publishers_at_once_one_wins(self, store: SqlState) -> None:
        def publish(_: int) -> bool:
            with contextlib.suppress(StoreError):
                store.publish(generation(1))
                return True
            return False

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(publish, range(8))) == 1

    def test_marks_set_since_the_run_looked_stay(self, store: SqlState) -> None:
        store.mark_dirty()
        seen = store.dirty_marks()
        store.mark_dirty()
        store.publish(generation(1), marks_seen=seen)
        assert store.is_dirty()
        store.publish(generation(2), marks_seen=store.dirty_marks())
        assert not store.is_dirty()

    def test_a_run_whose_lock_was_taken_over_cannot_publish(self, store: SqlState) -> None:
        with store.run_lock("r2"):
            with pytest.raises(RunError, match="run r1 cannot publish: run r2"):
                store.publish(generation(1, "r1"))
            assert store.head().generation == 0
            store.publish(generation(1, "r2"))
        assert store.head().generation == 1


class TestRuns:
    RUN = RunRecord(
        "r1",
        AT,
        AT + timedelta(seconds=3),
        "published",
        ({"path": "é\\n.json", "sha256": "00", "bytes": 2**40},),
        {"read": 3},
        {"embed": 0.1 + 0.2},
        {"recs": "0.1.0"},
        4,
        'it said "no"\0',
    )

    def test_a_run_comes_back_as_it_went_in(self, store: SqlState) -> None:
        store.put_run(self.RUN)
        assert store.run("r1") == self.RUN
        assert store.run("r2") is None
        bare = RunRecord("r1", AT, None, "running")
        store.put_run(bare)
        assert store.run("r1") == bare

    def test_the_latest_come_first_and_ties_fall_by_id(self, store: SqlState) -> None:
        for run_id, hours in [("b", 0), ("B", 0), ("old", -5), ("new", 5), ("é", 0)]:
            store.put_run(RunRecord(run_id, AT + timedelta(hours=hours), None, "running"))
        assert [run.run_id for run in store.runs()] == ["new", "B", "b", "é", "old"]
        assert [run.run_id for run in store.runs(2)] == ["new", "B"]
        assert store.runs(0) == []


class TestPending:
    def test_noting_and_clearing(self, store: SqlState) -> None:
        store.add_pending({"c2": "u1", "c1": "u2"})
        assert store.is_dirty()
        store.add_pending({"c2": "u3"})
        assert store.pending() == {"c1": "u2", "c2": "u3"}
        store.clear_pending(["c1", "unknown"])
        assert store.pending() == {"c2": "u3"}

    def test_nothing_touches_nothing(self, store: SqlState) -> None:
        store.add_pending({})
        store.clear_pending([])
        assert not store.is_dirty()

    def test_any_ids_and_many(self, store: SqlState) -> None:
        noted = {odd: odd for odd in ODD_IDS} | {f"c{i}": "u" for i in range(2_000)}
        store.add_pending(noted)
        assert list(store.pending().items()) == sorted(noted.items())
        store.clear_pending(list(noted))
        assert store.pending() == {}


class TestPreferences:
    @pytest.mark.parametrize(
        "channels",
        [None, (), ("chat", "e-mail"), {}, {"*": False, "chat": True}],
        ids=["none", "empty_list", "list", "empty_dict", "dict"],
    )
    def test_they_come_back_as_they_went_in(self, store: SqlState, channels: Any) -> None:
        given = Preferences.model_validate(
            {"user_id": "ü1", "profiling": False, "channels": channels, "note": {"é": [1, None, "x\0"]}}
        )
        assert store.put_preferences([given]) == 1
        found = store.preferences(["ü1"])["ü1"]
        assert found == given
        assert type(found.channels) is type(channels)

    def test_only_what_changed_is_stored_and_moves_the_revision(self, store: SqlState) -> None:
        a, b = Preferences(user_id="a"), Preferences(user_id="b", profiling=False)
        assert store.put_preferences([a, b]) == 2
        assert store.head() == Head(0, 1)
        assert store.is_dirty()
        store.publish(generation(1))
        assert store.put_preferences([a, b]) == 0
        assert store.put_preferences([]) == 0
        assert store.head() == Head(1, 1)
        assert not store.is_dirty()
        assert store.put_preferences([a, Preferences(user_id="b")]) == 1
        assert store.head() == Head(1, 2)
        assert store.is_dirty()

    def test_the_last_of_several_for_a_user_stands(self, store: SqlState) -> None:
        assert store.put_preferences([Preferences(user_id="a"), Preferences(user_id="a", profiling=False)]) == 1
        assert store.profiling_opt_outs() == {"a"}

    def test_the_order_of_keys_is_no_change(self, store: SqlState) -> None:
        store.put_preferences([Preferences(user_id="a", channels={"x": True, "y": False})])
        assert store.put_preferences([Preferences(user_id="a", channels={"y": False, "x": True})]) == 0

    def test_lookups(self, store: SqlState) -> None:
        given = {odd: Preferences(user_id=odd, profiling=i % 2 == 0) for i, odd in enumerate(ODD_IDS)}
        store.put_preferences(list(given.values()))
        assert store.preferences([*ODD_IDS, "unknown"]) == given
        assert store.preferences([]) == {}
        assert [p.user_id for p in store.all_preferences()] == sorted(ODD_IDS)
        assert store.profiling_opt_outs() == set(ODD_IDS[1::2])

    def test_many_at_once(self, store: SqlState) -> None:
        many = [Preferences(user_id=f"u{i}") for i in range(1_500)]
        assert store.put_preferences(many) == 1_500
        assert len(store.preferences([p.user_id for p in many])) == 1_500


class TestShownAndErasure:
    def test_what_was_shown(self, store: SqlState) -> None:
        answer = '{"text": "é\U0001f600 \\u0000"}'
        store.record_shown("rec1", "u1", 3, answer)
        store.record_shown("rec2", None, 3, "{}")
        store.record_shown("rec2", None, 3, "{}")
        assert store.shown("rec1") == answer
        assert store.shown("rec2") == "{}"
        assert store.shown("unknown") is None

    def test_an_erased_user_leaves_nothing(self, store: SqlState) -> None:
        for user in ("u1", "u2"):
            store.record_shown(f"a-{user}", user, 1, "{}")
            store.record_shown(f"b-{user}", user, 1, "{}")
            store.add_pending({f"c-{user}": user})
            store.put_preferences([Preferences(user_id=user, profiling=False)])
        store.publish(generation(1))
        revision = store.head().revision
        assert store.delete_user("u1") == 4
        assert store.delete_user("u1") == 0
        assert store.head().revision == revision + 1  # an opt-out is gone
        assert store.is_dirty()
        assert store.shown("a-u1") is None
        assert store.shown("a-u2") == "{}"
        assert store.pending() == {"c-u2": "u2"}
        assert store.profiling_opt_outs() == {"u2"}

    def test_bumping_the_revision(self, store: SqlState) -> None:
        assert [store.bump_revision(), store.bump_revision()] == [1, 2]
        assert store.head() == Head(0, 2)
        assert not store.is_dirty()

    def test_threads_lose_nothing(self, store: SqlState) -> None:
        def work(thread: int) -> None:
            for i in range(10):
                store.record_shown(f"{thread}-{i}", f"u{thread}", 1, f"{thread * i}")
                assert store.shown(f"{thread}-{i}") == f"{thread * i}"
                store.bump_revision()
                store.put_preferences([Preferences(user_id="shared", profiling=bool((thread + i) % 2))])
                store.add_pending({f"c{i}": f"u{thread}", f"d{i}": f"u{thread}"})
                store.head()

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, thread) for thread in range(8)]:
                done.result()
        assert store.head().revision >= 80
        assert len(store.pending()) == 20

    def test_a_refused_row_does_not_take_others_with_it(self, store: SqlState) -> None:
        store._write_shown([{**_shown("good")}])
        started, results = threading.Barrier(9), {}

        def put(key: str, answer: str) -> None:
            started.wait()
            try:
                store.record_shown(key, None, 1, answer)
                results[key] = "stored"
            except StoreUnavailableError:
                results[key] = "unavailable"
            except StoreError:
                results[key] = "refused"

        # Half a surrogate pair has no UTF-8.
        keys = {f"r{i}": "{}" for i in range(8)} | {"bad": '"\ud800"'}
        with ThreadPoolExecutor(9) as pool:
            for done in [pool.submit(put, *item) for item in keys.items()]:
                done.result()
        assert results == {f"r{i}": "stored" for i in range(8)} | {"bad": "refused"}
        assert all(store.shown(f"r{i}") == "{}" for i in range(8))


def _shown(recommendation_id: str) -> dict[str, Any]:
    return {"recommendation_id": recommendation_id, "user_id": None, "generation": 1, "at": AT, "answer": "{}"}


SECRET_MAKER = """
import os, sys
from recs.stores.state import SqlState
store = SqlState(sys.argv[1], timeout_seconds=20)
print("ready", flush=True)
sys.stdin.readline()
print(store.secret("s", lambda: os.urandom(32)).hex())
store.close()
"""


class TestSecrets:
    def test_the_first_one_stays(self, store: SqlState) -> None:
        assert store.secret("a", lambda: b"\0first") == b"\0first"
        assert store.secret("a", lambda: b"second") == b"\0first"
        assert store.secret("b", lambda: b"second") == b"second"

    def test_processes_that_make_one_at_once_share_it(self, store: SqlState, sql_url: str) -> None:
        command = [sys.executable, "-c", SECRET_MAKER, sql_url]
        makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        for maker in makers:
            assert maker.stdout
            assert maker.stdout.readline() == "ready\n"
        told = {maker.communicate("go\n", timeout=200)[0] for maker in makers}
        assert told == {store.secret("s", lambda: b"too late").hex() + "\n"}


class TestArtifacts:
    def test_the_last_one_stays(self, store: SqlState) -> None:
        assert store.artifact("a") is store.artifact_digest("a") is None
        store.put_artifact("a", b"\0first")
        store.put_artifact("b", b"other")
        first = store.artifact_digest("a")
        store.put_artifact("a", b"second")
        assert (store.artifact("a"), store.artifact("b")) == (b"second", b"other")
        assert store.artifact_digest("a") == hashlib.sha256(b"second").hexdigest() != first
