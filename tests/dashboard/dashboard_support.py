"""Small fakes for the pages: they obey the ports as far as a page asks, and can be down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.dashboard.opening import Workbench
from recs.bootstrap import Stores
from recs.errors import InputError, NotFoundError, StoreUnavailableError
from recs.model import (
    BreakdownPart,
    Conversation,
    EngagementEdge,
    Evidence,
    Head,
    Item,
    Message,
    Neighbour,
    Preferences,
    Quote,
    Recommendations,
    StoredConversation,
    Suppressed,
    UserEdges,
)
from recs.settings import Settings
from recs.stores.ports import CampaignNode

AT = datetime(2026, 3, 1, 10, tzinfo=UTC)
NAMES = {"k1": "Nursery <b>starter</b>", "k2": "Garden club", "k3": "Paused *offer*"}


def item(rank: int, campaign_id: str, parts: dict[str, float | None], evidence: Sequence[Evidence] = ()) -> Item:
    """Return an item whose parts have weight 1."""
    breakdown = [
        BreakdownPart(component=name, weight=1.0, value=value, contribution=value or 0.0)
        for name, value in parts.items()
    ]
    score = sum(part.contribution for part in breakdown)
    return Item(
        rank=rank,
        campaign_id=campaign_id,
        name=NAMES[campaign_id],
        score=score,
        breakdown=breakdown,
        evidence=list(evidence),
    )


NEIGHBOUR = Evidence(
    kind="neighbour",
    user_id="n1",
    similarity=0.8,
    action="convert",
    at=AT,
    quote=Quote(conversation_id="c9", message_index=0, text="<script>alert(1)</script> mail me at a@example.com"),
    own_quote=Quote(conversation_id="c1", message_index=0, text="The nursery is still empty"),
)
CO_ENGAGEMENT = Evidence(kind="co_engagement", campaign_id="k1", weight=0.4)


def answer(user_id: str | None, **changed: Any) -> Recommendations:
    """Return an answer with two offers and one campaign held back."""
    offers = [
        item(1, "k1", {"similar_users": 1.5, "co_engagement": None, "intent": 0.25}, [NEIGHBOUR]),
        item(2, "k2", {"similar_users": -0.5, "co_engagement": None, "intent": 0.75}, [CO_ENGAGEMENT]),
    ]
    given: dict[str, Any] = {
        "user_id": user_id,
        "recommendation_id": "r1",
        "generation": 1,
        "strategy": "hybrid",
        "items": offers,
        "suppressed": [Suppressed(campaign_id="k3", reason="campaign_paused")],
    }
    return Recommendations.model_validate(given | changed)


class FakeStores:
    """Every role in one; `down` names the roles that do not answer."""

    def __init__(
        self,
        *,
        down: Sequence[str] = (),
        generation: int = 1,
        preferences: Preferences | None = None,
        artifacts: Mapping[str, bytes] | None = None,
    ) -> None:
        self.down = set(down)
        self._artifacts = artifacts or {}
        self._generation = generation
        self._preferences = preferences

    def stores(self) -> Stores:
        one: Any = self
        return Stores(documents=one, vectors=one, graph=one, metrics=one, state=one, cache=one)

    def _must_answer(self, role: str) -> None:
        if role in self.down:
            raise StoreUnavailableError(role, "no answer")

    def head(self) -> Head:
        self._must_answer("state")
        return Head(self._generation, 0)

    def preferences(self, user_ids: Sequence[str]) -> dict[str, Preferences]:
        self._must_answer("state")
        return {user: self._preferences for user in user_ids if self._preferences is not None}

    def artifact(self, name: str) -> bytes | None:
        self._must_answer("state")
        return self._artifacts.get(name)

    def campaigns(self) -> dict[str, CampaignNode]:
        self._must_answer("graph")
        return {key: CampaignNode(key, name, "active") for key, name in NAMES.items()}

    def user(self, user_id: str) -> UserEdges | None:
        self._must_answer("graph")
        if user_id == "stranger":
            return None
        return UserEdges(user_id, (EngagementEdge(user_id, "k2", "like", 1),), {"nursery_advice": 2})

    def engagements_of(self, user_ids: Sequence[str]) -> list[EngagementEdge]:
        self._must_answer("graph")
        took = {user: [EngagementEdge(user, "k1", "convert", 1)] for user in ("n1", "n2", "one talk")} | {
            "only disliked": [EngagementEdge("only disliked", "k1", "dislike", 1)],
            "u1": [EngagementEdge("u1", "k1", "like", 1), EngagementEdge("u1", "k2", "like", 1)],
        }
        return [edge for user in user_ids for edge in took.get(user, [])]

    def user_ids(self) -> Iterator[str]:
        self._must_answer("graph")
        yield from ("one talk", "only disliked", "u1")

    def of_users(self, user_ids: Sequence[str], *, texts: bool = True) -> list[StoredConversation]:
        self._must_answer("documents")
        talks = {"u1": 3, "one talk": 1}
        said = (Message(role="user", text="Call me on +44 7700 900123 please"),) if texts else ()
        return [
            StoredConversation(
                Conversation(conversation_id=f"{user} {i}", user_id=user, started_at=AT, messages=said), "h", i, "r"
            )
            for user in user_ids
            for i in range(talks.get(user, 0))
        ]


class FakeAnswers:
    """A recommender with one answer for everybody."""

    def __init__(self, fake: FakeStores, **changed: Any) -> None:
        self._fake = fake
        self._changed = changed
        self.asked: list[str] = []

    def recommend(self, user_id: str, *, k: int = 10) -> Recommendations:
        self._fake.head()
        self.asked.append(user_id)
        degraded = sorted(self._fake.down)
        if user_id == "stranger":
            return answer(user_id, strategy="popular", **self._changed)
        return answer(user_id, degraded=degraded, **self._changed)

    def recommend_text(self, texts: Sequence[str], *, k: int = 10) -> Recommendations:
        if not any(text.strip() for text in texts):
            raise InputError("there are no words in the text")
        return answer(None, strategy="text")

    def neighbours(self, user_id: str, *, k: int | None = None) -> list[Neighbour]:
        self._fake._must_answer("vectors")
        if user_id == "stranger":
            raise NotFoundError("no words")
        return [Neighbour(user_id=f"n{i}", similarity=0.9 - i / 10) for i in (1, 2, 3)]


def workbench(fake: FakeStores | None = None, **changed: Any) -> Workbench:
    """Return what a page is handed, on fakes; `changed` are fields of every answer."""
    fake = fake or FakeStores()
    return Workbench(Settings(), fake.stores(), FakeAnswers(fake, **changed))
