"""The contract of CampaignGraph, over every server that can stand behind it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from bolt_cluster import Member
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recs.errors import StoreError, StoreUnavailableError
from recs.model import ACTIONS, Campaign, CoEngagement, EngagementEdge, UserEdges
from recs.stores._bolt import Bolt
from recs.stores.graph import Neo4jGraph
from recs.stores.ports import CampaignNode, Sharing

AT = datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)
ODD_IDS = [
    "' OR 1=1",
    "'}) DETACH DELETE n //",
    "$where",
    "a.b/c\\d",
    "line\nbreak",
    "nul",
    "nul\0in",
    "\U0001f600",
    "\ue000",
    "é",
    "e\u0301",
    "",
    " ",
    "1",
    "x" * 500,
]


@dataclass(frozen=True)
class Address:
    url: str
    user: str | None
    password: str | None
    database: str | None

    def open(self, timeout_seconds: float = 120) -> Neo4jGraph:
        return Neo4jGraph(
            self.url,
            user=self.user,
            password=self.password,
            database=self.database,
            timeout_seconds=timeout_seconds,
        )


@pytest.fixture(scope="module", params=["embedded", "real", "real routed"])
def address(request: pytest.FixtureRequest) -> Address:
    """Where the contract is run; ArcadeDB does not route."""
    if request.param == "embedded":
        servers = request.getfixturevalue("servers")
        password = servers.neo4j_password.get_secret_value() if servers.neo4j_password else None
        return Address(servers.neo4j_url, servers.neo4j_user, password, servers.neo4j_database)
    url = os.environ.get("RECS_TEST_NEO4J_URL") or pytest.skip("RECS_TEST_NEO4J_URL: no Neo4j to test against")
    given = Address(url, "neo4j", os.environ["RECS_TEST_NEO4J_PASSWORD"], "neo4j")
    if request.param == "real":
        return given
    return replace(given, url=url.replace("bolt", "neo4j", 1))


@pytest.fixture(scope="module")
def opened(address: Address) -> Iterator[Neo4jGraph]:
    graph = address.open()
    yield graph
    graph.close()


@pytest.fixture
def graph(opened: Neo4jGraph) -> Neo4jGraph:
    # Not its layout: a store that is open believes that it wrote it.
    while opened._bolt.run("MATCH (n) WHERE NOT n:Layout WITH n LIMIT 500 DETACH DELETE n RETURN count(*)") != [[0]]:
        pass
    return opened


def campaign(campaign_id: str, *intents: str, **more: Any) -> Campaign:
    return Campaign(campaign_id=campaign_id, name=f"name of {campaign_id}", intents=intents, **more)


def edge(user_id: str, campaign_id: str, action: Any = "like", count: int = 1, at: datetime | None = None) -> Any:
    return EngagementEdge(user_id, campaign_id, action, count, at)


def user(user_id: str, *engagements: EngagementEdge, **intents: int) -> UserEdges:
    return UserEdges(user_id, engagements, intents)


def test_empty_sequences_touch_nothing(graph: Neo4jGraph) -> None:
    graph.put_campaigns([])
    graph.put_users([])
    graph.delete_users([])
    graph.put_co_engagement(1, [])
    graph.keep_co_engagement([])
    assert graph.campaigns() == {}
    assert graph.campaigns([]) == {}
    assert graph.engagements_of([]) == []
    assert graph.co_engaged_with([], 1) == []
    assert graph.targets([]) == []
    assert graph.engaged_with([], 5) == []
    assert graph.users_with_intents([], 5) == []
    assert list(graph.user_ids()) == []
    assert list(graph.scan_links(1)) == []
    assert set(graph.counts().values()) == {0}


def test_nothing_is_known_of_unknown_ids(graph: Neo4jGraph) -> None:
    assert graph.user("u") is None
    assert graph.campaigns(["k"]) == {}
    assert graph.set_status("k", "paused") is False
    assert graph.engagements_of(["u"]) == []
    assert graph.co_engaged("u", 1) == []
    assert graph.co_engaged_with(["k"], 1) == []
    assert graph.co_engaging("k", 1) == []
    assert graph.targets(["i"]) == []
    assert graph.targets_of_user("u") == []
    assert graph.engaged_with(["k"], 5) == []
    assert graph.users_with_intents(["i"], 5) == []
    graph.delete_users(["u"])


def test_campaigns_come_back_as_they_went_in(graph: Neo4jGraph) -> None:
    full = campaign(
        "k1",
        "b",
        "a",
        categories=("y", "x"),
        channel="email",
        starts_at=AT.astimezone(timezone(timedelta(hours=-7))),
        ends_at=AT + timedelta(days=400),
        status="paused",
        description="not kept here",
    )
    for _ in range(2):
        graph.put_campaigns([full, campaign("k0")])
        assert graph.campaigns() == {
            "k0": CampaignNode("k0", "name of k0", "active"),
            "k1": CampaignNode(
                "k1", "name of k1", "paused", "email", AT, AT + timedelta(days=400), ("y", "x"), ("a", "b")
            ),
        }
    assert list(graph.campaigns()) == ["k0", "k1"]
    starts_at = graph.campaigns(["k1", "k1", "unknown"])["k1"].starts_at
    assert starts_at is not None
    assert starts_at.tzinfo == UTC


def test_putting_a_campaign_again_replaces_it(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign("k", "a", "b", channel="email", starts_at=AT), campaign("other", "a")])
    graph.put_campaigns([campaign("k", "c"), campaign("k", "b", "b")])
    assert graph.campaigns(["k"]) == {"k": CampaignNode("k", "name of k", "active", intents=("b",))}
    assert graph.targets(["a", "b", "c"]) == [("a", "other"), ("b", "k")]
    assert graph.counts()["targets"] == 2
    assert graph.counts()["intents"] == 2


def test_set_status(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign("k")])
    assert graph.set_status("k", "ended") is True
    assert graph.campaigns()["k"].status == "ended"


def test_users_come_back_sorted_and_are_replaced(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign("k1"), campaign("k2")])
    before = user("u", edge("u", "k2", "view", 3, AT), edge("u", "k2", "like"), edge("u", "k1", "view"), b=2, a=1)
    for _ in range(2):
        graph.put_users([before, user("bare")])
        found = graph.user("u")
        assert found == user(
            "u", edge("u", "k1", "view"), edge("u", "k2", "like"), edge("u", "k2", "view", 3, AT), a=1, b=2
        )
        assert list(found.intents) == ["a", "b"]
        assert graph.user("bare") == UserEdges("bare")
        assert graph.counts() == {
            "users": 2,
            "campaigns": 2,
            "intents": 2,
            "engagements": 3,
            "has_intent": 2,
            "targets": 0,
            "co_engagements": 0,
        }
    later = AT + timedelta(microseconds=1)
    after = user("u", edge("u", "k2", "view", 4, later), edge("u", "k1", "convert"), b=5, c=1)
    graph.put_users([user("u", edge("u", "k1")), after])
    assert graph.user("u") == user("u", edge("u", "k1", "convert"), edge("u", "k2", "view", 4, later), b=5, c=1)
    assert graph.counts()["engagements"] == 2
    graph.put_users([user("u")])
    assert graph.user("u") == UserEdges("u")


def test_an_engagement_whose_campaign_has_no_node_is_skipped(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign("k")])
    graph.put_users([user("u", edge("u", "gone"), edge("u", "k"), i=1)])
    assert graph.user("u") == user("u", edge("u", "k"), i=1)
    assert set(graph.campaigns()) == {"k"}


def test_deleted_users_leave_nothing(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign("k", "i")])
    graph.put_users([user(f"u{n}", edge(f"u{n}", "k"), i=1) for n in range(3)])
    graph.delete_users(["u0", "u2", "unknown"])
    assert list(graph.user_ids()) == ["u1"]
    assert graph.engaged_with(["k"], 9) == [edge("u1", "k")]
    assert graph.counts()["has_intent"] == 1


def test_engagements_are_sorted_and_limited(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign("k1"), campaign("k2"), campaign("k3")])
    names = ["z", "\U0001f600", "a", "\ue000"]
    graph.put_users([user(n, edge(n, "k2", "view"), edge(n, "k1"), edge(n, "k2"), i=1, j=2) for n in names])
    ordered = sorted(names)
    assert graph.engagements_of([*names, "unknown", "a"]) == [
        e for n in ordered for e in (edge(n, "k1"), edge(n, "k2"), edge(n, "k2", "view"))
    ]
    expected = [edge(n, "k1") for n in ordered]
    expected += [e for n in ordered for e in (edge(n, "k2"), edge(n, "k2", "view"))]
    assert graph.engaged_with(["k2", "k1", "k3", "k1"], 100) == expected
    assert graph.engaged_with(["k1", "k2"], 7) == expected[:7]
    assert graph.engaged_with(["k1"], 0) == []
    having = [(n, i, c) for n in ordered for i, c in (("i", 1), ("j", 2))]
    assert graph.users_with_intents(["j", "i"], 100) == having
    assert graph.users_with_intents(["i", "j"], 3) == having[:3]


def test_intents_lead_to_campaigns(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign("k2", "a", "b"), campaign("k1", "a"), campaign("k3", "c")])
    graph.put_users([user("u", a=2, b=1, unheard=4)])
    assert graph.targets(["b", "a", "unheard", "a"]) == [("a", "k1"), ("a", "k2"), ("b", "k2")]
    assert graph.targets_of_user("u") == [("a", 2, "k1"), ("a", 2, "k2"), ("b", 1, "k2")]


def test_predicted_intents_are_kept_apart_from_labels(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign("k1", "a", "b"), campaign("k2", "c")])
    both = UserEdges("u", (), {"a": 2, "c": 1}, {"a": 1, "b": 3})
    graph.put_users([both, UserEdges("v", (), {}, {"b": 1})])
    assert graph.user("u") == both
    assert graph.targets_of_user("u") == [("a", 3, "k1"), ("b", 3, "k1"), ("c", 1, "k2")]
    assert graph.users_with_intents(["a", "b"], 9) == [("u", "a", 3), ("u", "b", 3), ("v", "b", 1)]
    fewer = UserEdges("u", (), {"a": 2}, {"c": 1})
    graph.put_users([fewer])
    assert graph.user("u") == fewer
    graph.put_users([UserEdges("v", (), {"b": 1})])
    assert graph.user("v") == UserEdges("v", (), {"b": 1})
    assert graph.counts()["has_intent"] == 3


def test_co_engagement_by_generation(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign(f"k{i}") for i in range(1, 5)])
    graph.put_users(
        [user("u", edge("u", "k1"), edge("u", "k1", "convert"), edge("u", "k2", "convert"), edge("u", "k3", "view"))]
    )
    links = [CoEngagement("k2", "k4", 1.0), CoEngagement("k1", "k4", 0.1), CoEngagement("k1", "k2", 1 / 3)]
    graph.put_co_engagement(1, [CoEngagement("k1", "k3", 9.0)])
    graph.put_co_engagement(2, [CoEngagement("k4", "k1", 9.0)])
    graph.put_co_engagement(2, iter([*links, CoEngagement("k3", "k1", 0.5), CoEngagement("k1", "unknown", 1.0)]))
    first, second, third = links[2], links[1], links[0]
    assert graph.co_engaged("u", 2) == [first, second, third]
    assert graph.co_engaged_with(["k3", "k1"], 2) == [first, second, CoEngagement("k3", "k1", 0.5)]
    assert graph.co_engaging("k4", 2) == [second, third]
    assert list(graph.scan_links(2)) == [first, second, third, CoEngagement("k3", "k1", 0.5)]
    assert graph.co_engaged("u", 1) == [CoEngagement("k1", "k3", 9.0)]
    assert graph.counts()["co_engagements"] == 5
    graph.keep_co_engagement([2, 3])
    assert list(graph.scan_links(1)) == []
    assert graph.counts()["co_engagements"] == 4
    graph.put_co_engagement(2, [])
    assert graph.counts()["co_engagements"] == 0


def test_more_than_one_batch(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign(f"k{i:03}") for i in range(250)])
    graph.put_users([user(f"u{i:04}", edge(f"u{i:04}", f"k{i % 250:03}")) for i in range(1100)])
    links = [CoEngagement(f"k{i:03}", f"k{j:03}", i / (j + 1)) for i in range(250) for j in range(10) if i != j]
    graph.put_co_engagement(1, reversed(links))
    assert list(graph.user_ids()) == [f"u{i:04}" for i in range(1100)]
    assert list(graph.scan_links(1)) == links
    assert len(graph.engagements_of([f"u{i:04}" for i in range(1000)])) == 1000
    graph.keep_co_engagement([])
    assert graph.counts()["co_engagements"] == 0
    graph.delete_users([f"u{i:04}" for i in range(1099)])
    assert list(graph.user_ids()) == ["u1099"]


def test_user_ids_come_in_pages(graph: Neo4jGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recs.stores.graph._USERS_PER_PAGE", 4)
    graph.put_users([user(odd) for odd in ODD_IDS])
    assert list(graph.user_ids()) == sorted(ODD_IDS)
    graph.delete_users(ODD_IDS[4:])
    assert list(graph.user_ids()) == sorted(ODD_IDS[:4])


@pytest.mark.parametrize("odd", ODD_IDS, ids=ascii)
def test_any_id_works(graph: Neo4jGraph, odd: str) -> None:
    graph.put_campaigns([campaign(i, i, channel=i, categories=(i,)) for i in ODD_IDS])
    graph.put_users([UserEdges(i, (edge(i, i, "like", 1, AT),), {i: 1}) for i in ODD_IDS])
    graph.put_co_engagement(1, [CoEngagement(i, odd, 1.0) for i in ODD_IDS])
    assert graph.user(odd) == UserEdges(odd, (edge(odd, odd, "like", 1, AT),), {odd: 1})
    assert graph.campaigns([odd]) == {
        odd: CampaignNode(odd, f"name of {odd}", "active", odd, None, None, (odd,), (odd,))
    }
    assert graph.engagements_of([odd]) == graph.engaged_with([odd], 9) == [edge(odd, odd, "like", 1, AT)]
    assert graph.targets_of_user(odd) == [(odd, 1, odd)]
    assert graph.users_with_intents([odd], 9) == [(odd, odd, 1)]
    assert graph.co_engaged(odd, 1) == [CoEngagement(odd, odd, 1.0)]
    assert len(graph.co_engaging(odd, 1)) == len(ODD_IDS)
    assert graph.set_status(odd, "paused") is True
    graph.delete_users([odd])
    assert graph.user(odd) is None
    assert list(graph.user_ids()) == sorted(i for i in ODD_IDS if i != odd)
    assert graph.counts()["campaigns"] == len(ODD_IDS)


ids = st.text(max_size=15)
engagements = st.dictionaries(
    st.tuples(st.sampled_from(["k1", "k2"]), st.sampled_from(ACTIONS)),
    st.tuples(st.integers(1, 2**31), st.none() | st.datetimes(timezones=st.just(UTC))),
    max_size=4,
)
users = st.dictionaries(ids, st.tuples(engagements, st.dictionaries(ids, st.integers(1, 99), max_size=3)), max_size=3)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=users)
def test_round_trip_of_anything(graph: Neo4jGraph, written: dict[str, Any]) -> None:
    graph.put_campaigns([campaign("k1"), campaign("k2")])
    expected = [
        UserEdges(u, tuple(edge(u, *target, *value) for target, value in sorted(edges.items())), intents)
        for u, (edges, intents) in written.items()
    ]
    graph.put_users(expected)
    assert [graph.user(u) for u in written] == expected
    everything = [e for one in sorted(expected, key=lambda one: one.user_id) for e in one.engagements]
    assert graph.engagements_of(list(written)) == everything


def test_many_threads_read_and_write(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign("k")])
    graph.put_users([user(f"u{n}", edge(f"u{n}", "k")) for n in range(8)])

    def read(n: int) -> bool:
        return all(graph.user(f"u{n}") == user(f"u{n}", edge(f"u{n}", "k")) for _ in range(10))

    def write(n: int) -> None:
        graph.put_users([user("same", edge("same", "k", "view", n + 1), i=n + 1), user(f"other {n}")])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))
        list(pool.map(write, range(8)))
    same = graph.user("same")
    assert same is not None
    (view,) = same.engagements
    assert same.intents == {"i": view.count}
    assert graph.counts()["users"] == 17


def test_check_counts_and_close_twice(graph: Neo4jGraph, address: Address) -> None:
    graph.put_campaigns([campaign("k", "i")])
    check = graph.check()
    assert check.role == "graph"
    assert "Neo4j" in check.product
    assert check.milliseconds > 0
    assert check.counts == {"users": 0, "campaigns": 1}
    other = address.open()
    other.close()
    other.close()
    with pytest.raises(StoreError, match="graph"):
        other.counts()


def test_a_wrong_password_is_a_store_error(address: Address) -> None:
    wrong = Neo4jGraph(address.url, user=address.user or "neo4j", password="wrong", database=address.database)
    with pytest.raises(StoreError) as raised:
        wrong.counts()
    assert not isinstance(raised.value, StoreUnavailableError)
    wrong.close()


@pytest.mark.parametrize("listening", [True, False], ids=["says nothing", "is not there"])
def test_a_server_that_does_not_answer_is_unavailable_in_time(listening: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tarpit:
        port = tarpit.getsockname()[1]
        if not listening:
            tarpit.close()
        graph = Neo4jGraph(f"bolt://127.0.0.1:{port}", user="neo4j", password="secret", timeout_seconds=0.5)
        for call in (graph.check, lambda: graph.user("u"), lambda: graph.put_users([user("u")])):
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}") as raised:
                call()
            assert time.monotonic() - began < 1.5
            assert raised.value.store == "graph"
            assert "secret" not in str(raised.value)
        graph.close()


def test_a_url_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(StoreError, match="not a Neo4j URL"):
        Neo4jGraph("http://127.0.0.1")


@contextmanager
def routed(router: Member) -> Iterator[Bolt]:
    url = f"neo4j://{router.address}"
    with closing(Bolt(url, user="neo4j", password="secret", database="neo4j", timeout_seconds=0.5)) as bolt:
        yield bolt


def test_all_queries_go_to_the_leader() -> None:
    with Member() as router, Member() as leader, Member() as follower:
        router.roles = {"ROUTE": [router.address], "READ": [follower.address], "WRITE": [leader.address]}
        with routed(router) as bolt:
            assert bolt.read("MATCH (u:User) RETURN collect([u.id])") == []
            bolt.write(lambda transaction: transaction.run("MATCH (u:User) DELETE u").consume())
        assert leader.queries == 2
        assert router.queries == follower.queries == 0


@pytest.mark.parametrize("database", ["neo4j", None])
@pytest.mark.parametrize("how", ["not named", "refuses", "says nothing"])
def test_a_cluster_without_a_leader_is_unavailable_in_time(
    how: str, database: str | None, tarpit: int, closed_port: int
) -> None:
    leaders = {"not named": [], "refuses": [f"127.0.0.1:{closed_port}"], "says nothing": [f"127.0.0.1:{tarpit}"]}
    with Member() as follower:
        follower.roles = {"ROUTE": [follower.address], "READ": [follower.address], "WRITE": leaders[how]}
        graph = Neo4jGraph(
            f"neo4j://{follower.address}", user="neo4j", password="secret", database=database, timeout_seconds=0.5
        )
        calls = [graph.check, lambda: graph.user("u"), lambda: graph.put_users([user("u")])]

        def ask(call: Any) -> float:
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match=follower.address):
                call()
            return time.monotonic() - began

        assert max(ask(call) for call in calls) < 1.5
        with ThreadPoolExecutor(8) as pool:
            assert max(pool.map(ask, calls * 8)) < 2.5
        assert follower.queries == 0
        graph.close()


def test_a_leader_that_comes_back_is_found() -> None:
    with Member() as follower, Member() as leader, routed(follower) as bolt:
        follower.roles = {"ROUTE": [follower.address], "READ": [follower.address], "WRITE": []}
        with pytest.raises(StoreUnavailableError):
            bolt.read("RETURN collect([1])")
        follower.roles = {**follower.roles, "WRITE": [leader.address]}
        assert bolt.read("RETURN collect([1])") == []


@pytest.mark.parametrize("listening", [True, False], ids=["says nothing", "is not there"])
def test_a_router_that_does_not_answer_is_unavailable_in_time(listening: bool, tarpit: int, closed_port: int) -> None:
    port = tarpit if listening else closed_port
    graph = Neo4jGraph(f"neo4j://127.0.0.1:{port}", user="neo4j", password="secret", timeout_seconds=0.5)

    def ask(_: int) -> float:
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{port}") as raised:
            graph.user("u")
        assert "secret" not in str(raised.value)
        return time.monotonic() - began

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(ask, range(16))) < 2.5
    graph.close()


def test_sharing_finds_who_took_the_same_by_the_cosine(graph: Neo4jGraph) -> None:
    graph.put_campaigns([campaign(c) for c in ("a", "b", "c", "d", "e")])
    graph.put_users(
        [
            user("both", edge("both", "a"), edge("both", "b", "convert"), edge("both", "b", "like")),
            user("one", edge("one", "a", "convert")),
            user("wide", *(edge("wide", c) for c in "abcde")),
            user("saw", edge("saw", "a", "view"), edge("saw", "b", "dislike")),
            user("other", edge("other", "e")),
            user("one more", edge("one more", "b"), edge("one more", "c", "view")),
        ]
    )
    both, one, more, wide = (
        Sharing("both", 2, 2),
        Sharing("one", 1, 1),
        Sharing("one more", 1, 1),
        Sharing("wide", 2, 5),
    )
    assert graph.sharing(["a", "b"], 10) == [both, one, more, wide]
    assert graph.sharing(["a", "b", "a"], 2) == [both, one]
    assert graph.sharing([], 10) == graph.sharing(["nothing"], 10) == graph.sharing(["a"], 0) == []
    graph.put_users([user("one", edge("one", "a"), edge("one", "c"), edge("one", "d"), edge("one", "e"))])
    assert graph.sharing(["a"], 10)[-1] == Sharing("wide", 1, 5)
    assert Sharing("one", 1, 4) in graph.sharing(["a"], 10)


@pytest.mark.parametrize("odd", ODD_IDS)
def test_sharing_with_odd_ids(graph: Neo4jGraph, odd: str) -> None:
    graph.put_campaigns([campaign(odd)])
    graph.put_users([user(odd, edge(odd, odd))])
    assert graph.sharing([odd], 5) == [Sharing(odd, 1, 1)]
