"""The version kept with the data of MongoDB, Milvus and Neo4j: written, migrated, refused, on every server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pymongo
import pytest
from neo4j import GraphDatabase
from pymilvus import MilvusClient

from recs.errors import SchemaVersionError, StoreUnavailableError
from recs.model import Campaign, EngagementEdge, UserEdges
from recs.settings import Settings
from recs.stores.documents import MongoDocuments
from recs.stores.graph import Neo4jGraph
from recs.stores.layouts import Layout, VersionGuard, documents, graph, vectors
from recs.stores.ports import VectorRecord
from recs.stores.vectors import MilvusVectors

BUILD = "layouttests"


@dataclass
class Kind:
    """One kind of store on one server, emptied; `step` makes version 2, which `migrated` recognises."""

    layout: Layout[Any]
    make: Callable[..., Any]
    """Makes a store, with the layout that it shall know and the server's address if not the real one."""
    write: Callable[[Any], None]
    read: Callable[[Any], Any]
    step: Callable[[Any], None]
    migrated: Callable[[], bool]
    forget: Callable[[], None]
    """Removes the version and leaves the data."""
    elsewhere: str
    """The address of a server that is not there."""
    opened: list[Any] = field(default_factory=list)

    def open(self, *arguments: Any, **options: Any) -> Any:
        """Return a store that is closed when the test is over."""
        self.opened.append(self.make(*arguments, **options))
        return self.opened[-1]

    def knowing(self, version: int) -> Any:
        """Return a store that knows layouts up to this version."""
        return self.open(replace(self.layout, version=version, steps={1: self.step} if version > 1 else {}))


@contextmanager
def mongo(url: str) -> Iterator[Kind]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with pymongo.MongoClient(url) as client:
        base = client[name]

        def step(database: Any) -> None:
            for document in database["campaigns"].find():
                database["campaigns"].replace_one(
                    {"_id": document["_id"]}, {**document, "name": "migrated"}, upsert=True
                )

        yield Kind(
            layout=documents.LAYOUT,
            make=lambda kept, at=url, seconds=30: MongoDocuments(at, database=name, kept=kept, timeout_seconds=seconds),
            write=lambda store: store.put_campaigns([Campaign(campaign_id="a", name="A")]),
            read=lambda store: store.campaigns(),
            step=step,
            migrated=lambda: [d["name"] for d in base["campaigns"].find()] == ["migrated"],
            forget=lambda: base["meta"].drop(),
            elsewhere="mongodb://127.0.0.1:{}",
        )
        client.drop_database(name)


@contextmanager
def milvus(url: str, token: str | None) -> Iterator[Kind]:
    client = MilvusClient(url, token=token or "", dedicated=True)

    def drop(beginning: str) -> None:
        for name in client.list_collections():
            if name.startswith(beginning):
                client.drop_collection(name)

    def step(milvus: vectors.Milvus) -> None:
        name = f"recs_texts_{BUILD}"
        rows = milvus.client.query(name, filter='pk >= ""', output_fields=["*"])
        milvus.client.upsert(name, [{**row, "owner": "migrated"} for row in rows])

    def migrated() -> bool:
        rows = client.query(f"recs_texts_{BUILD}", filter='pk >= ""', output_fields=["owner"])
        return [row["owner"] for row in rows] == ["migrated"]

    def write(store: MilvusVectors) -> None:
        store.create(BUILD, 2).upsert("texts", [VectorRecord("a", np.ones(2, dtype=np.float32))])

    drop("recs_")
    yield Kind(
        layout=vectors.LAYOUT,
        make=lambda kept, at=url, seconds=60: MilvusVectors(at, token=token, kept=kept, timeout_seconds=seconds),
        write=write,
        read=lambda store: store.open(BUILD).get("texts", ["a"]),
        step=step,
        migrated=migrated,
        forget=lambda: drop("recs_layout_"),
        elsewhere="http://127.0.0.1:{}",
    )
    drop("recs_")
    client.close()


@contextmanager
def neo4j(url: str, user: str, password: str, database: str | None) -> Iterator[Kind]:
    with GraphDatabase.driver(url, auth=(user, password)) as driver:

        def run(cypher: str) -> list[Any]:
            return driver.execute_query(cypher, database_=database).records

        run("MATCH (n) DETACH DELETE n")
        yield Kind(
            layout=graph.LAYOUT,
            make=lambda kept, at=url, seconds=30: Neo4jGraph(
                at, user=user, password=password, database=database, kept=kept, timeout_seconds=seconds
            ),
            write=lambda store: store.put_campaigns([Campaign(campaign_id="a", name="A")]),
            read=lambda store: store.campaigns(),
            step=lambda bolt: bolt.run("MATCH (c:Campaign) SET c.name = 'migrated'"),
            migrated=lambda: [r[0] for r in run("MATCH (c:Campaign) RETURN c.name")] == ["migrated"],
            forget=lambda: run("MATCH (l:Layout) DELETE l"),
            elsewhere="bolt://127.0.0.1:{}",
        )
        run("MATCH (n) DETACH DELETE n")


@pytest.fixture(
    params=[f"{where} {what}" for where in ("embedded", "real") for what in ("documents", "vectors", "graph")]
)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    where, what = request.param.split()
    with _opened(request, what) if where == "embedded" else _real(what) as found:
        yield found
        for store in found.opened:
            store.close()


def _opened(request: pytest.FixtureRequest, what: str) -> Any:
    servers: Settings = request.getfixturevalue("servers")
    if what == "documents":
        return mongo(str(servers.mongo_url))
    if what == "vectors":
        token = servers.milvus_token
        return milvus(str(servers.milvus_url), token and token.get_secret_value())
    assert servers.neo4j_password
    password = servers.neo4j_password.get_secret_value()
    return neo4j(str(servers.neo4j_url), str(servers.neo4j_user), password, servers.neo4j_database)


