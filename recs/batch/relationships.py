"""Graph edges and engagement facts, brought up to date from raw conversations."""

from __future__ import annotations

from collections.abc import Sequence

from recs.batch.intents import Predictor
from recs.bootstrap import Stores
from recs.edges import edges_of, facts_of
from recs.model import StoredConversation


def load_facts(stores: Stores, conversation_ids: Sequence[str]) -> int:
    """Bring the facts of these conversations up to date; returns how many facts they have."""
    facts = [fact for stored in stores.documents.get(conversation_ids) for fact in facts_of(stored.conversation)]
    stores.metrics.replace_facts(conversation_ids, facts)
    return len(facts)


def load_relationships(stores: Stores, user_ids: Sequence[str], predictor: Predictor | None = None) -> int:
    """Bring the edges of these users up to date; returns how many engagement edges they have.

    Conversations without an intent get the one that `predictor` takes them for.
    """
    conversations: dict[str, list[StoredConversation]] = {user_id: [] for user_id in user_ids}
    for stored in stores.documents.of_users(user_ids, texts=False):
        conversations[stored.conversation.user_id].append(stored)
    predicted = predictor.intents([s for theirs in conversations.values() for s in theirs]) if predictor else {}
    edges = [edges_of(user_id, theirs, predicted) for user_id, theirs in conversations.items() if theirs]
    stores.graph.put_users(edges)
    stores.graph.delete_users([user_id for user_id, theirs in conversations.items() if not theirs])
    return sum(len(e.engagements) for e in edges)
