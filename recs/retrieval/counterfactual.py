"""What a user's list would be without one neighbour, one of the user's own conversations or one own campaign.

Before and after come from one reading of the stores and go through the scorer of every other answer. What is taken
away is a live fact; what a generation pins stays as it is on both sides: co-engagement links, the prior, constants,
weights, the mean user, the classifier of intents. Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from recs.bootstrap import Stores
from recs.edges import edges_of, facts_of
from recs.embed import user_vector
from recs.errors import NotFoundError, StoreUnavailableError
from recs.intents.kept import ClassifierKeeper
from recs.model import (
    ACTION_STRENGTH,
    TAKEN,
    Counterfactual,
    Effect,
    EngagementEdge,
    Explanation,
    Move,
    PartChange,
    StoredConversation,
    TakenAway,
    UserEdges,
)
from recs.ranking import COMPONENTS
from recs.retrieval.dissent import dissent_of
from recs.retrieval.evidence import ALIKE_PER_ITEM, NEIGHBOURS_PER_ITEM, supporters
from recs.retrieval.scoring import Scored, Scorer
from recs.retrieval.signals import ALIKE_USERS, Known, Signals, taken
from recs.settings import Settings
from recs.stores.ports import VectorIndex

#: How many of the user's own campaigns and latest conversations are taken away, one at a time, for one explanation.
CAMPAIGNS_TRIED = 20
CONVERSATIONS_TRIED = 10

_Members = Sequence[tuple[str, float]]
_Vectors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Standing:
    """Every campaign's score in one state of things, and the place of those that may be offered."""

    signals: Signals
    scored: Scored
    offered: tuple[int, ...]
    """Columns of the campaigns that may be offered, best first."""

    def top(self, k: int) -> list[str]:
        return [self.scored.ids[column] for column in self.offered[:k]]


