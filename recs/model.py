"""Plain data: what comes in, what is stored, what goes out. No driver, no settings.

Times are timezone-aware and in UTC. Ids are opaque strings: they may hold any character.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Role = Literal["user", "agent"]
Action = Literal["view", "click", "like", "convert", "mention", "dislike"]
CampaignStatus = Literal["active", "paused", "ended"]
Strategy = Literal["hybrid", "popular", "text"]

ACTIONS: tuple[Action, ...] = ("view", "click", "like", "convert", "mention", "dislike")

#: How strongly an action speaks for a campaign; a dislike speaks against it. A mention or a view says that the
#: user met the campaign, little more.
ACTION_STRENGTH: Mapping[Action, float] = {
    "view": 0.1,
    "click": 0.4,
    "like": 1.0,
    "convert": 1.0,
    "mention": 0.2,
    "dislike": -1.0,
}


#: Actions by which a user takes a campaign.
TAKEN: frozenset[Action] = frozenset({"like", "convert"})


class _Record(BaseModel):
    """An input record. Keys that are not named here are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Message(_Record):
    role: Role
    text: str
    at: AwareDatetime | None = None


class Engagement(_Record):
    campaign_id: str
    action: Action
    at: AwareDatetime | None = None
    value: float | None = None
    """Worth of a convert, in `currency`."""
    currency: str | None = None


class Conversation(_Record):
    conversation_id: str
    user_id: str
    started_at: AwareDatetime | None = None
    channel: str | None = None
    messages: tuple[Message, ...] = ()
    intent: str | None = None
    engagements: tuple[Engagement, ...] = ()
    seq: float | None = None
    """Order of the conversation where no time is known."""

    def user_texts(self) -> list[str]:
        """Return the texts of the user's own messages that hold anything but white space, in order."""
        return [m.text for m in self.messages if m.role == "user" and m.text.strip()]


class Campaign(_Record):
    campaign_id: str
    name: str
    description: str | None = None
    intents: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    channel: str | None = None
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    status: CampaignStatus = "active"


class Preferences(_Record):
    """What a user allows. The default allows everything."""

    user_id: str
    profiling: bool = True
    """False: the user gets the popular list, and is no evidence for others."""
    channels: dict[str, bool] | tuple[str, ...] | None = None
    """A mapping says yes or no per channel ("*" stands for every other one); a list names the only channels
    allowed; None allows all."""

    def allows_channel(self, channel: str | None) -> bool:
        """Return whether campaigns of a channel may be offered; a campaign without one passes unless all are off."""
        if self.channels is None:
            return True
        if isinstance(self.channels, dict):
            default = self.channels.get("*", True)
            return default if channel is None else self.channels.get(channel, default)
        return bool(self.channels) if channel is None else channel in self.channels

    def allows_any_channel(self) -> bool:
        """Return False for a user who wants no campaigns at all."""
        if isinstance(self.channels, dict):
            return self.channels.get("*", True) or any(self.channels.values())
        return self.channels is None or bool(self.channels)


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """A conversation as the document store holds it."""

    conversation: Conversation
    content_hash: str
    position: int
    """1-based place in the file it came from; orders conversations that have neither a time nor a seq."""
    run_id: str

    def order_key(self) -> tuple[int, float, int, str]:
        """Return a key that sorts a user's conversations from old to new: started_at, else seq, else position."""
        c = self.conversation
        if c.started_at is not None:
            return (1, c.started_at.timestamp(), self.position, c.conversation_id)
        if c.seq is not None:
            return (0, c.seq, self.position, c.conversation_id)
        return (0, float(self.position), self.position, c.conversation_id)


@dataclass(frozen=True, slots=True)
class Change:
    """A conversation whose content changed under the same id."""

    conversation_id: str
    old_hash: str
    new_hash: str
    run_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class EngagementEdge:
    """(:User)-[:ENGAGED_WITH {action, count, last_at}]->(:Campaign), one per user, campaign and action."""

    user_id: str
    campaign_id: str
    action: Action
    count: int
    last_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UserEdges:
    """All edges that leave one user; writing them replaces what was there."""

    user_id: str
    engagements: tuple[EngagementEdge, ...] = ()
    intents: Mapping[str, int] = field(default_factory=dict)
    """Intent to the number of the user's conversations that are labelled with it."""
    predicted: Mapping[str, int] = field(default_factory=dict)
    """Intent to the number of the user's conversations without a label that the classifier takes for it."""

    def known_intents(self) -> dict[str, int]:
        """Return intent to conversations, labelled or predicted, sorted by intent."""
        names = sorted({*self.intents, *self.predicted})
        return {name: self.intents.get(name, 0) + self.predicted.get(name, 0) for name in names}


