"""What goes in and out over REST beyond the shapes of `recs.model`, and an example of each."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from recs.model import Neighbour, Role

MAX_TEXT_CHARS = 20_000
MAX_MESSAGES = 100
MAX_K = 100

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]


class MessageIn(BaseModel):
    """One message of a conversation. Only those of role user are read."""

    model_config = ConfigDict(extra="ignore")

    role: Role = "user"
    text: Text


class TextRequest(BaseModel):
    """Somebody who is not known yet: `text`, or `messages` as in a conversation."""

    model_config = ConfigDict(extra="forbid")

    text: Text | None = None
    messages: Annotated[list[MessageIn], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    k: int = Field(default=10, ge=1, le=MAX_K, description="Campaigns to return at most.")
    explain: bool = Field(default=False, description="Whether to return evidence, under pseudonyms.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give either text or messages")
        return self

    def texts(self) -> list[str]:
        """Return the person's own texts, in order."""
        if self.text is not None:
            return [self.text]
        return [message.text for message in self.messages or () if message.role == "user"]


class Neighbours(BaseModel):
    """The users who talk most like a user, nearest first. Their ids are pseudonyms."""

    user_id: str
    generation: int
    neighbours: list[Neighbour]


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class StoreState(BaseModel):
    product: str
    milliseconds: float


class Readiness(BaseModel):
    status: Literal["ready"] = "ready"
    generation: int
    stores: dict[str, StoreState]


class Version(BaseModel):
    version: str = Field(description="Of the package.")
    api: str
    model: str = Field(description="The embedding model: the generation's, or the one that is set before the first.")
    generation: int | None = Field(description="0 before the first publish, null where the state store is down.")
    libraries: dict[str, str]


_PARTS = [
    {"component": "similar_users", "weight": 1.0, "value": 0.5, "contribution": 0.5},
    {"component": "co_engagement", "weight": 1.0, "value": 0.25, "contribution": 0.25},
    {"component": "intent", "weight": 0.5, "value": None, "contribution": 0.0},
]

RECOMMENDATIONS_EXAMPLE: dict[str, Any] = {
    "user_id": "u1",
    "recommendation_id": "3f0c9e52b8c94f0f9f6a4f4f6f0d2f11",
    "generation": 4,
    "strategy": "hybrid",
    "cached": False,
    "degraded": [],
    "items": [
        {
            "rank": 1,
            "campaign_id": "k1",
            "name": "Spring desks",
            "score": 0.75,
            "breakdown": _PARTS,
            "evidence": [
                {
                    "kind": "neighbour",
                    "user_id": "p_5b1f0c2d9a3e4711",
                    "similarity": 0.8312,
                    "action": "convert",
                    "at": "2026-03-01T10:00:00Z",
                    "quote": {
                        "conversation_id": "p_0a9b8c7d6e5f4321",
                        "message_index": 0,
                        "text": "I need a desk for two screens, write to [e-mail]",
                    },
                }
            ],
        }
    ],
    "suppressed": [{"campaign_id": "k2", "reason": "already_converted"}],
}

NEIGHBOURS_EXAMPLE: dict[str, Any] = {
    "user_id": "u1",
    "generation": 4,
    "neighbours": [{"user_id": "p_5b1f0c2d9a3e4711", "similarity": 0.8312}],
}

_MOVE = {
    "campaign_id": "k1",
    "name": "Spring desks",
    "rank_before": 1,
    "rank_after": 3,
    "reason_before": None,
    "reason_after": None,
    "score_before": 0.75,
    "score_after": 0.5,
    "difference": -0.25,
    "parts": [{"component": "similar_users", "before": 0.5, "after": 0.25, "difference": -0.25}],
}

COUNTERFACTUAL_EXAMPLE: dict[str, Any] = {
    "user_id": "u1",
    "generation": 4,
    "without": "neighbour",
    "without_id": "p_5b1f0c2d9a3e4711",
    "without_name": None,
    "degraded": [],
    "k": 2,
    "items": [_MOVE],
    "entered": ["k4"],
    "left": ["k1"],
}

EXPLANATION_EXAMPLE: dict[str, Any] = {
    "user_id": "u1",
    "campaign_id": "k1",
    "name": "Spring desks",
    "generation": 4,
    "degraded": [],
    "rank": 1,
    "reason": None,
    "score": 0.75,
    "breakdown": _PARTS,
    "effects": [
        {"without": "neighbour", "without_id": "p_5b1f0c2d9a3e4711", "without_name": None, "move": _MOVE},
    ],
    "not_tried": 0,
    "dissent": {
        "opinions": [
            {
                "group": "talks_alike",
                "users": 4,
                "took": 1,
                "met": 1,
                "disliked": 0,
                "never_met": 2,
                "took_share": 0.5,
                "met_share": 0.125,
                "disliked_share": 0.0,
                "never_met_share": 0.375,
            }
        ],
        "voices": [
            {
                "user_id": "p_77aa0c2d9a3e4711",
                "group": "talks_alike",
                "similarity": 0.41,
                "weight": 0.125,
                "action": "view",
                "at": "2026-03-01T10:00:00Z",
            }
        ],
        "more_voices": 0,
    },
}

STABILITY_EXAMPLE: dict[str, Any] = {
    "user_id": "u1",
    "generation": 4,
    "degraded": [],
    "k": 5,
    "top": ["k1", "k3", "k4", "k6", "k8"],
    "mean": 0.8,
    "lowest": 0.8,
    "messages": 1,
    "turns": [
        {
            "conversation_id": "c1",
            "message_index": 0,
            "text": "I need a desk for two screens, write to [e-mail]",
            "overlap": 0.8,
            "entered": ["k9"],
            "left": ["k8"],
        }
    ],
}

AUDIENCE_EXAMPLE: dict[str, Any] = {
    "campaign_id": "k1",
    "name": "Spring desks",
    "generation": 4,
    "considered": 150,
    "degraded": [],
    "members": [{"user_id": "u1", "score": 0.75, "rank": 1, "breakdown": _PARTS}],
    "suppressed": {"already_converted": 12},
}
