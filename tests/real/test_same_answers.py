"""The same data on the embedded and on the real servers: the same content, the same answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import ROOT, fresh_settings, run_python

from recs import embedded
from recs.batch.check import check_stores
from recs.batch.fingerprint import fingerprint
from recs.bootstrap import Stores, connect
from recs.embed import Encoder
from recs.errors import NotFoundError
from recs.retrieval import Recommender
from recs.settings import Settings
from recs.stores.ports import VectorRecord

pytestmark = [
    pytest.mark.skipif("RECS_TEST_REAL" not in os.environ, reason="RECS_TEST_REAL: `make test-real` sets it"),
    pytest.mark.timeout(1500),  # whole runs of the flow, and hundreds of requests
]

NOW = datetime(2026, 7, 1, tzinfo=UTC)
EVERY = {"sample": 2, "redial": 4}
"""One of so many users is asked for."""
TEXTS = ["We are expecting a baby in May.", "A quiet film about loneliness, or something by Kubrick?"]


@pytest.fixture(scope="module")
def embedded_servers(prefect_servers: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("beside")
    unset = {f"{name}_url": None for name in ("mongo", "milvus", "neo4j", "sql", "state", "redis")}
    with embedded.session(Settings(home=home, prefect_url=prefect_servers.prefect_url, **unset)) as settings:
        yield settings


@pytest.fixture(scope="module", params=["sample", "redial"])
def both(
    request: pytest.FixtureRequest,
    prefect_servers: Settings,
    embedded_servers: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[int, dict[str, tuple[Settings, Stores]]]]:
    """The data set loaded into both sets of servers by the flow."""
    name = request.param
    files = _files(name)
    sets: dict[str, tuple[Settings, Stores]] = {}
    for which, servers in (("embedded", embedded_servers), ("real", prefect_servers)):
        settings = fresh_settings(servers, tmp_path_factory.mktemp(f"{which}-{name}"), f"{name}_same")
        stores = connect(settings, timeout_seconds=60)
        if sets:
            _copy_text_vectors(sets["embedded"][1], stores)
        done = run_python(settings, "pipeline", *files, timeout=1200)
        assert done.returncode == 0, done.stderr
        sets[which] = settings, stores
    yield EVERY[name], sets
    for _, stores in sets.values():
        stores.close()


def _files(name: str) -> list[str]:
    if name == "sample":
        told = [ROOT / "data/sample_conversations.json", ROOT / "data/sample_campaigns.json"]
        return [str(told[0]), "--campaigns", str(told[1]), "--preferences", str(ROOT / "data/sample_preferences.jsonl")]
    folder = Path(os.environ.get("RECS_TEST_DATA", ROOT.parent / "shared/data")) / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return [str(folder / "conversations.jsonl.gz"), "--campaigns", str(folder / "campaigns.jsonl.gz")]


def _copy_text_vectors(source: Stores, target: Stores) -> None:
    """Spare the second run the same encoding: it finds the texts embedded already."""
    index = source.vectors.open("b1")
    keys = list(index.keys("texts"))
    dim = len(next(iter(index.get("texts", keys[:1]).values())))
    copy = target.vectors.create("b1", dim)
    for start in range(0, len(keys), 1000):
        found = index.get("texts", keys[start : start + 1000])
        copy.upsert("texts", [VectorRecord(key, vector, "") for key, vector in found.items()])
    copy.flush()


def test_all_stores_hold_the_same(both):
    _, sets = both
    found = {which: fingerprint(stores) for which, (_, stores) in sets.items()}
    assert found["embedded"] == found["real"]
    for settings, stores in sets.values():
        assert check_stores(stores, max_text_chars=settings.max_text_chars).findings == []


def test_recommendations_are_the_same(both):
    every, sets = both
    users = list(sets["embedded"][1].graph.user_ids())[::every]
    assert len(users) >= 100
    encoder = Encoder.load(sets["embedded"][0])
    asked = {
        which: Recommender(stores, settings, encoder=lambda: encoder, clock=lambda: NOW)
        for which, (settings, stores) in sets.items()
    }
    try:
        for user in users:
            _compare(*(recommender.recommend(user, use_cache=False) for recommender in asked.values()))
            near, real_near = (_neighbours(recommender, user) for recommender in asked.values())
            assert [n.user_id for n in near] == [n.user_id for n in real_near]
            assert [n.similarity for n in near] == pytest.approx([n.similarity for n in real_near], abs=1e-5)
        for text in TEXTS:
            _compare(*(recommender.recommend_text([text]) for recommender in asked.values()))
    finally:
        for recommender in asked.values():
            recommender.close()


def _neighbours(recommender, user):
    """Return the neighbourhood, empty for those who have none: they opted out, or never said a word."""
    try:
        return recommender.neighbours(user, k=10)
    except NotFoundError:
        return []


def _compare(ours, real):
    assert (ours.strategy, ours.degraded) == (real.strategy, real.degraded)
    assert [item.campaign_id for item in ours.items] == [item.campaign_id for item in real.items]
    assert [item.score for item in ours.items] == pytest.approx([item.score for item in real.items], abs=1e-4)
    assert [s.model_dump() for s in ours.suppressed] == [s.model_dump() for s in real.suppressed]
    for item, same in zip(ours.items, real.items, strict=True):
        assert [e.model_dump(exclude={"similarity"}) for e in item.evidence] == [
            e.model_dump(exclude={"similarity"}) for e in same.evidence
        ]
