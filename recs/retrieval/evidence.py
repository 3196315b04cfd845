"""The evidence behind each score: who took it, what leads to it, and the words that made two users alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recs.bootstrap import Stores
from recs.embed import normalise_text, text_key
from recs.errors import StoreUnavailableError
from recs.model import ACTION_STRENGTH, TAKEN, EngagementEdge, Evidence, Generation, Item, Quote, StoredConversation
from recs.ranking import COMPONENTS
from recs.retrieval.catalogue import Catalogue
from recs.retrieval.signals import PoolMember, Signals, taken
from recs.settings import Settings

NEIGHBOURS_PER_ITEM = 3
ALIKE_PER_ITEM = 2
OWN_CAMPAIGNS_PER_ITEM = 2
#: Neighbours whose words are looked up for one answer, and how much of each is read.
QUOTED_NEIGHBOURS = 8
_CONVERSATIONS_READ = 5
_TELLING_CHARS = 20
_TEXTS_READ = 40

_Said = tuple[Quote, NDArray[np.float32]]


class Explainer:
    """Fills in the evidence of an answer."""

    def __init__(self, stores: Stores, generation: Generation, catalogue: Catalogue, settings: Settings) -> None:
        self._stores = stores
        self._generation = generation
        self._catalogue = catalogue
        self._settings = settings

    def explain(self, items: Sequence[Item], signals: Signals, user_id: str | None) -> set[str]:
        """Add evidence to each item in place; returns the stores that it had to do without.

        Every piece is something that the score was computed from: a neighbour of the pool who took the campaign, a
        user with campaigns in common who did, an intent of the user's that it targets, a link from a campaign that
        the user took.
        """
        named: list[str] = []
        # Neighbours have thousands of engagements, which are not to be gone through for every item.
        about: dict[str, list[EngagementEdge]] = {item.campaign_id: [] for item in items}
        for edge in signals.edges:
            if edge.campaign_id in about:
                about[edge.campaign_id].append(edge)
        shared = _shared(signals)
        for item in items:
            edges = about[item.campaign_id]
            item.evidence += self._neighbours(item, edges, signals)
            item.evidence += self._engaged_alike(item, edges, signals, shared)
            item.evidence += self._co_engagement(item, signals)
            item.evidence += self._intents(item, signals)
            item.evidence += self._content(item, signals)
            named += [e.user_id for e in item.evidence if e.user_id is not None and e.kind == "neighbour"]
        quoted = list(dict.fromkeys(named))[:QUOTED_NEIGHBOURS]
        if not quoted:
            return set()
        try:
            quotes = self._quotes(quoted, signals, user_id)
        except StoreUnavailableError as exc:
            return {exc.store}
        for item in items:
            for piece in item.evidence:
                if piece.kind == "neighbour" and piece.user_id in quotes:
                    piece.quote, piece.own_quote = quotes[piece.user_id]
        return set()

    def _neighbours(self, item: Item, edges: Sequence[EngagementEdge], signals: Signals) -> list[Evidence]:
        return [
            Evidence(
                kind="neighbour",
                user_id=edge.user_id,
                similarity=round(member.similarity, 4),
                action=edge.action,
                at=edge.last_at,
            )
            for member, edge in supporters(item.campaign_id, edges, signals.pool)[:NEIGHBOURS_PER_ITEM]
        ]

    def _engaged_alike(
        self, item: Item, edges: Sequence[EngagementEdge], signals: Signals, shared_with: Mapping[str, set[str]]
    ) -> list[Evidence]:
        """Name those who took it among the users who took the same campaigns, with one of these: the least common."""
        found = []
        for member, edge in supporters(item.campaign_id, edges, signals.alike)[:ALIKE_PER_ITEM]:
            shared = sorted(shared_with.get(member.user_id, ()), key=lambda c: (self._takers(c), c))
            found.append(
                Evidence(
                    kind="engaged_alike",
                    user_id=member.user_id,
                    similarity=round(member.similarity, 4),
                    action=edge.action,
                    at=edge.last_at,
                    campaign_id=shared[0] if shared else None,
                    name=self._name(shared[0]) if shared else None,
                    weight=float(len(shared)),
                )
            )
        return found

    def _takers(self, campaign_id: str) -> int:
        metrics = self._catalogue.metrics.get(campaign_id)
        return metrics.positive_users if metrics is not None else 0

    def _co_engagement(self, item: Item, signals: Signals) -> list[Evidence]:
        own = taken(signals.own)
        links = [x for x in signals.links if x.target == item.campaign_id and x.weight > 0 and x.source in own]
        links.sort(key=lambda x: (-x.weight, x.source))
        return [
            Evidence(kind="co_engagement", campaign_id=link.source, name=self._name(link.source), weight=link.weight)
            for link in links[:OWN_CAMPAIGNS_PER_ITEM]
        ]

    def _name(self, campaign_id: str) -> str | None:
        column = self._catalogue.position.get(campaign_id)
        return None if column is None else self._catalogue.nodes[column].name

    def _intents(self, item: Item, signals: Signals) -> list[Evidence]:
        if signals.own is None:
            return []
        targeted = self._catalogue.nodes[self._catalogue.position[item.campaign_id]].intents
        return [
            Evidence(kind="intent", intent=name, weight=float(counts[name]), predicted=predicted)
            for counts, predicted in ((signals.own.intents, False), (signals.own.predicted, True))
            for name in sorted((name for name in targeted if name in counts), key=lambda name: (-counts[name], name))
        ]

    def _content(self, item: Item, signals: Signals) -> list[Evidence]:
        """Name the user's own campaign whose text is nearest, where the content component speaks for the item."""
        position = self._catalogue.position
        column = position[item.campaign_id]
        likeness = signals.raw[COMPONENTS.index("content"), column]
        own = [position[c] for c in sorted(taken(signals.own)) if c in position]
        own = [i for i in own if not np.isnan(self._catalogue.vectors[i]).any()]
        if not own or not likeness > 0:
            return []
        cosines = self._catalogue.vectors[own] @ self._catalogue.vectors[column]
        nearest = own[int(np.argmax(cosines))]
        return [
            Evidence(
                kind="content",
                campaign_id=self._catalogue.ids[nearest],
                name=self._catalogue.nodes[nearest].name,
                similarity=round(float(cosines.max()), 4),
            )
        ]

    def _quotes(
        self, neighbours: Sequence[str], signals: Signals, user_id: str | None
    ) -> dict[str, tuple[Quote, Quote | None]]:
        """Return per neighbour the message that is nearest to the user's words, and the user's own one next to it."""
        asked = [*neighbours, user_id] if user_id is not None else list(neighbours)
        by_user: dict[str, list[StoredConversation]] = {user: [] for user in asked}
        for stored in self._stores.documents.of_users(asked):
            by_user[stored.conversation.user_id].append(stored)
        messages = {user: self._messages(conversations) for user, conversations in by_user.items()}
        keys = list(dict.fromkeys(key for said in messages.values() for _, key in said))
        vectors = self._stores.vectors.open(self._generation.build, lagging=True).get("texts", keys)
        said = {u: [(q, vectors[key]) for q, key in found if key in vectors] for u, found in messages.items()}
        own: list[_Said] = said.get(user_id, []) if user_id is not None else []
        quotes: dict[str, tuple[Quote, Quote | None]] = {}
        for neighbour in neighbours:
            if said[neighbour]:
                quotes[neighbour] = _nearest_pair(said[neighbour], own, signals.vector)
        return quotes

    def _messages(self, conversations: Sequence[StoredConversation]) -> list[tuple[Quote, str]]:
        """Return the user's own latest messages, with the key of each one's vector."""
        found: list[tuple[Quote, str]] = []
        for stored in reversed(conversations[-_CONVERSATIONS_READ:]):
            c = stored.conversation
            for index, message in enumerate(c.messages):
                words = normalise_text(message.text, self._settings.max_text_chars) if message.role == "user" else ""
                if words:
                    quote = Quote(conversation_id=c.conversation_id, message_index=index, text=message.text)
                    found.append((quote, text_key(words)))
        # Two who say "hello" are as near as can be, and it tells nothing: short messages only where there is no other.
        telling = [(quote, key) for quote, key in found if len(quote.text) >= _TELLING_CHARS]
        return (telling or found)[:_TEXTS_READ]