class WhatIf:
    """What would be known of one user, and what would follow, if something were not the case. For one thread.

    A store that did not answer at first stays missing on both sides and is named in `known.degraded`; one that fails
    later raises StoreUnavailableError, because before and after would not be comparable.
    """

    def __init__(
        self, stores: Stores, scorer: Scorer, settings: Settings, intents: ClassifierKeeper, user_id: str
    ) -> None:
        """Raises NotFoundError for a user who is not known or opted out of profiling.

        Raises StoreUnavailableError where the graph does not answer: all evidence leads through it.
        """
        self._stores = stores
        self._scorer = scorer
        self._settings = settings
        self._intents = intents
        self._user_id = user_id
        self._gatherer = scorer.gatherer()
        known = scorer.signals(user_id).known
        if not known.profiled:
            raise NotFoundError(f"user {user_id!r} opted out of profiling: there is nothing to explain")
        if "graph" in known.degraded:
            raise StoreUnavailableError("graph", "does not answer, and there is no explanation without it")
        if known.vector is None and known.own is None:
            if "vectors" in known.degraded:
                raise StoreUnavailableError(
                    "vectors", f"does not answer, and nothing else is known of user {user_id!r}"
                )
            raise NotFoundError(f"nothing is known of user {user_id!r}")
        counted = {u for u, similarity in chain(known.pool, known.alike) if similarity > 0}
        self._engagements: dict[str, list[EngagementEdge]] = {u: [] for u in counted}
        for edge in known.edges:
            self._engagements[edge.user_id].append(edge)
        self._pool = self._talking_alike(known.vector)
        self._alike = self._gatherer.alike_and_next(known.own, leave_out=user_id)
        self._conversations: list[StoredConversation] | None = None
        self.known = self._with_members(known, self._pool, self._alike)
        self.before = self.standing(self.known)

    def standing(self, known: Known) -> Standing:
        """Return what follows from what is known."""
        signals = self._gatherer.recompute(known)
        scored = self._scorer.score(signals)
        return Standing(signals, scored, tuple(i for i in scored.order.tolist() if scored.reasons[i] is None))

    # -- what would be known -----------------------------------------------------------------------------------------

    def without(self, what: TakenAway, its_id: str) -> Known:
        """Return what would be known without it; raises NotFoundError where it is not there to be taken away."""
        match what:
            case "neighbour":
                return self._without_neighbour(its_id)
            case "conversation":
                return self._without_conversation(its_id)
            case "campaign":
                return self._without_campaign(its_id)

    def _without_neighbour(self, neighbour_id: str) -> Known:
        """As if that person had opted out of profiling a moment ago: the next in line moves up."""
        if neighbour_id not in self.members():
            self.require_words()
            raise NotFoundError(f"{neighbour_id!r} is not among the users who count for {self._user_id!r}")
        pool = [member for member in self._pool if member[0] != neighbour_id]
        alike = [member for member in self._alike if member[0] != neighbour_id]
        return self._with_members(self.known, pool, alike)

    def _without_conversation(self, conversation_id: str) -> Known:
        """As if it had never been loaded: its words, its intent and its engagements are gone."""
        conversations = self.conversations()
        rest = [s for s in conversations if s.conversation.conversation_id != conversation_id]
        if len(rest) == len(conversations):
            raise NotFoundError(f"user {self._user_id!r} has no conversation {conversation_id!r}")
        views = Counter(self.known.recent_views)
        (gone,) = (s.conversation for s in conversations if s.conversation.conversation_id == conversation_id)
        for fact in facts_of(gone):
            if fact.action == "view" and fact.at is not None and fact.at >= self._scorer.views_since:
                views[fact.campaign_id] -= fact.count
        # Unary plus keeps what is above 0. Views of a metrics store that did not answer are none on both sides.
        return replace(self.with_conversations(rest, self.vectors_of(rest)), recent_views=dict(+views))

    def _without_campaign(self, campaign_id: str) -> Known:
        """As if the user had never met it, while what was said stays said."""
        own = self.known.own
        if own is None or campaign_id not in {e.campaign_id for e in own.engagements}:
            raise NotFoundError(f"user {self._user_id!r} has not met campaign {campaign_id!r}")
        left = replace(own, engagements=tuple(e for e in own.engagements if e.campaign_id != campaign_id))
        views = {c: count for c, count in self.known.recent_views.items() if c != campaign_id}
        return replace(self._with_own(left, self.known.vector), recent_views=views)

    def with_conversations(self, conversations: Sequence[StoredConversation], vectors: _Vectors) -> Known:
        """Return what would be known had the user these conversations, old to new, with these vectors by id."""
        vector = None
        if self._heard:
            vector = user_vector(conversations, dict(vectors), self._settings.recency_half_life_days)
        return self._with_own(self._own_of(conversations, vectors), vector)

    def members(self) -> set[str]:
        """Return the ids of the neighbours: users who talk alike and users who took the same campaigns."""
        return {u for u, _ in chain(self.known.pool, self.known.alike)}

    def conversations(self) -> list[StoredConversation]:
        """Return the user's conversations, old to new, without their texts."""
        if self._conversations is None:
            self._conversations = self._stores.documents.of_users([self._user_id], texts=False)
        return self._conversations

    def vectors_of(self, conversations: Sequence[StoredConversation]) -> _Vectors:
        """Return the vectors of those conversations in which the user said anything, by id."""
        if not self._heard:
            return {}
        return self.index().get("conversations", [s.conversation.conversation_id for s in conversations])

    @property
    def generation(self) -> int:
        return self._scorer.generation.number

    def index(self) -> VectorIndex:
        return self._stores.vectors.open(self._scorer.generation.build, lagging=True)

    def require_words(self) -> None:
        """Raise StoreUnavailableError where it cannot be told who talks alike."""
        if not self._heard:
            raise StoreUnavailableError("vectors", "does not answer, so users who talk alike are not known")

    @property
    def _heard(self) -> bool:
        """False where the user's words could not be read: they are then missing on both sides."""
        return self.known.vector is not None or "vectors" not in self.known.degraded

    def _own_of(self, conversations: Sequence[StoredConversation], vectors: _Vectors) -> UserEdges | None:
        if not conversations:
            return None
        ids = [s.conversation.conversation_id for s in conversations if not s.conversation.intent]
        ids = [i for i in ids if i in vectors]
        predicted: dict[str, str] = {}
        if ids:
            model = self._scorer.generation.model
            intents = self._intents.intents_of(np.stack([vectors[i] for i in ids]), model)
            predicted = {i: intent for i, intent in zip(ids, intents, strict=True) if intent is not None}
        own = edges_of(self._user_id, conversations, predicted)
        # The graph keeps no engagement with a campaign that it has no node of.
        position = self._scorer.catalogue.position
        return replace(own, engagements=tuple(e for e in own.engagements if e.campaign_id in position))

    def _with_own(self, own: UserEdges | None, vector: NDArray[np.float32] | None) -> Known:
        sources = {e.campaign_id for e in own.engagements if e.action in TAKEN} if own is not None else set()
        pool, alike = self._pool, self._alike
        if not _same(vector, self.known.vector):
            pool = self._talking_alike(vector)
        if taken(own) != taken(self.known.own):
            alike = self._gatherer.alike_and_next(own, leave_out=self._user_id)
        # Nothing taken away makes a user take more campaigns: the links left are some of those known.
        links = tuple(link for link in self.known.links if link.source in sources)
        return self._with_members(replace(self.known, own=own, vector=vector, links=links), pool, alike)

    def _with_members(self, known: Known, pool: _Members, alike: _Members) -> Known:
        pool, alike = tuple(pool[: self._settings.neighbour_pool]), tuple(alike[:ALIKE_USERS])
        counting = sorted({u for u, similarity in chain(pool, alike) if similarity > 0})
        missing = [u for u in counting if u not in self._engagements]
        self._engagements.update({u: [] for u in missing})
        for edge in self._stores.graph.engagements_of(missing):
            self._engagements[edge.user_id].append(edge)
        edges = tuple(edge for u in counting for edge in self._engagements[u])
        return replace(known, pool=pool, alike=alike, edges=edges)

    def _talking_alike(self, vector: NDArray[np.float32] | None) -> _Members:
        if vector is None:
            return []
        return self._gatherer.pool_and_next(vector, leave_out=self._user_id, size=self._settings.neighbour_pool)

    # -- what would follow -------------------------------------------------------------------------------------------

    def counterfactual(self, what: TakenAway, its_id: str, *, campaign_id: str | None, k: int) -> Counterfactual:
        """Return how the list changes without it: the k best before and what comes in, or one campaign alone.

        Raises NotFoundError where either is not known.
        """
        if campaign_id is not None:
            self._column(campaign_id)
        after = self.standing(self.without(what, its_id))
        top_before, top_after = self.before.top(k), after.top(k)
        entered = [c for c in top_after if c not in top_before]
        asked = [*top_before, *entered] if campaign_id is None else [campaign_id]
        return Counterfactual(
            user_id=self._user_id,
            generation=self.generation,
            without=what,
            without_id=its_id,
            without_name=self._name(what, its_id),
            degraded=sorted(self.known.degraded),
            k=k,
            items=[self._move(after, c) for c in asked],
            entered=entered,
            left=[c for c in top_before if c not in top_after],
        )

    def explanation(self, campaign_id: str) -> Explanation:
        """Return what the place of one campaign hangs on, and who of the neighbours did not take it.

        Taken away, each by itself, are the neighbours that its evidence names, the user's own campaigns and latest
        conversations up to a number. Raises NotFoundError for an unknown campaign.
        """
        column = self._column(campaign_id)
        before = self.before
        effects, not_tried = self._effects(campaign_id)
        return Explanation(
            user_id=self._user_id,
            campaign_id=campaign_id,
            name=self._scorer.catalogue.nodes[column].name,
            generation=self.generation,
            degraded=sorted(self.known.degraded),
            rank=_rank(before, column),
            reason=before.scored.reasons[column],
            score=float(before.scored.scores[column]),
            breakdown=before.scored.breakdown(column),
            effects=effects,
            not_tried=not_tried,
            dissent=dissent_of(campaign_id, before.signals),
        )

    def _effects(self, campaign_id: str) -> tuple[list[Effect], int]:
        """Return the effects, the greatest first, and how many own things were not tried."""
        tried, left_over = self._to_try(campaign_id)
        found = [
            Effect(
                without=what,
                without_id=its_id,
                without_name=self._name(what, its_id),
                move=self._move(self.standing(self.without(what, its_id)), campaign_id),
            )
            for what, its_id in tried
        ]
        return sorted(found, key=lambda e: (-abs(e.move.difference), e.without, e.without_id)), left_over

    def _to_try(self, campaign_id: str) -> tuple[list[tuple[TakenAway, str]], int]:
        signals = self.before.signals
        named = [
            *supporters(campaign_id, signals.edges, signals.pool)[:NEIGHBOURS_PER_ITEM],
            *supporters(campaign_id, signals.edges, signals.alike)[:ALIKE_PER_ITEM],
        ]
        strongest: dict[str, tuple[float, float]] = {}
        for edge in self.known.own.engagements if self.known.own is not None else ():
            at = edge.last_at.timestamp() if edge.last_at is not None else 0.0
            told = (abs(ACTION_STRENGTH[edge.action]), at)
            strongest[edge.campaign_id] = max(told, strongest.get(edge.campaign_id, told))
        campaigns = sorted(strongest, key=lambda c: (-strongest[c][0], -strongest[c][1], c))
        conversations = [s.conversation.conversation_id for s in reversed(self.conversations())]
        tried: list[tuple[TakenAway, str]] = [
            *(("neighbour", member.user_id) for member, _ in named),
            *(("campaign", its_id) for its_id in campaigns[:CAMPAIGNS_TRIED]),
            *(("conversation", its_id) for its_id in conversations[:CONVERSATIONS_TRIED]),
        ]
        over = max(0, len(campaigns) - CAMPAIGNS_TRIED) + max(0, len(conversations) - CONVERSATIONS_TRIED)
        return list(dict.fromkeys(tried)), over

    def _move(self, after: Standing, campaign_id: str) -> Move:
        column = self._column(campaign_id)
        before = self.before
        parts = zip(COMPONENTS, before.scored.parts[:, column], after.scored.parts[:, column], strict=True)
        score_before, score_after = float(before.scored.scores[column]), float(after.scored.scores[column])
        return Move(
            campaign_id=campaign_id,
            name=self._scorer.catalogue.nodes[column].name,
            rank_before=_rank(before, column),
            rank_after=_rank(after, column),
            reason_before=before.scored.reasons[column],
            reason_after=after.scored.reasons[column],
            score_before=score_before,
            score_after=score_after,
            difference=score_after - score_before,
            parts=[
                PartChange(component=name, before=float(was), after=float(now), difference=float(now - was))
                for name, was, now in parts
            ],
        )

    def _column(self, campaign_id: str) -> int:
        column = self._scorer.catalogue.position.get(campaign_id)
        if column is None:
            raise NotFoundError(f"campaign {campaign_id!r} is not known")
        return column

    def _name(self, what: TakenAway, its_id: str) -> str | None:
        column = self._scorer.catalogue.position.get(its_id) if what == "campaign" else None
        return None if column is None else self._scorer.catalogue.nodes[column].name


def _rank(standing: Standing, column: int) -> int | None:
    return standing.offered.index(column) + 1 if column in standing.offered else None


def _same(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