@dataclass(frozen=True, slots=True)
class CoEngagement:
    """(:Campaign)-[:CO_ENGAGED {weight, generation}]->(:Campaign); what engaging with `source` says of `target`."""

    source: str
    target: str
    weight: float


@dataclass(frozen=True, slots=True)
class EngagementFact:
    """One row of the analytics store: what one conversation says of one campaign and action."""

    conversation_id: str
    user_id: str
    campaign_id: str
    action: Action
    count: int
    at: datetime | None
    """The engagement's own time, else the conversation's start; the latest where there are several."""
    value: float | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class CampaignMetrics:
    """Engagement with one campaign, aggregated by the SQL engine for one generation."""

    campaign_id: str
    users: int
    """Distinct users with any action."""
    positive_users: int
    """Distinct users who liked or converted."""
    views: int
    clicks: int
    likes: int
    converts: int
    mentions: int
    dislikes: int
    prior: float
    """ln(1 + recency-weighted count of positive users), >= 0."""
    last_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """What one publish made current. `number` counts up from 1; `build` names the vector collections."""

    number: int
    build: str
    model: str
    run_id: str
    published_at: datetime
    newest_at: datetime | None
    weights: Mapping[str, float]
    scales: Mapping[str, float]
    """Component to the constant that its raw values are divided by."""
    centre: tuple[float, ...] = ()
    """The mean user vector, which similarity is measured from."""
    users: int = 0
    text_weights: Mapping[str, float] = field(default_factory=dict)
    """Weights for somebody of whom only words are known, where they differ from `weights`."""
    fit: Mapping[str, Any] = field(default_factory=dict)
    """How the weights were learned, from what, and what they gained; empty where they are the default."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where readers stand: the current generation's number, 0 before the first publish, and a counter that every
    live change (consent, erasure, campaign status) moves. Both are part of every cache key."""

    generation: int
    revision: int


class BreakdownPart(BaseModel):
    component: str
    weight: float
    value: float | None = Field(description="Normalised value of the component; null where it knows nothing.")
    contribution: float = Field(description="weight x value, to within 5e-10; the contributions sum to the score.")


class Quote(BaseModel):
    conversation_id: str
    message_index: int
    text: str


class Evidence(BaseModel):
    kind: Literal["neighbour", "engaged_alike", "intent", "co_engagement", "content"]
    user_id: str | None = None
    similarity: float | None = None
    action: str | None = None
    at: datetime | None = None
    intent: str | None = None
    predicted: bool | None = Field(default=None, description="For intent: whether it was predicted, not labelled.")
    campaign_id: str | None = Field(default=None, description="For co_engagement and content: the user's own campaign.")
    name: str | None = Field(default=None, description="Name of that campaign.")
    weight: float | None = None
    quote: Quote | None = None
    own_quote: Quote | None = Field(default=None, description="The user's own message that the quote resembles most.")


class Item(BaseModel):
    rank: int
    campaign_id: str
    name: str
    score: float
    breakdown: list[BreakdownPart]
    evidence: list[Evidence] = []


class Suppressed(BaseModel):
    campaign_id: str
    reason: str


class Recommendations(BaseModel):
    """The answer to one request; the shape that the REST sidecar, the CLI and the workbench share."""

    user_id: str | None
    recommendation_id: str
    generation: int
    strategy: Strategy
    cached: bool = False
    degraded: list[str] = []
    items: list[Item]
    suppressed: list[Suppressed] = []


class Neighbour(BaseModel):
    user_id: str
    similarity: float = Field(description="Cosine of the two users' vectors after the mean user is taken off, -1 to 1.")


class AudienceMember(BaseModel):
    user_id: str
    score: float
    rank: int
    breakdown: list[BreakdownPart]


class Audience(BaseModel):
    """Who should get a campaign, best first."""

    campaign_id: str
    name: str
    generation: int
    considered: int = Field(description="Users that were scored.")
    degraded: list[str] = []
    members: list[AudienceMember]
    suppressed: dict[str, int] = Field(description="Reason to the number of users left out for it.")


