"""What the stores know that bears on one request: raw component values, and what they were computed from.

Calls that do not depend on each other run side by side. A store that does not answer leaves its components without
a value and its name in `degraded`; what was found without it still counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from recs.bootstrap import Stores
from recs.errors import StoreUnavailableError
from recs.model import ACTION_STRENGTH, CoEngagement, EngagementEdge, Generation, Preferences, UserEdges
from recs.ranking import components
from recs.ranking.components import COMPONENTS
from recs.retrieval.catalogue import Catalogue
from recs.stores.ports import VectorIndex

T = TypeVar("T")

#: Users who opted out of profiling are taken from the pool after the search; so many more are asked for.
_SPARE = 16


@dataclass(frozen=True, slots=True)
class PoolMember:
    """A similar user."""

    user_id: str
    similarity: float
    """Cosine from the mean user, -1 to 1."""
    weight: float
    """Share of the pool's say, the shares sum to 1."""


@dataclass(frozen=True, slots=True)
class Signals:
    """Everything that ranking, filtering and explaining need."""

    raw: NDArray[np.float64]
    """(n_components, n_campaigns), in the order of COMPONENTS; NaN where a component cannot say anything."""
    pool: tuple[PoolMember, ...] = ()
    """Similar users, most similar first."""
    pool_edges: tuple[EngagementEdge, ...] = ()
    own: UserEdges | None = None
    links: tuple[CoEngagement, ...] = ()
    vector: NDArray[np.float32] | None = None
    preferences: Preferences | None = None
    recent_views: dict[str, int] = field(default_factory=dict)
    degraded: frozenset[str] = frozenset()

    @property
    def personal(self) -> bool:
        """Whether anything but popularity speaks; all other components are NaN for a user who is not known."""
        return bool(np.isfinite(np.delete(self.raw, COMPONENTS.index("engagement_prior"), axis=0)).any())


def strengths(edges: Sequence[EngagementEdge]) -> dict[tuple[str, str], float]:
    """Return (user, campaign) to the strength of their strongest action in [-1, 1]; a dislike overrules the rest."""
    found: dict[tuple[str, str], float] = {}
    for edge in edges:
        key, strength = (edge.user_id, edge.campaign_id), ACTION_STRENGTH[edge.action]
        before = found.get(key)
        if before is None or strength < 0 or (before >= 0 and strength > before):
            found[key] = strength
    return found


def taken(own: UserEdges | None) -> dict[str, float]:
    """Return the campaigns that the user liked or converted on, and did not dislike, at strength 1."""
    if own is None:
        return {}
    return {campaign_id: s for (_, campaign_id), s in strengths(own.engagements).items() if s >= 1.0}


