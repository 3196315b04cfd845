"""Raw conversations and campaigns into the stores that hold them as they came."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from recs.bootstrap import Stores
from recs.ingest.classify import classify
from recs.ingest.staging import StagedRecord
from recs.model import Campaign, Change, StoredConversation

#: Marks a user whose edges must be computed again because a conversation of theirs went to another user. No id
#: begins with white space, which this control character counts as, so it cannot be the id of a conversation.
_MOVED_FROM = "\x1fmoved-from\x1f"


class RawChanges:
    """What one batch of records changes in the document store, and what its lines count as.

    Not a dataclass: Prefect looks into those when they are passed to a task.
    """

    def __init__(self) -> None:
        self.new: list[StoredConversation] = []
        self.changed: list[StoredConversation] = []
        self.changes: list[Change] = []
        self.loaded = self.updated = self.duplicate = 0

    @property
    def conversation_ids(self) -> list[str]:
        """Ids of the conversations that are to be stored."""
        return [s.conversation.conversation_id for s in (*self.new, *self.changed)]


def compare_raw(stores: Stores, records: Sequence[StagedRecord], *, run_id: str) -> RawChanges:
    """Return what of these records is new or changed; nothing is written.

    Apart from the writing, because that may be done twice: a second look would take for duplicates what the first
    attempt has stored.
    """
    hashes = stores.documents.hashes([r.conversation.conversation_id for r in records])
    found = RawChanges()
    now = datetime.now(UTC)
    for record in records:
        conversation_id = record.conversation.conversation_id
        known = hashes.get(conversation_id)
        what = classify(record.hashes, known)
        found.loaded += what.loaded
        found.updated += what.updated
        found.duplicate += what.duplicate
        if what.write:
            stored = StoredConversation(record.conversation, record.content_hash, record.position, run_id)
            (found.new if known is None else found.changed).append(stored)
            found.changes += what.changes(conversation_id, run_id=run_id, at=now)
    return found


def store_raw(stores: Stores, found: RawChanges) -> None:
    """Store what is new or changed.

    Before a conversation is written it is noted as pending: whatever ends the process, the next run knows that its
    vectors, edges and facts may be behind.
    """
    pending = {s.conversation.conversation_id: s.conversation.user_id for s in (*found.new, *found.changed)}
    moved = stores.documents.get([s.conversation.conversation_id for s in found.changed])
    pending |= {
        _MOVED_FROM + old.conversation.user_id: old.conversation.user_id
        for old in moved
        if old.conversation.user_id != pending[old.conversation.conversation_id]
    }
    stores.state.add_pending(pending)
    stores.documents.record_changes(found.changes)
    stores.documents.insert(found.new)
    stores.documents.replace(found.changed)


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