class _Answer(BaseModel):
    """Part of an answer; not changed once it is made."""

    model_config = ConfigDict(frozen=True)


class PartChange(_Answer):
    """What one component contributes to a score before and after something is taken away."""

    component: str
    before: float
    after: float
    difference: float = Field(description="after - before; the differences sum to that of the score.")


class Move(_Answer):
    """One campaign before and after something is taken away."""

    campaign_id: str
    name: str
    rank_before: int | None = Field(description="Among the campaigns that may be offered; null for one that may not.")
    rank_after: int | None
    reason_before: str | None = Field(default=None, description="Why it may not be offered.")
    reason_after: str | None = None
    score_before: float
    score_after: float
    difference: float = Field(description="score_after - score_before.")
    parts: list[PartChange]


TakenAway = Literal["neighbour", "conversation", "campaign"]


class Counterfactual(_Answer):
    """What a user's list would be without one neighbour, one own conversation or one own campaign."""

    user_id: str
    generation: int
    without: TakenAway
    without_id: str
    without_name: str | None = Field(default=None, description="Of a campaign.")
    degraded: list[str] = []
    k: int
    items: list[Move] = Field(description="The k best before and those that come in, or the one that was asked for.")
    entered: list[str] = Field(description="Campaigns among the k best after that were not before, best first.")
    left: list[str] = Field(description="Campaigns among the k best before that are not after, best first.")


class Effect(_Answer):
    """What taking one thing away does to one campaign."""

    without: TakenAway
    without_id: str
    without_name: str | None = None
    move: Move


class Voice(_Answer):
    """A neighbour who met a campaign and did not take it."""

    user_id: str
    group: Literal["talks_alike", "took_alike"]
    similarity: float
    weight: float = Field(description="Share of the group's say.")
    action: Action = Field(description="The strongest thing they did; a dislike overrules the rest.")
    at: datetime | None = Field(default=None, description="When they did it last.")


class Opinion(_Answer):
    """What one group of neighbours did with a campaign, each once: numbers sum to `users`, shares to 1."""

    group: Literal["talks_alike", "took_alike"]
    users: int = Field(description="Neighbours who count at all: those with a similarity above 0.")
    took: int
    met: int = Field(description="Viewed, clicked or mentioned it, no more.")
    disliked: int = Field(description="Whatever else they did.")
    never_met: int
    took_share: float = Field(description="The same, each neighbour weighted as in the score.")
    met_share: float
    disliked_share: float
    never_met_share: float


class Dissent(_Answer):
    """Who of the neighbours speaks for a campaign, and who met it and did not take it."""

    opinions: list[Opinion]
    voices: list[Voice] = Field(description="Those who met or disliked it, those who count most first.")
    more_voices: int = Field(description="Further ones that are not listed.")


class Explanation(_Answer):
    """What the place of one campaign in a user's list hangs on."""

    user_id: str
    campaign_id: str
    name: str
    generation: int
    degraded: list[str] = []
    rank: int | None = Field(description="Null where it may not be offered.")
    reason: str | None = Field(default=None, description="Why it may not be offered.")
    score: float
    breakdown: list[BreakdownPart]
    effects: list[Effect] = Field(description="Each taken away by itself; the greatest change of the score first.")
    not_tried: int = Field(description="The user's further conversations and campaigns, whose effect was not computed.")
    dissent: Dissent


class LeftOut(_Answer):
    """The first campaigns of a list with one message left out."""

    conversation_id: str | None = Field(description="Null where only a text is known.")
    message_index: int
    text: str
    overlap: float = Field(description="Share of the first campaigns that are still among them, 0 to 1.")
    entered: list[str]
    left: list[str]


class Stability(_Answer):
    """How much of a list stays when one of the person's own messages had not been said."""

    user_id: str | None
    generation: int
    degraded: list[str] = []
    k: int = Field(description="How many first campaigns are compared.")
    top: list[str] = Field(description="They, with everything said.")
    mean: float | None = Field(description="Mean overlap; null where no message can be left out.")
    lowest: float | None
    messages: int = Field(description="Messages of the person that hold words.")
    turns: list[LeftOut] = Field(description="The latest of them, each left out by itself, latest first.")


Extra = dict[str, Any]
