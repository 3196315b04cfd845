"""What the stores know that bears on one request: raw component values, and what they were computed from.

Calls that do not depend on each other run side by side. A store that does not answer leaves its components without
a value and its name in `degraded`; what was found without it still counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
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
SPARE = 16
#: Users with campaigns in common who count, the most alike first.
ALIKE_USERS = 100
#: Engagements that are looked through for them at most. What many took says least of anyone, so it is left out first.
_ALIKE_ENGAGEMENTS = 20_000


@dataclass(frozen=True, slots=True)
class PoolMember:
    """A user whose engagements count for another."""

    user_id: str
    similarity: float
    """Of words: cosine from the mean user, -1 to 1. Of engagements: cosine on campaigns in common, 0 to 1."""
    weight: float
    """Share of the pool's say, the shares sum to 1."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the stores answered about one user or text. Everything else follows from it without asking again."""

    vector: NDArray[np.float32] | None = None
    own: UserEdges | None = None
    links: tuple[CoEngagement, ...] = ()
    pool: tuple[tuple[str, float], ...] = ()
    """Users who talk alike with their similarity, most similar first."""
    alike: tuple[tuple[str, float], ...] = ()
    """Users who took the same campaigns with their similarity, most similar first."""
    edges: tuple[EngagementEdge, ...] = ()
    """All engagements of the users in `pool` and `alike`."""
    preferences: Preferences | None = None
    recent_views: dict[str, int] = field(default_factory=dict)
    degraded: frozenset[str] = frozenset()
    text: bool = False
    """Whether somebody of whom only these words are known was asked about."""

    @property
    def profiled(self) -> bool:
        """Whether more than the popular may be offered."""
        return self.preferences is None or self.preferences.profiling


@dataclass(frozen=True, slots=True)
class Signals:
    """Everything that ranking, filtering and explaining need."""

    known: Known
    raw: NDArray[np.float64]
    """(n_components, n_campaigns), in the order of COMPONENTS; NaN where a component cannot say anything."""
    pool: tuple[PoolMember, ...] = ()
    """Users who talk alike, most similar first."""
    alike: tuple[PoolMember, ...] = ()
    """Users who took the same campaigns, most similar first."""

    @property
    def own(self) -> UserEdges | None:
        return self.known.own

    @property
    def links(self) -> tuple[CoEngagement, ...]:
        return self.known.links

    @property
    def edges(self) -> tuple[EngagementEdge, ...]:
        return self.known.edges

    @property
    def vector(self) -> NDArray[np.float32] | None:
        return self.known.vector

    @property
    def preferences(self) -> Preferences | None:
        return self.known.preferences

    @property
    def recent_views(self) -> dict[str, int]:
        return self.known.recent_views

    @property
    def degraded(self) -> frozenset[str]:
        return self.known.degraded

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


def looked_through(own: Iterable[str], takers: Mapping[str, int]) -> list[str]:
    """Return whose takers are asked for to find users who took the same: the user's campaigns, the least common first.

    As many as have `_ALIKE_ENGAGEMENTS` takers together, one at least.
    """
    budget = _ALIKE_ENGAGEMENTS
    found: list[str] = []
    for count, campaign_id in sorted((takers.get(c, 0), c) for c in own):
        budget -= count
        if budget < 0 and found:
            break
        found.append(campaign_id)
    return found


def compute(known: Known, catalogue: Catalogue, centre: NDArray[np.float64]) -> Signals:
    """Return the signals that follow from what is known; no store is asked."""
    raw = np.full((len(COMPONENTS), len(catalogue)), np.nan)
    raw[COMPONENTS.index("engagement_prior")] = catalogue.prior
    if not known.profiled:
        return Signals(known, raw)
    size, position = len(catalogue), catalogue.position
    own = {position[c]: strength for c, strength in taken(known.own).items() if c in position}
    pool = _weighed(known.pool, components.SIMILARITY_POWER)
    alike = _weighed(known.alike, 1.0)
    found = strengths(known.edges)
    for name, members in (("similar_users", pool), ("engaged_alike", alike)):
        if members:
            row = {member.user_id: i for i, member in enumerate(members)}
            weights = np.array([member.weight for member in members])
            edges = [(row[u], position[c], s) for (u, c), s in found.items() if u in row and c in position]
            shares = components.neighbours_share(weights, edges, size)
            raw[COMPONENTS.index(name)] = components.standing_out(shares)
    links = [
        (position[x.source], position[x.target], x.weight)
        for x in known.links
        if x.source in position and x.target in position
    ]
    raw[COMPONENTS.index("co_engagement")] = components.standing_out(components.co_engagement(links, own, size))
    # A predicted intent counts as much as a labelled one: where the classifier is not sure it says nothing.
    intents = known.own.known_intents() if known.own is not None else {}
    if intents:
        total = sum(intents.values())
        shares_of = {name: count / total for name, count in intents.items()}
        raw[COMPONENTS.index("intent")] = components.intent(shares_of, catalogue.targets, size)
    if known.vector is not None or own:
        raw[COMPONENTS.index("content")] = components.content(catalogue.vectors, own, known.vector, centre)
    return Signals(known, raw, pool, alike)


