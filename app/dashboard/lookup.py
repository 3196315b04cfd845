"""Everything that the page of a user shows, from `recs` calls alone. No Streamlit here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TypeVar

from app.dashboard.opening import Workbench
from recs.bootstrap import Stores
from recs.errors import NotFoundError, StoreUnavailableError
from recs.model import Neighbour, Preferences, Recommendations, StoredConversation, UserEdges
from recs.privacy import mask_text
from recs.retrieval.signals import strengths, taken

T = TypeVar("T")
D = TypeVar("D")

#: How many campaigns are offered and similar users shown.
OFFERED = 10
SHOWN_NEIGHBOURS = 5
_EXAMPLE_CANDIDATES = 100
#: An example took something, and has something left to take.
_EXAMPLE_TOOK = range(2, 6)
#: More conversations than this make an example no better.
_ENOUGH_CONVERSATIONS = 8


@dataclass(frozen=True, slots=True)
class Profile:
    """What is on record of a user; a part is None where its store did not answer."""

    conversations: int | None
    last_at: datetime | None
    edges: UserEdges | None
    edges_known: bool
    preferences: Preferences | None

    @property
    def known(self) -> bool:
        return bool(self.conversations) or self.edges is not None

    @property
    def profiling(self) -> bool:
        return self.preferences is None or self.preferences.profiling


@dataclass(frozen=True, slots=True)
class SimilarUser:
    """A neighbour, and the campaigns that they liked or converted on."""

    neighbour: Neighbour
    took: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """One answer with what surrounds it."""

    answer: Recommendations
    names: Mapping[str, str]
    """Campaign to its name; lacks those that could not be looked up."""
    profile: Profile | None = None
    similar: tuple[SimilarUser, ...] = ()
    missing: tuple[str, ...] = field(default=())
    """Roles of the stores that did not answer, sorted."""

    def name(self, campaign_id: str) -> str:
        return self.names.get(campaign_id, campaign_id)


class _Missing:
    """Calls stores, and keeps in mind which did not answer."""

    def __init__(self) -> None:
        self.roles: set[str] = set()

    def ask(self, role: str, call: Callable[[], T], default: D) -> T | D:
        """Return what the call returns; the default where the store is known to be down or is found to be."""
        if role in self.roles:
            return default
        try:
            return call()
        except StoreUnavailableError as exc:
            self.roles.add(exc.store)
            return default


def look_up_user(bench: Workbench, user_id: str) -> View:
    """Return what would be offered to a user, and why.

    Raises StoreUnavailableError where the recommender has no honest answer without the store, and NotFoundError
    before the first publish.
    """
    stores, missing = bench.stores, _Missing()
    answer = bench.recommender.recommend(user_id, k=OFFERED)
    missing.roles.update(answer.degraded)
    preferences = missing.ask("state", lambda: stores.state.preferences([user_id]), None)
    conversations = missing.ask("documents", lambda: stores.documents.of_users([user_id], texts=False), None)
    edges = missing.ask("graph", lambda: stores.graph.user(user_id), None)
    profile = Profile(
        conversations=None if conversations is None else len(conversations),
        last_at=_latest(conversations or []),
        edges=edges,
        edges_known="graph" not in missing.roles,
        preferences=preferences.get(user_id) if preferences else None,
    )
    similar = missing.ask("vectors", lambda: _similar(bench, user_id, missing), ())
    return View(answer, _names(stores, answer, missing), profile, similar, tuple(sorted(missing.roles)))


def look_up_words(bench: Workbench, words: str) -> View:
    """Return what would be offered to somebody of whom these words are known; each line counts as a message.

    Raises InputError where there are no words, and otherwise as `look_up_user`.
    """
    missing = _Missing()
    answer = bench.recommender.recommend_text(words.splitlines(), k=OFFERED)
    missing.roles.update(answer.degraded)
    return View(answer, _names(bench.stores, answer, missing), missing=tuple(sorted(missing.roles)))


def example_user(stores: Stores) -> str | None:
    """Return a user worth opening with: one with several conversations and engagements who may be profiled.

    Looks at the first users by id alone, which takes the same time with any number of them. None where nobody among
    them has an engagement. Raises StoreUnavailableError.
    """
    seen = list(islice(stores.graph.user_ids(), _EXAMPLE_CANDIDATES))
    took = Counter(user for (user, _), s in strengths(stores.graph.engagements_of(seen)).items() if s >= 1.0)
    talks = Counter(s.conversation.user_id for s in stores.documents.of_users(seen, texts=False))
    opted_out = {user for user, wishes in stores.state.preferences(seen).items() if not wishes.profiling}

    def rank(user: str) -> tuple[bool, int, str]:
        return took[user] not in _EXAMPLE_TOOK, -min(talks[user], _ENOUGH_CONVERSATIONS), user

    return min((user for user in seen if took[user] and user not in opted_out), key=rank, default=None)


def example_words(stores: Stores, user_id: str) -> str:
    """Return a user's latest first message, contact data masked; empty where there is none."""
    said = [stored.conversation.user_texts() for stored in stores.documents.of_users([user_id])]
    return next((mask_text(texts[0]) for texts in reversed(said) if texts), "")


def _similar(bench: Workbench, user_id: str, missing: _Missing) -> tuple[SimilarUser, ...]:
    try:
        neighbours = bench.recommender.neighbours(user_id, k=SHOWN_NEIGHBOURS)
    except NotFoundError:
        return ()  # not known, or not to be profiled: the page says which
    ids = [n.user_id for n in neighbours]
    edges = missing.ask("graph", lambda: bench.stores.graph.engagements_of(ids), ())
    took: dict[str, list[str]] = {user: [] for user in ids}
    for user in ids:
        own = UserEdges(user, tuple(edge for edge in edges if edge.user_id == user))
        took[user] = sorted(taken(own))
    return tuple(SimilarUser(n, tuple(took[n.user_id])) for n in neighbours)


def _names(stores: Stores, answer: Recommendations, missing: _Missing) -> dict[str, str]:
    nodes = missing.ask("graph", stores.graph.campaigns, None) or {}
    return {key: node.name for key, node in nodes.items()} | {item.campaign_id: item.name for item in answer.items}


def _latest(conversations: list[StoredConversation]) -> datetime | None:
    return max((s.conversation.started_at for s in conversations if s.conversation.started_at), default=None)