def _real(what: str) -> Any:
    name = {"documents": "MONGO", "vectors": "MILVUS", "graph": "NEO4J"}[what]
    url = os.environ.get(f"RECS_TEST_{name}_URL") or pytest.skip(f"RECS_TEST_{name}_URL: no such server")
    if what == "documents":
        return mongo(url)
    if what == "vectors":
        return milvus(url, os.environ.get("RECS_TEST_MILVUS_TOKEN"))
    return neo4j(url, "neo4j", os.environ.get("RECS_TEST_NEO4J_PASSWORD", ""), "neo4j")


def test_an_empty_store_gets_the_known_version_with_its_first_data(kind: Kind) -> None:
    with_two = kind.knowing(2)
    kind.write(with_two)
    with pytest.raises(SchemaVersionError, match=r"version 2, .* knows versions up to 1: install .* or point RECS_"):
        kind.read(kind.knowing(1))
    again = kind.knowing(2)
    again.bring_up_to_date()
    assert kind.read(again)
    assert not kind.migrated()


def test_an_empty_store_may_be_read_and_be_brought_up_to_date(kind: Kind) -> None:
    for _ in range(2):
        store = kind.knowing(2)
        store.check()
        store.bring_up_to_date()
        store.check()
    with pytest.raises(SchemaVersionError, match=r"version 2"):
        kind.knowing(1).check()


def test_data_without_a_version_is_version_1(kind: Kind) -> None:
    store = kind.knowing(1)
    kind.write(store)
    kind.forget()
    assert kind.read(store)
    store = kind.knowing(1)
    assert kind.read(store)
    store.bring_up_to_date()
    later = kind.knowing(2)
    for call in (kind.read, kind.write, lambda store: store.check()):
        with pytest.raises(SchemaVersionError, match=r"version 1, .* reads version 2: `recs run`"):
            call(later)
    later.bring_up_to_date()
    assert kind.migrated()
    assert kind.read(later)


def test_a_migration_that_was_cut_off_is_done_again(kind: Kind) -> None:
    kind.write(kind.knowing(1))

    def half(handle: Any) -> None:
        kind.step(handle)
        raise KeyboardInterrupt

    store = kind.open(replace(kind.layout, version=2, steps={1: half}))
    with pytest.raises(KeyboardInterrupt):
        store.bring_up_to_date()
    with pytest.raises(SchemaVersionError, match="version 1"):
        kind.read(store)
    store = kind.knowing(2)
    store.bring_up_to_date()
    assert kind.migrated()
    assert kind.read(store)


def test_steps_follow_one_another(kind: Kind) -> None:
    kind.write(kind.knowing(1))
    done: list[int] = []
    store = kind.open(replace(kind.layout, version=3, steps={1: lambda _: done.append(1), 2: lambda _: done.append(2)}))
    store.bring_up_to_date()
    store.bring_up_to_date()
    assert done == [1, 2]
    assert kind.read(store)


def test_newer_data_is_left_alone(kind: Kind) -> None:
    kind.write(kind.knowing(2))
    store = kind.knowing(1)
    with pytest.raises(SchemaVersionError, match="install the newer version"):
        store.bring_up_to_date()
    with pytest.raises(SchemaVersionError, match="install the newer version"):
        kind.write(store)


def test_a_store_that_is_down_is_found_down_when_it_is_used(kind: Kind, closed_port: int) -> None:
    store = kind.open(kind.layout, at=kind.elsewhere.format(closed_port), seconds=0.5)
    for call in (kind.read, kind.write, lambda store: store.bring_up_to_date()):
        with pytest.raises(StoreUnavailableError):
            call(store)


def test_what_is_shown_does_not_count_the_version(kind: Kind) -> None:
    store = kind.knowing(1)
    kind.write(store)
    counted = {"builds": 1} if kind.layout.store == "vectors" else {"campaigns": 1}
    assert {name: n for name, n in store.check().counts.items() if n} == counted
    if kind.layout.store == "vectors":
        assert store.builds() == [BUILD]
    if kind.layout.store == "graph":
        assert sum(store.counts().values()) == 1


def test_the_version_is_asked_for_once_in_a_while() -> None:
    asked: list[str] = []

    def found(handle: str) -> int:
        asked.append(handle)
        return 1

    guard = VersionGuard(Layout("graph", "RECS_NEO4J_URL", found, lambda handle, version: None, version=1), "nowhere")
    for _ in range(1000):
        guard.let_pass("handle")
    assert asked == ["handle"]


@pytest.mark.parametrize("kind", ["embedded graph", "real graph"], indirect=True)
def test_users_of_an_older_graph_get_the_number_of_what_they_took(kind: Kind) -> None:
    store = kind.open(kind.layout)
    store.put_campaigns([Campaign(campaign_id=c, name=c) for c in "ab"])
    took = [
        EngagementEdge("u", "a", "like", 1),
        EngagementEdge("u", "a", "convert", 1),
        EngagementEdge("u", "b", "like", 1),
    ]
    store.put_users([UserEdges("u", tuple(took)), UserEdges("v", (EngagementEdge("v", "b", "view", 1),))])
    bolt = store._bolt
    bolt.run("MATCH (u:User) REMOVE u.taken")
    graph.LAYOUT.keep(bolt, 1)
    kind.open(kind.layout).bring_up_to_date()
    assert sorted(bolt.run("MATCH (u:User) RETURN u.id, u.taken")) == [["u", 2], ["v", 0]]
    assert graph.LAYOUT.found(bolt) == 2
