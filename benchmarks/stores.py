"""Load and query times of each store, the embedded servers beside real ones, as the number of users grows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from pydantic import SecretStr

from benchmarks.errors import BenchmarkError
from benchmarks.home import temporary_home
from benchmarks.samples import Samples, in_turn, load_average, result, told
from benchmarks.synthetic import CAMPAIGNS, DIM, NEWEST, Synthetic, SyntheticUsers, described
from recs import embedded
from recs.bootstrap import Stores, connect
from recs.embedded._home import size_of
from recs.settings import Settings
from recs.stores.ports import VectorIndex, VectorRecord

SETS = ("embedded", "real")
_BUILD = "bench"
_DATABASE = "recs_bench"
_POOL = 200
"""Similar users that a request asks for, and whose engagements it reads."""
_REPEATS = 20
_ANSWER = b"x" * 6_500
_MIB = 2**20
_CAMPAIGN_IDS = [f"k{i:03}" for i in range(CAMPAIGNS)]
_SINCE = NEWEST - timedelta(days=7)

#: Variables that lead to real servers; `make test-real` documents them.
_REAL = {
    "mongo_url": "RECS_TEST_MONGO_URL",
    "milvus_url": "RECS_TEST_MILVUS_URL",
    "milvus_token": "RECS_TEST_MILVUS_TOKEN",
    "neo4j_url": "RECS_TEST_NEO4J_URL",
    "neo4j_password": "RECS_TEST_NEO4J_PASSWORD",
    "sql_url": "RECS_TEST_POSTGRES_URL",
    "state_url": "RECS_TEST_POSTGRES_URL",
    "redis_url": "RECS_TEST_REDIS_URL",
}
_SERVICES = {"documents": "mongo", "vectors": "milvus", "graph": "neo4j", "metrics": "postgres", "cache": "redis"}


@dataclass(slots=True)
class _Set:
    """One set of servers, and what was measured on it."""

    name: str
    stores: Stores
    index: VectorIndex
    load_seconds: dict[str, float] = field(default_factory=dict)
    """By store, since the last size."""

    @contextmanager
    def loading(self, store: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.load_seconds[store] = self.load_seconds.get(store, 0.0) + time.perf_counter() - began


def bench_stores(sizes: Sequence[int], *, rounds: int, real: bool) -> dict[str, Any]:
    """Return load and query figures at each number of users; `real` puts the servers of RECS_TEST_*_URL beside.

    The sizes are reached one after the other in the same stores, which are empty at the beginning.
    """
    load = load_average()
    samples = Samples()
    figures: dict[str, float] = {}
    with temporary_home() as home, embedded.session(home) as resolved:
        settings = {"embedded": resolved} | ({"real": _real_settings(resolved)} if real else {})
        sets = [_open(name, some) for name, some in settings.items()]
        try:
            data, known = Synthetic(), list[str]()
            for one in sets:
                one.stores.documents.put_campaigns(data.campaigns)
                one.stores.graph.put_campaigns(data.campaigns)
            for size in sorted(sizes):
                before = len(known)
                for some in data.users(size):
                    known += some.user_ids
                    for one in sets:
                        _load(one, some)
                for one in sets:
                    _finish(one)
                    figures |= _loaded(one, size, size - before)
                    figures |= _footprint(one, size, home)
                told(f"{size:,} users are loaded")
                _measure(sets, size, known, samples, rounds)
            products = {
                f"{one.name} servers": ", ".join(f"{r} {s.check().product}" for r, s in one.stores.all().items())
                for one in sets
            }
        finally:
            for one in sets:
                one.stores.close()
        return result(
            "stores",
            figures,
            samples,
            data=[described(max(sizes))],
            conditions={"load_average_before": load, "queries": f"{_REPEATS} of a kind a round", **products},
        )


def _real_settings(like: Settings) -> Settings:
    missing = sorted({name for name in _REAL.values() if name.endswith("_URL") and not os.environ.get(name)})
    if missing:
        raise BenchmarkError(f"--real needs {', '.join(missing)}; `make bench-real` starts servers and sets them")
    update: dict[str, Any] = {name: os.environ.get(variable) for name, variable in _REAL.items()}
    for name in ("milvus_token", "neo4j_password"):
        update[name] = SecretStr(update[name]) if update[name] else None
    return like.model_copy(
        update=update | {"neo4j_user": "neo4j", "neo4j_database": "neo4j", "mongo_database": _DATABASE}
    )


def _open(name: str, settings: Settings) -> _Set:
    stores = connect(settings, timeout_seconds=300)
    held = {
        "documents": stores.documents.count(),
        "vectors": len(stores.vectors.builds()),
        "graph": stores.graph.counts()["users"],
        "metrics": stores.metrics.counts()["facts"],
    }
    if any(held.values()):
        stores.close()
        raise BenchmarkError(f"the {name} servers are not empty ({held}); this benchmark fills them, so it refuses")
    return _Set(name, stores, stores.vectors.create(_BUILD, DIM))


def _load(one: _Set, some: SyntheticUsers) -> None:
    ids = [f"c{u}" for u in some.user_ids]
    conversations, facts = some.conversations(), some.facts()
    records = [VectorRecord(u, v) for u, v in zip(some.user_ids, some.vectors, strict=True)]
    with one.loading("documents"):
        one.stores.documents.insert(conversations)
    with one.loading("vectors"):
        one.index.upsert("users", records)
    with one.loading("graph"):
        one.stores.graph.put_users(some.edges)
    with one.loading("metrics"):
        one.stores.metrics.replace_facts(ids, facts)
    with one.loading("state"):
        one.stores.state.add_pending(dict(zip(ids, some.user_ids, strict=True)))
    with one.loading("cache"):
        for user_id in some.user_ids[:50]:
            one.stores.cache.set(f"bench:{user_id}", _ANSWER, 3600)


def _finish(one: _Set) -> None:
    with one.loading("vectors"):
        one.index.flush()
    with one.loading("state"):
        one.stores.state.clear_pending(list(one.stores.state.pending()))
    began = time.perf_counter()
    one.stores.metrics.aggregate(1, newest_at=one.stores.metrics.newest_at(), half_life_days=180.0)
    one.load_seconds["metrics.aggregate"] = time.perf_counter() - began


def _loaded(one: _Set, size: int, users: int) -> dict[str, float]:
    """Return users per second of each store's loading since the last size, and the seconds of the aggregation."""
    seconds, one.load_seconds = one.load_seconds, {}
    aggregate = seconds.pop("metrics.aggregate")
    rates = {f"users_per_second.{size}.{store}.{one.name}": round(users / s, 1) for store, s in seconds.items()}
    return rates | {f"aggregate_seconds.{size}.metrics.{one.name}": round(aggregate, 3)}


