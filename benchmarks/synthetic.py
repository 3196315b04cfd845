"""Published data of any size, written straight into the stores: users in clusters who talk and buy alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recs.batch.aggregates import load_aggregates, load_co_engagement, make_generation
from recs.batch.publish import publish
from recs.bootstrap import Stores
from recs.embed.vectors import unit
from recs.model import ACTIONS, Campaign, EngagementEdge, EngagementFact, UserEdges
from recs.settings import Settings
from recs.stores.ports import VectorRecord

DIM = 384
CAMPAIGNS = 100
_CLUSTERS = 20
_BATCH = 500
_SEED = 20260301
_NEWEST = datetime(2026, 3, 1, tzinfo=UTC)
#: Share of each of ACTIONS.
_ACTION_SHARES = (0.45, 0.2, 0.15, 0.1, 0.05, 0.05)
_MEAN_ENGAGEMENTS = 5.0
#: Share of engagements with campaigns of the user's own cluster.
_OWN_CLUSTER = 0.7
#: Length of what all sentences share, and of what sets a user apart from the cluster, beside the cluster's own 1.
_SHARED, _OWN = 0.7, 1.0


def publish_synthetic(stores: Stores, settings: Settings, users: int) -> dict[str, Any]:
    """Write users and campaigns into empty stores, publish them, and return what a result says of the data.

    Nothing of it was ever said: there are vectors, edges, facts and intents, but no conversations.
    """
    rng = np.random.default_rng(_SEED)
    shared = unit(rng.normal(size=DIM)) * _SHARED
    centres = unit(rng.normal(size=(_CLUSTERS, DIM))) + shared
    index = stores.vectors.create("b1", DIM)
    catalogue = [
        Campaign(campaign_id=f"k{i:03}", name=f"Campaign {i}", intents=(_intent(i % _CLUSTERS),))
        for i in range(CAMPAIGNS)
    ]
    stores.documents.put_campaigns(catalogue)
    stores.graph.put_campaigns(catalogue)
    near = _scattered(rng, centres[np.arange(CAMPAIGNS) % _CLUSTERS])
    index.upsert("campaigns", [VectorRecord(c.campaign_id, v) for c, v in zip(catalogue, near, strict=True)])
    for first in range(0, users, _BATCH):
        clusters = rng.integers(_CLUSTERS, size=min(_BATCH, users - first))
        ids = [f"u{first + i:07}" for i in range(len(clusters))]
        vectors = _scattered(rng, centres[clusters])
        index.upsert("users", [VectorRecord(u, v) for u, v in zip(ids, vectors, strict=True)])
        edges = [_edges(rng, user, int(cluster)) for user, cluster in zip(ids, clusters, strict=True)]
        stores.graph.put_users(edges)
        stores.metrics.replace_facts([f"c{u}" for u in ids], [fact for e in edges for fact in _facts(e)])
    index.flush()
    load_aggregates(stores, settings, 1)
    load_co_engagement(stores, settings, 1)
    generation = make_generation(
        stores, index, settings, number=1, run_id="synthetic", model="synthetic/float32", dim=DIM
    )
    publish(stores, generation)
    recipe = f"{users} users, {CAMPAIGNS} campaigns, {_CLUSTERS} clusters, seed {_SEED}"
    return {"path": f"synthetic: {recipe}", "sha256": hashlib.sha256(recipe.encode()).hexdigest(), "rows": users}


def _scattered(rng: np.random.Generator, centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one vector of length 1 near each of these, (n, dim)."""
    return unit(centres + unit(rng.normal(size=centres.shape)) * _OWN)


def _edges(rng: np.random.Generator, user_id: str, cluster: int) -> UserEdges:
    found: dict[tuple[str, int], EngagementEdge] = {}
    for _ in range(1 + int(rng.poisson(_MEAN_ENGAGEMENTS - 1))):
        campaign = int(rng.integers(CAMPAIGNS))
        if rng.random() < _OWN_CLUSTER:
            campaign = campaign // _CLUSTERS * _CLUSTERS + cluster
        action = int(rng.choice(len(ACTIONS), p=_ACTION_SHARES))
        at = _NEWEST - timedelta(days=float(rng.exponential(60)))
        found[f"k{campaign:03}", action] = EngagementEdge(user_id, f"k{campaign:03}", ACTIONS[action], 1, at)
    intents = {_intent(cluster): 2, _intent(int(rng.integers(_CLUSTERS))): 1}
    ordered = sorted(found.values(), key=lambda e: (e.campaign_id, e.action))
    return UserEdges(user_id, tuple(ordered), dict(sorted(intents.items())))


def _facts(edges: UserEdges) -> Iterator[EngagementFact]:
    for e in edges.engagements:
        yield EngagementFact(f"c{e.user_id}", e.user_id, e.campaign_id, e.action, e.count, e.last_at)


def _intent(cluster: int) -> str:
    return f"intent_{cluster:02}"