def _weighed(members: Sequence[tuple[str, float]], power: float) -> tuple[PoolMember, ...]:
    weights = components.neighbour_weights(np.array([similarity for _, similarity in members]), power)
    return tuple(PoolMember(u, s, float(w)) for (u, s), w in zip(members, weights, strict=True))


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
        asked = self._ask(lambda: stores.state.preferences([user_id]))
        vector = self._ask(lambda: self._index().get("users", [user_id]).get(user_id))
        own = self._ask(lambda: stores.graph.user(user_id))
        links = self._ask(lambda: stores.graph.co_engaged(user_id, number))
        views = self._ask(lambda: stores.metrics.views_since(user_id, views_since))

        preferences = asked.result().get(user_id)
        if preferences is not None and not preferences.profiling:
            return self._signals(
                Known(own=self._or(own, None), preferences=preferences, recent_views=self._or(views, {}))
            )
        alike = self._ask(lambda: self.alike(own.result(), leave_out=user_id))
        words = self._or(vector, None)
        pool = self._pool(words, leave_out=user_id)
        found = self._or(alike, [])
        own_links = self._or(links, [])
        return self._signals(
            Known(
                vector=words,
                own=self._or(own, None),
                links=tuple(own_links),
                pool=tuple(pool),
                alike=tuple(found),
                edges=self._edges(pool, found),
                preferences=preferences,
                recent_views=self._or(views, {}),
            )
        )

    def for_vector(self, vector: NDArray[np.float32], *, intent: str | None = None) -> Signals:
        """Return the signals of somebody of whom only words are known, (dim,) at length 1, and the intent they show."""
        pool = self._pool(vector, leave_out=None)
        own = None if intent is None else UserEdges("", predicted={intent: 1})
        return self._signals(Known(vector=vector, own=own, pool=tuple(pool), edges=self._edges(pool), text=True))

    def recompute(self, known: Known) -> Signals:
        """Return the signals that would follow from something else being known; no store is asked."""
        return compute(known, self._catalogue, self._centre)

    def pool(self, vector: NDArray[np.float32], *, leave_out: str | None, size: int) -> list[tuple[str, float]]:
        """Return the `size` most similar users with their similarity, opted-out users not among them.

        Raises StoreUnavailableError where vectors or consent do not answer.
        """
        return self.pool_and_next(vector, leave_out=leave_out, size=size)[:size]

    def pool_and_next(
        self, vector: NDArray[np.float32], *, leave_out: str | None, size: int
    ) -> list[tuple[str, float]]:
        """Return what `pool` does, and after it those who would move up if some of these did not count."""
        query = np.asarray(vector - self._centre, dtype=np.float32)
        hits = self._index().search("users", query, size + SPARE, with_vectors=True)
        may = self._may_count([hit.key for hit in hits if hit.key != leave_out])
        hits = [hit for hit in hits if hit.key in may]
        if not hits:
            return []
        # The search compares the centred query with vectors as they are stored; among those found, the order and
        # the number shown are those of both centred.
        found = np.stack([hit.vector for hit in hits if hit.vector is not None])
        similarity = components.centred_similarity(vector, found, self._centre)
        return nearest([hit.key for hit in hits], similarity, len(hits))

    def alike(self, own: UserEdges | None, *, leave_out: str | None) -> list[tuple[str, float]]:
        """Return the users who took most of the same campaigns, with the cosine; opted-out users not among them.

        Raises StoreUnavailableError where the graph or consent does not answer.
        """
        return self.alike_and_next(own, leave_out=leave_out)[:ALIKE_USERS]

    def alike_and_next(self, own: UserEdges | None, *, leave_out: str | None) -> list[tuple[str, float]]:
        """Return what `alike` does, and after it those who would move up if some of these did not count."""
        mine = taken(own)
        metrics = self._catalogue.metrics
        asked = looked_through(mine, {c: metrics[c].positive_users for c in mine if c in metrics})
        if not asked:
            return []
        found = self._stores.graph.sharing(asked, ALIKE_USERS + SPARE + 1)
        may = self._may_count([row.user_id for row in found if row.user_id != leave_out])
        found = [row for row in found if row.user_id in may]
        similarity = components.engagement_similarity(
            np.array([row.shared for row in found]), len(mine), np.array([row.taken for row in found])
        )
        return nearest([row.user_id for row in found], similarity, len(found))

    def _may_count(self, user_ids: Sequence[str]) -> set[str]:
        preferences = self._stores.state.preferences(user_ids)
        return {u for u in user_ids if u not in preferences or preferences[u].profiling}

    def _index(self) -> VectorIndex:
        return self._stores.vectors.open(self._generation.build, lagging=True)

    def _pool(self, vector: NDArray[np.float32] | None, *, leave_out: str | None) -> list[tuple[str, float]]:
        if vector is None:
            return []
        try:
            return self.pool(vector, leave_out=leave_out, size=self._pool_size)
        except StoreUnavailableError as exc:
            self._without(exc)
            return []

    def _edges(self, *groups: Sequence[tuple[str, float]]) -> tuple[EngagementEdge, ...]:
        counting = sorted({user_id for group in groups for user_id, similarity in group if similarity > 0})
        try:
            return tuple(self._stores.graph.engagements_of(counting))
        except StoreUnavailableError as exc:
            self._without(exc)
            return ()

    def _ask(self, call: Callable[[], T]) -> Future[T]:
        return self._executor.submit(call)

    def _or(self, future: Future[T], default: T) -> T:
        try:
            return future.result()
        except StoreUnavailableError as exc:
            self._without(exc)
            return default

    def _without(self, exc: StoreUnavailableError) -> None:
        """Note that a store did not answer. Without the state store nobody knows whose data may be used."""
        if exc.store == "state":
            raise exc
        self._degraded.add(exc.store)

    def _signals(self, known: Known) -> Signals:
        return self.recompute(replace(known, degraded=frozenset(self._degraded)))


def nearest(user_ids: Sequence[str], similarity: NDArray[np.float64], size: int) -> list[tuple[str, float]]:
    ranked = sorted(zip(user_ids, similarity.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return ranked[:size]
