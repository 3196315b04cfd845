"""Raw conversations and campaigns into the stores that hold them as they came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from recs.bootstrap import Stores
from recs.ingest.classify import classify
from recs.ingest.staging import StagedRecord
from recs.model import Campaign, Change, StoredConversation

#: Marks a user whose edges must be computed again because a conversation of theirs went to another user. No id
#: begins with white space, which this control character counts as, so it cannot be the id of a conversation.
_MOVED_FROM = "\x1fmoved-from\x1f"


@dataclass(frozen=True, slots=True)
class RawCounts:
    """What one batch of records was to the document store."""

    loaded: int = 0
    updated: int = 0
    duplicate: int = 0
    written: tuple[str, ...] = field(default=(), repr=False)
    """Ids of the conversations that were stored."""


def load_raw(stores: Stores, records: Sequence[StagedRecord], *, run_id: str) -> RawCounts:
    """Store what is new or changed.

    Before a conversation is written it is noted as pending: whatever ends the process, the next run knows that its
    vectors, edges and facts may be behind.
    """
    hashes = stores.documents.hashes([r.conversation.conversation_id for r in records])
    new: list[StoredConversation] = []
    changed: list[StoredConversation] = []
    changes: list[Change] = []
    loaded = updated = duplicate = 0
    now = datetime.now(UTC)
    for record in records:
        conversation_id = record.conversation.conversation_id
        known = hashes.get(conversation_id)
        what = classify(record.hashes, known)
        loaded, updated, duplicate = loaded + what.loaded, updated + what.updated, duplicate + what.duplicate
        if what.write:
            stored = StoredConversation(record.conversation, record.content_hash, record.position, run_id)
            (new if known is None else changed).append(stored)
            changes += what.changes(conversation_id, run_id=run_id, at=now)
    pending = {s.conversation.conversation_id: s.conversation.user_id for s in (*new, *changed)}
    moved = stores.documents.get([s.conversation.conversation_id for s in changed])
    pending |= {
        _MOVED_FROM + old.conversation.user_id: old.conversation.user_id
        for old in moved
        if old.conversation.user_id != pending[old.conversation.conversation_id]
    }
    stores.state.add_pending(pending)
    stores.documents.record_changes(changes)
    stores.documents.insert(new)
    stores.documents.replace(changed)
    written = tuple(s.conversation.conversation_id for s in (*new, *changed))
    return RawCounts(loaded, updated, duplicate, written)


def load_campaigns(stores: Stores, campaigns: Sequence[Campaign]) -> list[Campaign]:
    """Upsert campaigns that are new or changed, and return them; those that are not named stay as they are."""
    known = {c.campaign_id: c for c in stores.documents.campaigns()}
    graph = stores.graph.campaigns()
    changed = [c for c in campaigns if known.get(c.campaign_id) != c or c.campaign_id not in graph]
    if changed:
        stores.state.mark_dirty()
        stores.graph.put_campaigns(changed)
        # Last, because it is what the next run compares with.
        stores.documents.put_campaigns(changed)
    return changed
