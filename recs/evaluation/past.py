"""What serving would know had the stores been filled with some conversations alone: for weights to be tried on.

Gathers as `recs.retrieval.signals.Gatherer` does, from arrays in place of stores; what follows from what is known is
the very code of serving. A test compares the two.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recs.batch.vectors import CENTRE_USERS
from recs.edges import edges_of
from recs.embed.vectors import unit, user_vector
from recs.evaluation.split import Split, positives
from recs.model import TAKEN, Action, CampaignMetrics, CoEngagement, EngagementEdge, StoredConversation, UserEdges
from recs.ranking import components, ease_links
from recs.retrieval.catalogue import Catalogue
from recs.retrieval.signals import ALIKE_USERS, SPARE, Known, Signals, compute, looked_through, nearest, taken
from recs.sampling import sample
from recs.settings import Settings
from recs.stores.ports import CampaignNode, Sharing

Vectors = Mapping[str, NDArray[np.float32]]


class Past:
    """Everything that serving would know after these conversations."""

    def __init__(
        self,
        conversations: Sequence[StoredConversation],
        vectors: Vectors,
        nodes: Sequence[CampaignNode],
        campaign_vectors: NDArray[np.float32],
        settings: Settings,
        *,
        predicted: Mapping[str, str] | None = None,
    ) -> None:
        """`vectors` are those of the conversations by id, `predicted` the intents of those without a label.

        `nodes` are sorted by id; `campaign_vectors` (n_campaigns, dim) are NaN where a campaign has no text.
        """
        by_user: defaultdict[str, list[StoredConversation]] = defaultdict(list)
        for stored in conversations:
            by_user[stored.conversation.user_id].append(stored)
        self.user_ids = sorted(by_user)
        self._row = {user_id: row for row, user_id in enumerate(self.user_ids)}
        self._pool_size = settings.neighbour_pool
        self._edges: dict[str, UserEdges] = {}
        spoken: list[str] = []
        said: list[NDArray[np.float32]] = []
        for user_id in self.user_ids:
            theirs = sorted(by_user[user_id], key=StoredConversation.order_key)
            self._edges[user_id] = edges_of(user_id, theirs, predicted or {})
            vector = user_vector(theirs, vectors, settings.recency_half_life_days)
            if vector is not None:
                spoken.append(user_id)
                said.append(vector)
        dim = campaign_vectors.shape[1]
        self._spoken = spoken
        self._heard = dict(zip(spoken, said, strict=True))
        self._said = np.stack(said) if said else np.empty((0, dim), dtype=np.float32)
        self.centre = np.zeros(dim)
        centring = [self._heard[u] for u in sample(self.user_ids, CENTRE_USERS) if u in self._heard]
        for vector in centring:
            self.centre += unit(vector)
        self.centre /= max(1, len(centring))
        self._take(tuple(nodes), campaign_vectors, settings)

    def _take(self, nodes: tuple[CampaignNode, ...], campaign_vectors: NDArray[np.float32], settings: Settings) -> None:
        ids = tuple(node.campaign_id for node in nodes)
        self._position = position = {campaign_id: i for i, campaign_id in enumerate(ids)}
        rows, columns, latest = [], [], []
        for row, user_id in enumerate(self.user_ids):
            times: dict[str, datetime | None] = {}
            for edge in self._edges[user_id].engagements:
                if edge.action in TAKEN and edge.campaign_id in position:
                    held = times.get(edge.campaign_id)
                    times[edge.campaign_id] = max(filter(None, (held, edge.last_at)), default=None)
            rows += [row] * len(times)
            columns += [position[campaign_id] for campaign_id in times]
            latest += list(times.values())
        shape = (len(self.user_ids), len(ids))
        self._taken = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
        self._by_campaign = self._taken.tocsc()
        self._counts = np.asarray(self._taken.sum(axis=1)).ravel()
        takers = np.asarray(self._taken.sum(axis=0)).ravel()
        self._takers = {campaign_id: int(takers[i]) for campaign_id, i in position.items()}
        newest = max(
            (e.last_at for known in self._edges.values() for e in known.engagements if e.last_at is not None),
            default=None,
        )
        summed = np.zeros(len(ids))
        for column, at in zip(columns, latest, strict=True):
            age = 0.0 if at is None or newest is None else (newest - at).total_seconds() / 86400.0
            summed[column] += 2.0 ** (-age / settings.recency_half_life_days)
        targets: dict[str, list[int]] = {}
        for i, node in enumerate(nodes):
            for intent in node.intents:
                targets.setdefault(intent, []).append(i)
        self.catalogue = Catalogue(
            nodes=nodes,
            ids=ids,
            position=position,
            targets={intent: tuple(places) for intent, places in targets.items()},
            vectors=campaign_vectors,
            prior=np.log1p(summed),
            metrics=dict[str, CampaignMetrics](),
            degraded=frozenset(),
        )
        self._links: defaultdict[str, list[CoEngagement]] = defaultdict(list)
        for link in ease_links(self._taken, ids, links_per_campaign=settings.co_engagement_links):
            self._links[link.source].append(link)

    def taken_by(self, split: Split, actions: Collection[Action]) -> dict[str, set[str]]:
        """Return what each tested user took in training already, by the actions that count as taking."""
        tested = {case.user_id for case in split.cases}
        found: dict[str, set[str]] = {user_id: set() for user_id in tested}
        for stored in split.train:
            if stored.conversation.user_id in tested:
                found[stored.conversation.user_id] |= positives(stored.conversation, actions) & self._position.keys()
        return found

    def signals(self, user_id: str) -> Signals:
        """Return what serving would know of a user."""
        own = self._edges.get(user_id)
        vector = self._heard.get(user_id)
        pool = self._pool(vector, leave_out=user_id) if vector is not None else []
        alike = self._alike(own, leave_out=user_id)
        took = sorted({e.campaign_id for e in own.engagements if e.action in TAKEN}) if own is not None else []
        return self._signals(
            Known(
                vector=vector,
                own=own,
                links=tuple(link for campaign_id in took for link in self._links.get(campaign_id, ())),
                pool=tuple(pool),
                alike=tuple(alike),
                edges=self._engagements(pool, alike),
            )
        )

    def signals_of_text(self, vector: NDArray[np.float32], *, intent: str | None = None) -> Signals:
        """Return what serving would know of somebody of whom only words are known, (dim,) at length 1."""
        pool = self._pool(vector, leave_out=None)
        own = None if intent is None else UserEdges("", predicted={intent: 1})
        return self._signals(Known(vector=vector, own=own, pool=tuple(pool), edges=self._engagements(pool), text=True))

    def _signals(self, known: Known) -> Signals:
        return compute(known, self.catalogue, self.centre)

    def _pool(self, vector: NDArray[np.float32], *, leave_out: str | None) -> list[tuple[str, float]]:
        if not len(self._said):
            return []
        found = self._said @ np.asarray(vector - self.centre, dtype=np.float32)
        size = min(len(found), self._pool_size + SPARE)
        rows = [row for row in np.argsort(-found, kind="stable")[:size].tolist() if self._spoken[row] != leave_out]
        similarity = components.centred_similarity(vector, self._said[rows], self.centre)
        return nearest([self._spoken[row] for row in rows], similarity, self._pool_size)

    def _alike(self, own: UserEdges | None, *, leave_out: str) -> list[tuple[str, float]]:
        mine = taken(own)
        asked = [self._position[c] for c in looked_through(mine, self._takers) if c in self._position]
        if not asked:
            return []
        shared = np.asarray(self._by_campaign[:, asked].sum(axis=1)).ravel()
        found = [Sharing(self.user_ids[r], int(shared[r]), int(self._counts[r])) for r in np.flatnonzero(shared)]
        most = ALIKE_USERS + SPARE + 1
        found = heapq.nsmallest(most, found, key=lambda row: (-row.shared / math.sqrt(row.taken), row.user_id))
        found = [row for row in found if row.user_id != leave_out]
        similarity = components.engagement_similarity(
            np.array([row.shared for row in found]), len(mine), np.array([row.taken for row in found])
        )
        return nearest([row.user_id for row in found], similarity, ALIKE_USERS)

    def _engagements(self, *groups: Sequence[tuple[str, float]]) -> tuple[EngagementEdge, ...]:
        counting = sorted({user_id for group in groups for user_id, similarity in group if similarity > 0})
        return tuple(edge for user_id in counting for edge in self._edges[user_id].engagements)