class Gatherer:
    """Asks the stores for one generation's signals."""

    def __init__(
        self, stores: Stores, generation: Generation, catalogue: Catalogue, executor: Executor, *, pool_size: int
    ) -> None:
        self._stores = stores
        self._generation = generation
        self._catalogue = catalogue
        self._executor = executor
        self._pool_size = pool_size
        self._centre = np.asarray(generation.centre, dtype=np.float64)
        self._degraded = set(catalogue.degraded)

    def for_user(self, user_id: str, *, views_since: datetime) -> Signals:
        """Return the signals of a user. A user of whom nothing is known has neither vector nor `own`.

        Raises StoreUnavailableError where consent cannot be looked up.
        """
        stores, number = self._stores, self._generation.number
        preferences = self._ask(lambda: stores.state.preferences([user_id]))
        vector = self._ask(lambda: self._index().get("users", [user_id]).get(user_id))
        own = self._ask(lambda: stores.graph.user(user_id))
        links = self._ask(lambda: stores.graph.co_engaged(user_id, number))
        views = self._ask(lambda: stores.metrics.views_since(user_id, views_since))

        allowed = preferences.result().get(user_id)
        if allowed is not None and not allowed.profiling:
            return self._signals(
                None, own=self._or(own, None), preferences=allowed, views=self._or(views, {}), profile=False
            )
        words = self._or(vector, None)
        pool, edges = self._neighbourhood(words, leave_out=user_id)
        found_links = self._or(links, [])
        return self._signals(
            words,
            pool=pool,
            pool_edges=edges,
            own=self._or(own, None),
            links=found_links,
            preferences=allowed,
            views=self._or(views, {}),
        )

    def for_vector(self, vector: NDArray[np.float32], *, intent: str | None = None) -> Signals:
        """Return the signals of somebody of whom only words are known, (dim,) at length 1, and the intent they show."""
        pool, edges = self._neighbourhood(vector, leave_out=None)
        own = None if intent is None else UserEdges("", predicted={intent: 1})
        return self._signals(vector, pool=pool, pool_edges=edges, own=own)

    def pool(self, vector: NDArray[np.float32], *, leave_out: str | None, size: int) -> list[tuple[str, float]]:
        """Return the `size` most similar users with their similarity, opted-out users not among them.

        Raises StoreUnavailableError where vectors or consent do not answer.
        """
        query = np.asarray(vector - self._centre, dtype=np.float32)
        hits = self._index().search("users", query, size + _SPARE, with_vectors=True)
        opted_out = self._stores.state.preferences([hit.key for hit in hits])
        hits = [
            hit for hit in hits if hit.key != leave_out and (hit.key not in opted_out or opted_out[hit.key].profiling)
        ]
        if not hits:
            return []
        # The search compares the centred query with vectors as they are stored; among those found, the order and
        # the number shown are those of both centred.
        found = np.stack([hit.vector for hit in hits if hit.vector is not None])
        similarity = components.centred_similarity(vector, found, self._centre)
        ranked = sorted(zip([hit.key for hit in hits], similarity.tolist(), strict=True), key=lambda p: (-p[1], p[0]))
        return ranked[:size]

    def _index(self) -> VectorIndex:
        return self._stores.vectors.open(self._generation.build, lagging=True)

    def _neighbourhood(
        self, vector: NDArray[np.float32] | None, *, leave_out: str | None
    ) -> tuple[tuple[PoolMember, ...], tuple[EngagementEdge, ...]]:
        if vector is None:
            return (), ()
        try:
            found = self.pool(vector, leave_out=leave_out, size=self._pool_size)
            weights = components.neighbour_weights(np.array([similarity for _, similarity in found]))
            pool = tuple(PoolMember(u, s, float(w)) for (u, s), w in zip(found, weights, strict=True))
            counting = [member.user_id for member in pool if member.weight > 0]
            return pool, tuple(self._stores.graph.engagements_of(counting))
        except StoreUnavailableError as exc:
            if exc.store == "state":
                raise
            self._degraded.add(exc.store)
            return (), ()

    def _ask(self, call: Callable[[], T]) -> Future[T]:
        return self._executor.submit(call)

    def _or(self, future: Future[T], default: T) -> T:
        try:
            return future.result()
        except StoreUnavailableError as exc:
            self._degraded.add(exc.store)
            return default

    def _signals(
        self,
        words: NDArray[np.float32] | None,
        *,
        pool: tuple[PoolMember, ...] = (),
        pool_edges: tuple[EngagementEdge, ...] = (),
        own: UserEdges | None = None,
        links: Sequence[CoEngagement] = (),
        preferences: Preferences | None = None,
        views: dict[str, int] | None = None,
        profile: bool = True,
    ) -> Signals:
        catalogue = self._catalogue
        raw = np.full((len(COMPONENTS), len(catalogue)), np.nan)
        raw[COMPONENTS.index("engagement_prior")] = catalogue.prior
        if profile:
            self._fill(raw, words, pool, pool_edges, own, links)
        return Signals(
            raw=raw,
            pool=pool,
            pool_edges=pool_edges,
            own=own,
            links=tuple(links),
            vector=words,
            preferences=preferences,
            recent_views=views or {},
            degraded=frozenset(self._degraded),
        )

    def _fill(
        self,
        raw: NDArray[np.float64],
        words: NDArray[np.float32] | None,
        pool: tuple[PoolMember, ...],
        pool_edges: tuple[EngagementEdge, ...],
        own: UserEdges | None,
        links: Sequence[CoEngagement],
    ) -> None:
        position, size = self._catalogue.position, len(self._catalogue)
        liked = {position[c]: strength for c, strength in taken(own).items() if c in position}
        if pool:
            member = {m.user_id: i for i, m in enumerate(pool)}
            raw[COMPONENTS.index("similar_users")] = components.similar_users(
                np.array([m.weight for m in pool]),
                [(member[u], position[c], s) for (u, c), s in strengths(pool_edges).items() if c in position],
                size,
            )
        known_links = [
            (position[x.source], position[x.target], x.weight) for x in links if {x.source, x.target} <= position.keys()
        ]
        raw[COMPONENTS.index("co_engagement")] = components.co_engagement(known_links, liked, size)
        # A predicted intent counts as much as a labelled one: where the classifier is not sure it says nothing.
        intents = own.known_intents() if own is not None else {}
        if intents:
            total = sum(intents.values())
            shares = {name: count / total for name, count in intents.items()}
            raw[COMPONENTS.index("intent")] = components.intent(shares, self._catalogue.targets, size)
        if words is not None or liked:
            raw[COMPONENTS.index("content")] = components.content(self._catalogue.vectors, liked, words, self._centre)
