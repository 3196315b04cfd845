"""From conversations to what they say of campaigns: facts of one conversation, edges of one user. No store is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from recs.model import Action, Conversation, EngagementEdge, EngagementFact, StoredConversation, UserEdges


def facts_of(conversation: Conversation) -> list[EngagementFact]:
    """Return a conversation's engagements, one fact per campaign and action, in order of both."""
    grouped: dict[tuple[str, Action], list[tuple[datetime | None, float | None, str | None]]] = {}
    for e in conversation.engagements:
        at = e.at or conversation.started_at
        grouped.setdefault((e.campaign_id, e.action), []).append((at, e.value, e.currency))
    facts = []
    for (campaign_id, action), rows in sorted(grouped.items()):
        times = [at for at, _, _ in rows if at is not None]
        currencies = {currency for _, value, currency in rows if value is not None}
        # Sums over different currencies mean nothing.
        summable = len(currencies) == 1
        facts.append(
            EngagementFact(
                conversation_id=conversation.conversation_id,
                user_id=conversation.user_id,
                campaign_id=campaign_id,
                action=action,
                count=len(rows),
                at=max(times, default=None),
                value=sum(value for _, value, _ in rows if value is not None) if summable else None,
                currency=currencies.pop() if summable else None,
            )
        )
    return facts


def edges_of(
    user_id: str, conversations: Sequence[StoredConversation], predicted: Mapping[str, str] | None = None
) -> UserEdges:
    """Return all edges that leave a user, from all the user's conversations.

    `predicted` maps ids of conversations without a label to the intents that they are taken for.
    """
    counts: Counter[tuple[str, Action]] = Counter()
    latest: dict[tuple[str, Action], datetime] = {}
    intents: Counter[str] = Counter()
    taken_for: Counter[str] = Counter()
    for stored in conversations:
        if stored.conversation.intent:
            intents[stored.conversation.intent] += 1
        elif predicted and stored.conversation.conversation_id in predicted:
            taken_for[predicted[stored.conversation.conversation_id]] += 1
        for fact in facts_of(stored.conversation):
            key = (fact.campaign_id, fact.action)
            counts[key] += fact.count
            if fact.at is not None:
                latest[key] = max(fact.at, latest.get(key, fact.at))
    return UserEdges(
        user_id=user_id,
        engagements=tuple(
            EngagementEdge(user_id, campaign_id, action, count, latest.get((campaign_id, action)))
            for (campaign_id, action), count in sorted(counts.items())
        ),
        intents=dict(sorted(intents.items())),
        predicted=dict(sorted(taken_for.items())),
    )