def supporters(
    campaign_id: str, edges: Iterable[EngagementEdge], members: Sequence[PoolMember]
) -> list[tuple[PoolMember, EngagementEdge]]:
    """Return the members who took or met the campaign, with what they did, those who count most first.

    Who disliked it is none, whatever else they did.
    """
    by_id = {member.user_id: member for member in members if member.weight > 0}
    theirs = [e for e in edges if e.campaign_id == campaign_id and e.user_id in by_id]
    against = {e.user_id for e in theirs if e.action == "dislike"}
    strongest: dict[str, EngagementEdge] = {}
    for edge in theirs:
        held = strongest.get(edge.user_id)
        if edge.user_id not in against and (held is None or _telling(edge) > _telling(held)):
            strongest[edge.user_id] = edge
    return sorted(
        ((by_id[user_id], edge) for user_id, edge in strongest.items()),
        key=lambda pair: (-ACTION_STRENGTH[pair[1].action] * pair[0].weight, pair[0].user_id),
    )


def _shared(signals: Signals) -> dict[str, set[str]]:
    """Return what the user and each of the users who took the same campaigns have both taken."""
    own = taken(signals.own)
    found: dict[str, set[str]] = {member.user_id: set() for member in signals.alike}
    for edge in signals.edges:
        if edge.user_id in found and edge.campaign_id in own and edge.action in TAKEN:
            found[edge.user_id].add(edge.campaign_id)
    return found


def _telling(edge: EngagementEdge) -> tuple[float, str]:
    return ACTION_STRENGTH[edge.action], edge.action


def _nearest_pair(
    theirs: Sequence[_Said], own: Sequence[_Said], vector: NDArray[np.float32] | None
) -> tuple[Quote, Quote | None]:
    their_matrix = np.stack([v for _, v in theirs])
    if own:
        cosines = their_matrix @ np.stack([v for _, v in own]).T
        row, column = divmod(int(np.argmax(cosines)), cosines.shape[1])
        return theirs[row][0], own[column][0]
    row = int(np.argmax(their_matrix @ vector)) if vector is not None else 0
    return theirs[row][0], None
