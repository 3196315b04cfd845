"""Taking one user out of every store."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from recs.bootstrap import Stores
from recs.embed import normalise_text, text_key
from recs.errors import BuildMissingError
from recs.ingest.quarantine import Quarantine
from recs.model import StoredConversation
from recs.settings import Settings
from recs.stores.ports import SPACES


def erase_user(stores: Stores, settings: Settings, user_id: str) -> dict[str, Any]:
    """Remove a user from every store, every vector build and the quarantine; return a receipt per store.

    May be run again after it was cut off. The raw conversations, which tell what else there is, go last. Cached
    answers are stale from then on; the aggregates forget the user with the next publish. Raises RunError where a
    vector build is only partly there and a run, which may be making it, is going on.
    """
    conversations = stores.documents.of_users([user_id])
    ids = [s.conversation.conversation_id for s in conversations]
    keys = _text_keys(conversations, settings.max_text_chars)
    receipt: dict[str, Any] = {"user_id": user_id, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    builds = stores.vectors.builds()
    for build in builds:
        try:
            index = stores.vectors.open(build)
        except BuildMissingError:
            # A run was killed while it made or dropped it. What is left may hold vectors, and nobody reads it.
            with stores.state.run_lock(f"erase-{uuid.uuid4().hex[:12]}"):
                stores.vectors.drop(build)
            continue
        index.delete("users", [user_id])
        index.delete_owner("conversations", user_id)
        # A text's vector is kept under the text alone; whoever said the same gets it back when it is next needed.
        index.delete("texts", keys)
        # Serving reads vectors without waiting for the latest; after this it no longer finds the user's.
        for space in SPACES:
            index.count(space)
    receipt["vectors"] = {"builds": len(builds), "texts": len(keys), "conversations": len(ids)}
    known = stores.graph.user(user_id)
    stores.graph.delete_users([user_id])
    receipt["graph"] = {"users": int(known is not None), "engagements": len(known.engagements) if known else 0}
    receipt["metrics"] = {"facts": stores.metrics.delete_user(user_id)}
    receipt["quarantine"] = {"entries": Quarantine(settings.home / "quarantine").erase([user_id, *ids])}
    receipt["state"] = {"records": stores.state.delete_user(user_id)}
    receipt["documents"] = {"conversations": stores.documents.delete_user(user_id)}
    stores.state.mark_dirty()
    stores.state.bump_revision()
    receipt["cache"] = {"entries": stores.cache.clear()}
    return receipt


def _text_keys(conversations: list[StoredConversation], max_chars: int) -> list[str]:
    texts = [text for s in conversations for text in s.conversation.user_texts()]
    return sorted({text_key(words) for words in (normalise_text(t, max_chars) for t in texts) if words})
