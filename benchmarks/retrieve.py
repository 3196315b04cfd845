"""The uncached request against the store calls that it cannot avoid."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.data import Input
from benchmarks.errors import BenchmarkError
from benchmarks.home import load_through_flow, temporary_home
from benchmarks.recording import Call, noting
from benchmarks.samples import Samples, load_average, percentile, result, told
from benchmarks.synthetic import publish_synthetic
from recs import embedded
from recs.bootstrap import Stores, connect
from recs.retrieval import Recommender
from recs.settings import Settings

#: Calls of which each needs what the one before it returned: by what the user says, and by what the user took. The
#: slower one counts. The answer is on record before it is given.
CRITICAL_PATHS = (
    ("state.head", "vectors.get", "vectors.search", "graph.engagements_of", "state.record_shown"),
    ("state.head", "graph.user", "graph.sharing", "graph.engagements_of", "state.record_shown"),
)
#: Of a user who took nothing nobody is asked who took the same.
_ONCE = frozenset(name for path in CRITICAL_PATHS for name in path) - {"graph.sharing"}
_K = 10
#: The graph server compiles what it runs often.
_WARM_UP_REQUESTS = 100


@dataclass(slots=True)
class Round:
    """Milliseconds of one round."""

    requests: list[float] = field(default_factory=list)
    calls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of each call made alone, by its name; of several with one name in one request the slowest."""

    def figures(self) -> dict[str, float]:
        total = median(self.requests)
        p99 = percentile(self.requests, 0.99)
        calls = {name: median(milliseconds) for name, milliseconds in sorted(self.calls.items())}
        path = max(sum(calls.get(name, 0.0) for name in path) for path in CRITICAL_PATHS)
        return {
            "median_ms": total,
            "p99_over_median": p99 / total,
            "over_critical_path": total / path,
            "over_slowest_call": total / max(calls.values()),
            "p99_ms": p99,
            "critical_path_ms": path,
            **{f"call_ms.{name}": milliseconds for name, milliseconds in calls.items()},
        }


def bench_retrieve(data: Input | None, *, users: int, requests: int, rounds: int) -> dict[str, Any]:
    """Return the figures of answering for known users without the cache, on a file's data or on synthetic users."""
    load = load_average()
    with temporary_home() as settings:
        if data is None:
            with embedded.session(settings) as resolved:
                stores = connect(resolved, timeout_seconds=resolved.load_timeout_seconds)
                try:
                    described = [publish_synthetic(stores, resolved, users)]
                finally:
                    stores.close()
                return _measure(resolved, described, load, requests, rounds)
        load_through_flow(settings, data.written(settings.home, settings), data.campaigns)
        with embedded.session(settings) as resolved:
            return _measure(resolved, data.described(settings), load, requests, rounds)


def _measure(
    settings: Settings, described: Sequence[dict[str, Any]], load: float, requests: int, rounds: int
) -> dict[str, Any]:
    stores = connect(settings)
    noted, calls = noting(stores)
    recommender = Recommender(noted, settings)
    try:
        known = _users(stores)
        asked = iter(known * (1 + (_WARM_UP_REQUESTS + requests * rounds) // len(known)))
        recommender.recommend(known[0], explain=False, use_cache=False)  # the first one also loads the catalogue
        for _ in range(_WARM_UP_REQUESTS):
            _request(recommender, calls, next(asked), Round())
        samples = Samples()
        for number in range(rounds):
            round_ = Round()
            for _ in range(requests):
                _request(recommender, calls, next(asked), round_)
            figures = round_.figures()
            samples.add(figures)
            told(
                f"round {number + 1} of {rounds}: {figures['median_ms']:.2f} ms, "
                f"critical path {figures['critical_path_ms']:.2f} ms"
            )
        return result(
            "retrieve",
            {"users": len(known), "campaigns": len(stores.graph.campaigns())},
            samples,
            data=described,
            conditions={
                "load_average_before": load,
                "critical_path": "the slower of " + " and ".join(", ".join(path) for path in CRITICAL_PATHS),
                "servers": ", ".join(f"{role} {store.check().product}" for role, store in stores.all().items()),
                "requests": f"{requests} a round, one at a time, distinct users in turn",
            },
        )
    finally:
        recommender.close()
        stores.close()


def _users(stores: Stores) -> list[str]:
    """Return the users whose requests go the whole way: with a vector, and without an objection to profiling."""
    generation = stores.state.generation()
    if generation is None:
        raise BenchmarkError("the flow has published nothing: there is nobody to answer for")
    found: list[str] = []
    every = list(stores.graph.user_ids())
    index = stores.vectors.open(generation.build)
    for start in range(0, len(every), 500):
        ids = every[start : start + 500]
        with_vector = index.get("users", ids)
        consent = stores.state.preferences(ids)
        found += [u for u in ids if u in with_vector and (u not in consent or consent[u].profiling)]
    if not found:
        raise BenchmarkError("no user has a vector: there is nobody to answer for")
    return found


def _request(recommender: Recommender, calls: list[Call], user_id: str, round_: Round) -> None:
    """Time one request, then each of its store calls alone; raises BenchmarkError where it was not a full one."""
    calls.clear()
    began = time.perf_counter()
    answer = recommender.recommend(user_id, k=_K, explain=False, use_cache=False)
    milliseconds = (time.perf_counter() - began) * 1000
    if answer.degraded or answer.strategy != "hybrid":
        raise BenchmarkError(
            f"an answer was {answer.strategy!r} and went without {answer.degraded}: only full ones are measured"
        )
    made = list(calls)
    times = dict.fromkeys(_ONCE, 0) | {call.name: 0 for call in made}
    for call in made:
        times[call.name] += 1
    if any(times[name] != 1 for name in _ONCE):
        raise BenchmarkError(
            f"a request makes the calls {times}, but each of {sorted(_ONCE)} is expected once: "
            "CRITICAL_PATHS no longer describes what the recommender does"
        )
    round_.requests.append(milliseconds)
    alone: dict[str, float] = {}
    for call in made:
        alone[call.name] = max(alone.get(call.name, 0.0), call.alone())
    for name, spent in alone.items():
        round_.calls[name].append(spent)
