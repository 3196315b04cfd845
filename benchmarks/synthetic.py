"""Published data of any size, written straight into the stores: users in clusters who talk and buy alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recs.batch.aggregates import load_aggregates, load_co_engagement, make_generation
from recs.batch.publish import publish
from recs.bootstrap import Stores
from recs.embed.vectors import unit
from recs.model import (
    ACTIONS,
    Campaign,
    Conversation,
    EngagementEdge,
    EngagementFact,
    Message,
    StoredConversation,
    UserEdges,
)
from recs.settings import Settings
from recs.stores.ports import VectorRecord

DIM = 384
CAMPAIGNS = 100
_CLUSTERS = 20
_BATCH = 500
_SEED = 20260301
NEWEST = datetime(2026, 3, 1, tzinfo=UTC)
#: Share of each of ACTIONS.
_ACTION_SHARES = (0.45, 0.2, 0.15, 0.1, 0.05, 0.05)
_MEAN_ENGAGEMENTS = 5.0
#: Share of engagements with campaigns of the user's own cluster.
_OWN_CLUSTER = 0.7
#: Length of what all sentences share, and of what sets a user apart from the cluster, beside the cluster's own 1.
_SHARED, _OWN = 0.7, 1.0


@dataclass(frozen=True, slots=True)
class SyntheticUsers:
    """Some users, in step: what they are near to, what they did, and one conversation of each."""

    user_ids: list[str]
    vectors: NDArray[np.float32]
    edges: list[UserEdges]

    def facts(self) -> list[EngagementFact]:
        return [fact for edges in self.edges for fact in _facts(edges)]

    def conversations(self) -> list[StoredConversation]:
        """Return a conversation of four messages, some 400 characters, per user."""
        return [_conversation(user_id) for user_id in self.user_ids]


class Synthetic:
    """Users in any number, the same from run to run, in batches of 500."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(_SEED)
        shared = unit(self._rng.normal(size=DIM)) * _SHARED
        self._centres = unit(self._rng.normal(size=(_CLUSTERS, DIM))) + shared
        self.campaigns = [
            Campaign(campaign_id=f"k{i:03}", name=f"Campaign {i}", intents=(_intent(i % _CLUSTERS),))
            for i in range(CAMPAIGNS)
        ]
        near = _scattered(self._rng, self._centres[np.arange(CAMPAIGNS) % _CLUSTERS])
        self.campaign_vectors = [VectorRecord(c.campaign_id, v) for c, v in zip(self.campaigns, near, strict=True)]
        self._made = 0

    def users(self, total: int) -> Iterator[SyntheticUsers]:
        """Yield further users until there are so many in all."""
        while self._made < total:
            rng = self._rng
            clusters = rng.integers(_CLUSTERS, size=min(_BATCH, total - self._made))
            ids = [f"u{self._made + i:07}" for i in range(len(clusters))]
            vectors = _scattered(rng, self._centres[clusters])
            edges = [_edges(rng, user, int(cluster)) for user, cluster in zip(ids, clusters, strict=True)]
            self._made += len(ids)
            yield SyntheticUsers(ids, vectors, edges)


def described(users: int) -> dict[str, Any]:
    """Return what a result says of this data."""
    recipe = f"{users} users, {CAMPAIGNS} campaigns, {_CLUSTERS} clusters, seed {_SEED}"
    return {"path": f"synthetic: {recipe}", "sha256": hashlib.sha256(recipe.encode()).hexdigest(), "rows": users}


def publish_synthetic(stores: Stores, settings: Settings, users: int) -> dict[str, Any]:
    """Write users and campaigns into empty stores, publish them, and return what a result says of the data.

    Nothing of it was ever said: there are vectors, edges, facts and intents, but no conversations.
    """
    data = Synthetic()
    index = stores.vectors.create("b1", DIM)
    stores.documents.put_campaigns(data.campaigns)
    stores.graph.put_campaigns(data.campaigns)
    index.upsert("campaigns", data.campaign_vectors)
    for some in data.users(users):
        index.upsert("users", [VectorRecord(u, v) for u, v in zip(some.user_ids, some.vectors, strict=True)])
        stores.graph.put_users(some.edges)
        stores.metrics.replace_facts([f"c{u}" for u in some.user_ids], some.facts())
    index.flush()
    load_aggregates(stores, settings, 1)
    load_co_engagement(stores, settings, 1)
    generation = make_generation(
        stores, index, settings, number=1, run_id="synthetic", model="synthetic/float32", dim=DIM
    )
    publish(stores, generation)
    return described(users)


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
        at = NEWEST - timedelta(days=float(rng.exponential(60)))
        found[f"k{campaign:03}", action] = EngagementEdge(user_id, f"k{campaign:03}", ACTIONS[action], 1, at)
    intents = {_intent(cluster): 2, _intent(int(rng.integers(_CLUSTERS))): 1}
    ordered = sorted(found.values(), key=lambda e: (e.campaign_id, e.action))
    return UserEdges(user_id, tuple(ordered), dict(sorted(intents.items())))


def _facts(edges: UserEdges) -> Iterator[EngagementFact]:
    for e in edges.engagements:
        yield EngagementFact(f"c{e.user_id}", e.user_id, e.campaign_id, e.action, e.count, e.last_at)


def _conversation(user_id: str) -> StoredConversation:
    topic = f"what {user_id} would like to know about the delivery of a desk, a lamp and two chairs"
    messages = [
        Message(role=role, text=f"{opening} {topic}.")
        for role, opening in (("user", "This is"), ("agent", "So this is"), ("user", "Yes,"), ("agent", "Here is"))
    ]
    conversation = Conversation(
        conversation_id=f"c{user_id}", user_id=user_id, started_at=NEWEST, channel="chat", messages=tuple(messages)
    )
    content_hash = hashlib.sha256(user_id.encode()).hexdigest()
    return StoredConversation(conversation, content_hash, position=1, run_id="synthetic")


def _intent(cluster: int) -> str:
    return f"intent_{cluster:02}"
