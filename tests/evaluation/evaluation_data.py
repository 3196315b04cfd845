"""A company small enough to be split in the head."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from recs.evaluation import Dataset
from recs.model import Campaign, Conversation, Engagement, Message, StoredConversation

DAY = datetime(2026, 1, 1, tzinfo=UTC)
POSITIVE = ("like", "convert")


def conversation(name, user_id, day, *engagements, text="hello", said=None, **more):
    """Return a conversation on a day, None for one without a time; engagements are (campaign, action[, day])."""
    at = None if day is None else DAY + timedelta(days=day)
    return Conversation(
        conversation_id=name,
        user_id=user_id,
        started_at=at,
        messages=said or (Message(role="user", text=text),),
        engagements=tuple(
            Engagement(campaign_id=e[0], action=e[1], at=DAY + timedelta(days=e[2]) if len(e) > 2 else None)
            for e in engagements
        ),
        **more,
    )


def dataset(*conversations, campaigns="abcdef", categories=None):
    """Return a data set of these conversations in this order, and one campaign per letter."""
    return Dataset(
        tuple(StoredConversation(c, "", place, "") for place, c in enumerate(conversations, start=1)),
        tuple(
            Campaign(campaign_id=i, name=f"Campaign {i}", categories=(categories or {}).get(i, ())) for i in campaigns
        ),
    )


def trained_on(split):
    """Return the ids of the training conversations."""
    return [s.conversation.conversation_id for s in split.train]
