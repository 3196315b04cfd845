"""The contract of MetricsStore, over every SQL engine that can stand behind it."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recs.errors import SchemaVersionError, StoreUnavailableError
from recs.model import ACTIONS, CampaignMetrics, EngagementEdge, EngagementFact
from recs.stores.metrics import SqlMetrics

AT = datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)
DAY = timedelta(days=1)
ODD_IDS = [
    "' OR 1=1 --",
    '"; DROP TABLE engagement_facts; --',
    "a.b/c\\d%_*?",
    ":name",
    "%(name)s",
    "line\nbreak\ttab",
    "",
    " ",
    "nul\0in",
    "nul\1in",
    "\0",
    "\1\2",
    "\U0001f600",
    "\ue000",
    "é",
    "e\u0301",
    "B",
    "a",
    "x" * 500,
]


@pytest.fixture
def store(analytics_url: str) -> Iterator[SqlMetrics]:
    opened = SqlMetrics(analytics_url, timeout_seconds=20)
    yield opened
    opened.close()


def fact(
    conversation: str,
    user: str,
    campaign: str,
    action: str,
    at: datetime | None = AT,
    *,
    count: int = 1,
    value: float | None = None,
    currency: str | None = None,
) -> EngagementFact:
    return EngagementFact(conversation, user, campaign, action, count, at, value, currency)  # type: ignore[arg-type]


def put(store: SqlMetrics, facts: Sequence[EngagementFact]) -> None:
    store.replace_facts(sorted({f.conversation_id for f in facts}), facts)


FACTS = [
    fact("c1", "u1", "k1", "view", AT - 4 * DAY, count=3),
    fact("c1", "u1", "k1", "like", AT - 2 * DAY),
    fact("c2", "u1", "k1", "convert", AT - 1 * DAY, value=9.5, currency="EUR"),
    fact("c3", "u2", "k1", "like", None),
    fact("c3", "u2", "k2", "dislike", AT),
    fact("c4", "u3", "k2", "click", AT - 3 * DAY, count=2),
    fact("c4", "u3", "k2", "mention", AT - 3 * DAY),
]


def test_facts_come_back_as_they_went_in(store: SqlMetrics) -> None:
    put(store, FACTS)
    assert list(store.scan_facts()) == sorted(FACTS, key=lambda f: (f.conversation_id, f.campaign_id, f.action))
    assert store.counts() == {"facts": 7, "conversations": 4, "users": 3, "campaigns": 2}
    assert store.newest_at() == AT


def test_times_come_back_in_utc_to_the_microsecond(store: SqlMetrics) -> None:
    east = datetime(2026, 3, 1, 1, 30, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    times = [east, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), AT.replace(microsecond=0)]
    put(store, [fact(f"c{i}", "u", "k", "view", at) for i, at in enumerate(times)])
    found = [f.at for f in store.scan_facts()]
    assert found == times
    assert {at.utcoffset() for at in found if at} == {timedelta(0)}
    assert store.newest_at() == times[2]


def test_a_time_without_a_zone_is_refused(store: SqlMetrics) -> None:
    with pytest.raises(ValueError, match="without a zone"):
        put(store, [fact("c", "u", "k", "view", datetime(2026, 1, 1))])  # noqa: DTZ001


def test_an_empty_store_answers(store: SqlMetrics) -> None:
    assert store.newest_at() is None
    assert list(store.scan_facts()) == []
    assert list(store.user_campaigns()) == []
    assert store.popular(1, 10) == []
    assert store.campaign_metrics(1, ["k1"]) == {}
    assert store.views_since("u1", AT) == {}
    assert store.aggregate(1, newest_at=None, half_life_days=1.0) == 0
    assert store.counts() == {"facts": 0, "conversations": 0, "users": 0, "campaigns": 0}
    assert store.delete_user("u1") == 0


def test_empty_sequences_touch_nothing(store: SqlMetrics) -> None:
    put(store, FACTS)
    store.aggregate(1, newest_at=AT, half_life_days=1.0)
    store.replace_facts([], [])
    assert store.campaign_metrics(1, []) == {}
    assert store.popular(1, 0) == []
    assert store.counts()["facts"] == 7


def test_replacing_drops_what_a_conversation_no_longer_says(store: SqlMetrics) -> None:
    put(store, FACTS)
    store.replace_facts(["c1", "c2", "unknown"], [fact("c1", "u9", "k1", "click")])
    assert [f for f in store.scan_facts() if f.conversation_id < "c3"] == [fact("c1", "u9", "k1", "click")]
    assert store.counts()["facts"] == 5


def test_writing_twice_leaves_what_writing_once_leaves(store: SqlMetrics) -> None:
    put(store, FACTS)
    before = list(store.scan_facts())
    put(store, FACTS)
    assert list(store.scan_facts()) == before


def test_of_two_facts_with_one_key_the_last_stands(store: SqlMetrics) -> None:
    store.replace_facts([], [fact("c", "u", "k", "view", count=1), fact("c", "u", "k", "view", count=2)])
    store.replace_facts([], [fact("c", "u", "k", "view", count=3)])
    assert [f.count for f in store.scan_facts()] == [3]


def test_metrics_worked_out_by_hand(store: SqlMetrics) -> None:
    put(store, FACTS)
    assert store.aggregate(1, newest_at=AT, half_life_days=1.0) == 2
    found = store.campaign_metrics(1, ["k1", "k2", "unknown"])
    # u1's newest positive fact is a day, one half-life, old: 1/2. u2's has no time: 1.
    assert found["k1"].prior == pytest.approx(math.log(1 + 0.5 + 1), rel=1e-12)
    assert found == {
        "k1": CampaignMetrics("k1", 2, 2, 3, 0, 2, 1, 0, 0, found["k1"].prior, AT - 1 * DAY),
        "k2": CampaignMetrics("k2", 2, 0, 0, 2, 0, 0, 1, 1, 0.0, AT),
    }
    assert [m.campaign_id for m in store.popular(1, 10)] == ["k1", "k2"]


def test_excluded_users_are_left_out_of_everything(store: SqlMetrics) -> None:
    put(store, FACTS)
    assert store.aggregate(1, newest_at=AT, half_life_days=1.0, excluded_users=["u1", "u3", "u3", "unknown"]) == 2
    found = store.campaign_metrics(1, ["k1", "k2"])
    assert (found["k1"].users, found["k1"].views, found["k1"].prior) == (1, 0, pytest.approx(math.log(2)))
    assert (found["k2"].users, found["k2"].clicks) == (1, 0)
    # The next aggregation knows nothing of them.
    store.aggregate(2, newest_at=AT, half_life_days=1.0)
    assert store.campaign_metrics(2, ["k1"])["k1"].users == 2
    assert {e.user_id for e in store.user_campaigns(["u1", "u3"])} == {"u2"}


def test_without_any_time_every_positive_user_counts_one(store: SqlMetrics) -> None:
    put(store, [fact("c1", "u1", "k1", "like", None), fact("c2", "u2", "k1", "convert", None)])
    store.aggregate(1, newest_at=None, half_life_days=30.0)
    assert store.campaign_metrics(1, ["k1"])["k1"].prior == pytest.approx(math.log(3))
    assert store.campaign_metrics(1, ["k1"])["k1"].last_at is None


def test_ages_beyond_the_range_of_a_double_weigh_nothing(store: SqlMetrics) -> None:
    put(store, [fact("c1", "u1", "k1", "like", datetime(1, 1, 1, tzinfo=UTC)), fact("c2", "u2", "k1", "like", AT)])
    store.aggregate(1, newest_at=AT, half_life_days=0.001)
    assert store.campaign_metrics(1, ["k1"])["k1"].prior == pytest.approx(math.log(2))
    store.aggregate(1, newest_at=datetime(1, 1, 1, tzinfo=UTC), half_life_days=0.001)
    assert math.isfinite(store.campaign_metrics(1, ["k1"])["k1"].prior)


@pytest.mark.parametrize("half_life_days", [0.0, -1.0, math.nan])
def test_a_half_life_must_be_above_zero(store: SqlMetrics, half_life_days: float) -> None:
    with pytest.raises(ValueError, match="half_life_days"):
        store.aggregate(1, newest_at=AT, half_life_days=half_life_days)


def test_aggregating_replaces_its_own_generation_only(store: SqlMetrics) -> None:
    put(store, FACTS)
    store.aggregate(1, newest_at=AT, half_life_days=1.0)
    store.replace_facts(["c1", "c2", "c3", "c4"], [fact("c9", "u9", "k9", "like")])
    assert store.aggregate(2, newest_at=AT, half_life_days=1.0) == 1
    assert [m.campaign_id for m in store.popular(1, 9)] == ["k1", "k2"]
    assert store.aggregate(1, newest_at=AT, half_life_days=1.0) == 1
    assert [m.campaign_id for m in store.popular(1, 9)] == ["k9"]
    store.keep_generations([2, 7])
    assert store.popular(1, 9) == []
    assert len(store.popular(2, 9)) == 1
    store.keep_generations([])
    assert store.popular(2, 9) == []


def test_ties_in_the_prior_fall_by_code_point(store: SqlMetrics) -> None:
    put(store, [fact(f"c{i}", "u", campaign, "like") for i, campaign in enumerate(ODD_IDS)])
    store.aggregate(1, newest_at=AT, half_life_days=1.0)
    assert [m.campaign_id for m in store.popular(1, 100)] == sorted(ODD_IDS)
    assert [m.campaign_id for m in store.popular(1, 3)] == sorted(ODD_IDS)[:3]
    assert set(store.campaign_metrics(1, ODD_IDS)) == set(ODD_IDS)


def test_ids_may_hold_any_character(store: SqlMetrics) -> None:
    facts = [fact(odd, odd[::-1], odd, "view", count=i + 1) for i, odd in enumerate(ODD_IDS)]
    put(store, facts)
    assert list(store.scan_facts()) == sorted(facts, key=lambda f: f.conversation_id)
    assert [e.user_id for e in store.user_campaigns()] == sorted(odd[::-1] for odd in ODD_IDS)
    for i, odd in enumerate(ODD_IDS):
        assert store.views_since(odd[::-1], AT) == {odd: i + 1}
        assert store.delete_user(odd[::-1]) == 1
    assert store.counts()["facts"] == 0


def test_user_campaigns_sum_over_conversations(store: SqlMetrics) -> None:
    put(store, [*FACTS, fact("c5", "u1", "k1", "view", AT, count=4), fact("c6", "u1", "k1", "like", None)])
    assert list(store.user_campaigns()) == [
        EngagementEdge("u1", "k1", "convert", 1, AT - 1 * DAY),
        EngagementEdge("u1", "k1", "like", 2, AT - 2 * DAY),
        EngagementEdge("u1", "k1", "view", 7, AT),
        EngagementEdge("u2", "k1", "like", 1, None),
        EngagementEdge("u2", "k2", "dislike", 1, AT),
        EngagementEdge("u3", "k2", "click", 2, AT - 3 * DAY),
        EngagementEdge("u3", "k2", "mention", 1, AT - 3 * DAY),
    ]


def test_views_since_counts_that_users_views_from_that_time_on(store: SqlMetrics) -> None:
    put(
        store,
        [
            fact("c1", "u1", "k1", "view", AT, count=2),
            fact("c2", "u1", "k1", "view", AT - DAY, count=3),
            fact("c3", "u1", "k1", "click", AT),
            fact("c4", "u1", "k2", "view", None),
            fact("c5", "u2", "k1", "view", AT),
        ],
    )
    assert store.views_since("u1", AT) == {"k1": 2}
    assert store.views_since("u1", AT - DAY) == {"k1": 5}
    assert store.views_since("u1", AT + timedelta(microseconds=1)) == {}


def test_a_deleted_user_leaves_no_fact(store: SqlMetrics) -> None:
    put(store, FACTS)
    assert store.delete_user("u1") == 3
    assert store.delete_user("u1") == 0
    assert {f.user_id for f in store.scan_facts()} == {"u2", "u3"}


def test_id_lists_of_any_length_are_served(store: SqlMetrics) -> None:
    ids = [f"k{i:05d}" for i in range(3_000)]
    put(store, [fact(k, "u", k, "like") for k in ids])
    excluded = [f"x{i}" for i in range(40_000)]
    assert store.aggregate(1, newest_at=AT, half_life_days=1.0, excluded_users=excluded) == 3_000
    assert set(store.campaign_metrics(1, ids)) == set(ids)
    store.replace_facts([*ids, *excluded], [])
    assert store.counts()["facts"] == 0


def test_a_scan_may_be_left_early_and_written_beside(store: SqlMetrics) -> None:
    put(store, [fact(f"c{i:04d}", "u", "k", "view") for i in range(5_000)])
    scan = store.scan_facts()
    assert next(scan).conversation_id == "c0000"
    store.replace_facts(["c4999"], [])
    assert sum(1 for _ in scan) in (4_998, 4_999)
    next(store.user_campaigns())
    for _ in range(70):  # each abandoned scan gives its connection back
        next(store.scan_facts())


def test_threads_share_a_store(store: SqlMetrics) -> None:
    def work(thread: int) -> None:
        for i in range(10):
            store.replace_facts([f"c{thread}"], [fact(f"c{thread}", f"u{thread}", "k", "view", count=i + 1)])
            store.replace_facts(["shared"], [fact("shared", "u", f"k{thread}", "view")])
            assert store.views_since(f"u{thread}", AT) == {"k": i + 1}

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, thread) for thread in range(8)]:
            done.result()
    assert store.counts() == {"facts": 9, "conversations": 9, "users": 9, "campaigns": 2}


TIMES = st.none() | st.datetimes(datetime(2020, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
RANDOM_FACTS = st.lists(
    st.builds(
        fact,
        st.sampled_from(["c1", "c2", "c3", "c4", "c5"]),
        st.sampled_from(["u1", "u2", "u3"]),
        st.sampled_from(["k1", "k2"]),
        st.sampled_from(ACTIONS),
        TIMES,
        count=st.integers(1, 5),
    ),
    max_size=30,
    unique_by=lambda f: (f.conversation_id, f.campaign_id, f.action),
)


@given(facts=RANDOM_FACTS, half_life_days=st.floats(0.01, 2000), excluded=st.sets(st.sampled_from(["u1", "u2"])))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_engine_aggregates_as_plain_python_does(
    store: SqlMetrics, facts: list[EngagementFact], half_life_days: float, excluded: set[str]
) -> None:
    store.replace_facts(["c1", "c2", "c3", "c4", "c5"], facts)
    newest_at = store.newest_at()
    made = store.aggregate(1, newest_at=newest_at, half_life_days=half_life_days, excluded_users=sorted(excluded))
    expected = _aggregate(facts, newest_at, half_life_days, excluded)
    found = store.campaign_metrics(1, ["k1", "k2"])
    assert made == len(expected)
    assert {k: m.prior for k, m in found.items()} == pytest.approx({k: m.prior for k, m in expected.items()}, rel=1e-9)
    assert {k: _without_prior(m) for k, m in found.items()} == {k: _without_prior(m) for k, m in expected.items()}


def _without_prior(m: CampaignMetrics) -> tuple[object, ...]:
    counts = (m.users, m.positive_users, m.views, m.clicks, m.likes, m.converts, m.mentions, m.dislikes)
    return (m.campaign_id, *counts, m.last_at)


def _aggregate(
    facts: Sequence[EngagementFact], newest_at: datetime | None, half_life_days: float, excluded: set[str]
) -> dict[str, CampaignMetrics]:
    of_campaign: dict[str, list[EngagementFact]] = defaultdict(list)
    for f in facts:
        if f.user_id not in excluded:
            of_campaign[f.campaign_id].append(f)
    result = {}
    for campaign, theirs in of_campaign.items():
        positive: dict[str, list[datetime]] = defaultdict(list)
        for f in theirs:
            if f.action in ("like", "convert"):
                positive[f.user_id] += [] if f.at is None else [f.at]
        weights = [
            2.0 ** (-((newest_at - max(times)) / DAY) / half_life_days) if times and newest_at else 1.0
            for times in positive.values()
        ]
        counts = [sum(f.count for f in theirs if f.action == action) for action in ACTIONS]
        times = [f.at for f in theirs if f.at is not None]
        users = len({f.user_id for f in theirs})
        prior = math.log(1 + sum(weights))
        result[campaign] = CampaignMetrics(campaign, users, len(positive), *counts, prior, max(times, default=None))
    return result


def test_check_names_the_product(store: SqlMetrics) -> None:
    check = store.check()
    assert check.role == "metrics"
    assert check.product.split()[0] in ("SQLite", "PostgreSQL", "duckdb")
    assert check.milliseconds > 0


def test_closing_twice_is_harmless(analytics_url: str) -> None:
    store = SqlMetrics(analytics_url)
    store.close()
    store.close()


def test_a_reopened_store_has_its_facts(analytics_url: str) -> None:
    for _ in range(2):
        store = SqlMetrics(analytics_url)
        put(store, FACTS)
        store.close()
    store = SqlMetrics(analytics_url)
    assert store.counts()["facts"] == 7
    store.close()


def test_a_newer_schema_is_refused(analytics_url: str) -> None:
    store = SqlMetrics(analytics_url)
    with store._db.write() as connection:
        connection.execute(sa.text("UPDATE recs_metrics_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(SchemaVersionError, match=r"9999.*install the newer version.*RECS_SQL_URL"):
        SqlMetrics(analytics_url)


def test_a_held_write_lock_is_reported_in_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('locked')}/store.db"
    holder, other = SqlMetrics(url), SqlMetrics(url, timeout_seconds=0.2)
    with holder._db.write():
        assert other.newest_at() is None  # readers are not held up
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="locked"):
            other.replace_facts(["c"], [])
        assert time.monotonic() - started < 2
    holder.close()
    other.close()
