"""A small data set whose answers can be worked out in the head, written straight into the stores."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np

from recs.bootstrap import Stores
from recs.embed import Encoder, normalise_text, text_key
from recs.model import (
    Campaign,
    CoEngagement,
    Conversation,
    EngagementEdge,
    EngagementFact,
    Generation,
    Message,
    Preferences,
    StoredConversation,
    UserEdges,
)
from recs.stores.ports import VectorRecord

AT = datetime(2026, 3, 1, 10, tzinfo=UTC)
BUILD = "apitests"
DIM = 384

ODD_IDS = [
    "a/b",
    "a//b/",
    "x/neighbours",
    "/",
    ".",
    "..",
    "🦊👩‍🚀",
    'it\'s "quoted"',
    "100%",
    "%2F",
    "%",
    "a?b#c&d=e;f",
    "a+b c",
    " ",
    "line\nbreak",
    "<script>alert(1)</script>",
    "back\\slash",
    "{user_id}",
    "naïve",
    "jane@example.com",
    "u" * 250,
    "長" * 200,
]

ECHO_TEXT = "I need a quiet keyboard for the office"
BEN_TEXT = "My card 4111 1111 1111 1111 was charged twice, write to ben@example.com"
ANNA_TEXT = "Call me at +44 20 7946 0958 about the desk"


def axis(*parts: float) -> np.ndarray:
    """Return a vector of these first components, the rest 0."""
    vector = np.zeros(DIM, dtype=np.float32)
    vector[: len(parts)] = parts
    return vector


def fill(stores: Stores, encoder: Encoder) -> None:
    """Write the data set. What anna gets can be worked out in the head.

    Values that stand out among the eleven campaigns are divided by constants that make round numbers of them.
    similar_users (weight 1): ben and carl are equally near to her, half the say each. Both like k1: 1. Ben converts on
    k2: .5. Carl clicks k3: .4 / 2 = .2.
    co_engagement (weight 2): k0, which she converted on, leads to k3 with .25: .5.
    intent (weight 4): half of her conversations are about cancelling, which k4 targets: 2.
    engagement_prior (weight .125): at most ln(3) / 8 = .14, which changes no rank.
    """
    stores.graph.put_campaigns(
        [
            Campaign(campaign_id="k0", name="Lamps"),
            Campaign(campaign_id="k1", name="Desks"),
            Campaign(campaign_id="k2", name="Chairs"),
            Campaign(campaign_id="k3", name="Shelves"),
            Campaign(campaign_id="k4", name="Stay with us", intents=("cancel",)),
            Campaign(campaign_id="k5", name="Rugs"),
            Campaign(campaign_id="k6", name="By post", channel="post"),
            Campaign(campaign_id="k7", name="Paused", status="paused"),
            Campaign(campaign_id="k8", name="Over", ends_at=AT),
            Campaign(campaign_id="k9", name="Soon", starts_at=datetime(2999, 1, 1, tzinfo=UTC)),
            Campaign(campaign_id="echo/campaign", name="Keyboards"),
        ]
    )
    edges = [
        EngagementEdge("anna", "k0", "convert", 1, AT),
        EngagementEdge("anna", "k5", "dislike", 1, AT),
        EngagementEdge("ben@example.com", "k1", "like", 1, AT),
        EngagementEdge("ben@example.com", "k2", "convert", 1, AT),
        EngagementEdge("carl", "k1", "like", 1, AT),
        EngagementEdge("carl", "k3", "click", 1, AT),
        EngagementEdge("echo", "echo/campaign", "like", 1, AT),
        EngagementEdge("hidden", "k2", "dislike", 1, AT),
        *(EngagementEdge(odd, "k0", "convert", 1, AT) for odd in ODD_IDS),
    ]
    users = list(dict.fromkeys(edge.user_id for edge in edges))
    stores.graph.put_users(
        [
            UserEdges(
                user,
                tuple(edge for edge in edges if edge.user_id == user),
                {"cancel": 1, "buy": 1} if user == "anna" else {},
            )
            for user in users
        ]
    )
    stores.graph.put_co_engagement(1, [CoEngagement("k0", "k3", 0.25)])

    echo = encoder.encode([normalise_text(ECHO_TEXT, 1000)])[0].copy()
    echo[:4] = 0  # so that echo is no neighbour of anybody else
    echo /= np.linalg.norm(echo)
    index = stores.vectors.create(BUILD, DIM)
    vectors = {
        "anna": axis(1),
        "ben@example.com": axis(0.8, 0.6),
        "carl": axis(0.8, 0, 0.6),
        "hidden": axis(1),
        "echo": echo,
        **{odd: axis(0, 0, 0, 1) for odd in ODD_IDS},
    }
    index.upsert("users", [VectorRecord(user, vector) for user, vector in vectors.items()])
    said = {"ben@example.com": BEN_TEXT, "anna": ANNA_TEXT}
    index.upsert("texts", [VectorRecord(text_key(normalise_text(text, 1000)), axis(1)) for text in said.values()])
    index.flush()
    stores.documents.insert(
        [
            StoredConversation(
                Conversation(
                    conversation_id=f"conversation of {user}",
                    user_id=user,
                    started_at=AT,
                    messages=(Message(role="agent", text="Hello"), Message(role="user", text=text)),
                ),
                content_hash=user,
                position=1,
                run_id="r1",
            )
            for user, text in said.items()
        ]
    )
    counted = [edge for edge in edges if edge.user_id not in ODD_IDS]
    stores.metrics.replace_facts(
        [f"c {edge.user_id}" for edge in counted],
        [EngagementFact(f"c {e.user_id}", e.user_id, e.campaign_id, e.action, e.count, e.last_at) for e in counted],
    )
    stores.metrics.aggregate(1, newest_at=AT, half_life_days=180)
    stores.state.put_preferences(
        [
            Preferences(user_id="hidden", profiling=False),
            Preferences(user_id="nothing", channels=()),
            Preferences(user_id="no post", channels={"post": False}),
        ]
    )
    stores.state.publish(
        Generation(
            number=1,
            build=BUILD,
            model=encoder.identity,
            run_id="r1",
            published_at=AT,
            newest_at=AT,
            weights={
                "similar_users": 1,
                "engaged_alike": 0,
                "co_engagement": 2,
                "intent": 4,
                "content": 0,
                "engagement_prior": 0.125,
            },
            scales={"similar_users": math.sqrt(11 / (1 + 0.5**2 + 0.2**2)), "co_engagement": math.sqrt(11) / 0.25},
            centre=(0.0,) * DIM,
            users=len(users),
        )
    )