def _footprint(one: _Set, size: int, home: Settings) -> dict[str, float]:
    """Return MiB of memory and of disk per store, as far as the servers' processes and folders are known."""
    found: dict[str, float] = {}
    if one.name == "embedded":
        for server in embedded.status(home):
            for store, service in _SERVICES.items():
                if server.service == service and server.memory_bytes:
                    found[f"memory_mb.{size}.{store}.embedded"] = server.memory_bytes / _MIB
                    found[f"disk_mb.{size}.{store}.embedded"] = (server.data_bytes or 0) / _MIB
        files = home.home.glob("data/analytics.db*")
        found[f"disk_mb.{size}.metrics.embedded"] = sum(file.stat().st_size for file in files) / _MIB
        return {name: round(value, 1) for name, value in found.items()}
    for store, service in _SERVICES.items():
        pid, folder = (os.environ.get(f"RECS_TEST_{service.upper()}_{what}") for what in ("PID", "FOLDER"))
        if pid and folder:
            server_process = psutil.Process(int(pid))
            family = [server_process, *server_process.children(recursive=True)]
            # The processes of PostgreSQL share most of their memory: what each has alone is what adds up.
            held = sum(p.memory_full_info().uss if store == "metrics" else p.memory_info().rss for p in family)
            found[f"memory_mb.{size}.{store}.real"] = held / _MIB
            found[f"disk_mb.{size}.{store}.real"] = size_of(Path(folder)) / _MIB
    return {name: round(value, 1) for name, value in found.items()}


def _measure(sets: Sequence[_Set], size: int, known: Sequence[str], samples: Samples, rounds: int) -> None:
    rng = np.random.default_rng(size)
    for number in range(-1, rounds):  # the first warms up
        asked = [known[int(i)] for i in rng.integers(len(known), size=_REPEATS)]
        milliseconds: dict[str, dict[str, float]] = {}
        nearest: dict[str, list[frozenset[str]]] = {}
        for one in in_turn(sets, max(number, 0)):
            milliseconds[one.name], nearest[one.name] = _queries(one, asked)
        if number < 0:
            continue
        for one in sets:
            samples.add({f"query_ms.{size}.{what}.{one.name}": ms for what, ms in milliseconds[one.name].items()})
        if len(sets) == len(SETS):
            ours, real = milliseconds["embedded"], milliseconds["real"]
            samples.add({f"real_over_embedded.{size}.{what}": real[what] / ours[what] for what in ours})
            shares = [len(a & b) / len(a) for a, b in zip(nearest["embedded"], nearest["real"], strict=True)]
            samples.add({f"recall.{size}.vectors.real": float(np.mean(shares))})
    told(f"{size:,} users are asked for")


def _queries(one: _Set, asked: Sequence[str]) -> tuple[dict[str, float], list[frozenset[str]]]:
    """Return the median milliseconds of each kind of query, and each user's nearest."""
    stores, index = one.stores, one.stores.vectors.open(_BUILD, lagging=True)  # as requests read
    pools: dict[str, list[str]] = {}
    times: dict[str, list[float]] = {}

    def search(user_id: str) -> None:
        pools[user_id] = [hit.key for hit in index.search("users", vectors[user_id], _POOL, with_vectors=True)]

    vectors = index.get("users", asked)
    kinds: Mapping[str, Callable[[str], object]] = {
        "documents.get_50": lambda u: stores.documents.get([f"c{p}" for p in pools[u][:50]]),
        "documents.of_user": lambda u: stores.documents.of_users([u]),
        "vectors.get": lambda u: index.get("users", [u]),
        "graph.engagements_of_200": lambda u: stores.graph.engagements_of(pools[u]),
        "graph.user": stores.graph.user,
        "metrics.campaign_metrics_100": lambda u: stores.metrics.campaign_metrics(1, _CAMPAIGN_IDS),
        "metrics.views_since": lambda u: stores.metrics.views_since(u, _SINCE),
        "state.head": lambda u: stores.state.head(),
        "state.preferences_200": lambda u: stores.state.preferences(pools[u]),
        "cache.get": lambda u: stores.cache.get(f"bench:{u}"),
    }
    for user_id in asked:
        for kind, query in {"vectors.search_200": search, **kinds}.items():
            began = time.perf_counter()
            query(user_id)
            times.setdefault(kind, []).append((time.perf_counter() - began) * 1000)
    return {kind: median(spent) for kind, spent in sorted(times.items())}, [frozenset(pools[u]) for u in asked]
