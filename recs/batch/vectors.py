"""Texts to vectors, and vectors into the index."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recs.bootstrap import Stores
from recs.embed import TextEncoder, conversation_vector, normalise_text, text_key, user_vector
from recs.embed.vectors import unit
from recs.model import Campaign, StoredConversation
from recs.stores.ports import VectorIndex, VectorRecord

_RECENT_TEXTS = 50_000
#: Users that the mean is taken over.
CENTRE_USERS = 5_000


@dataclass(slots=True)
class EmbeddedBatch:
    """What one batch of conversations adds to the index."""

    texts: list[VectorRecord] = field(default_factory=list)
    """Texts that were encoded for this batch."""
    conversations: list[VectorRecord] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    """Conversations in which the user said nothing that can be embedded, or that are not stored any more."""


class Embedder:
    """Encodes each distinct text once: what the index holds, or what was encoded a moment ago, is not encoded again."""

    def __init__(self, encoder: TextEncoder, index: VectorIndex, *, max_text_chars: int) -> None:
        self._encoder = encoder
        self._index = index
        self._max_text_chars = max_text_chars
        # Vectors that may not have reached the index yet, because loading runs behind encoding.
        self._recent: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def vectors(self, texts: Sequence[str]) -> tuple[list[str], dict[str, NDArray[np.float32]], list[VectorRecord]]:
        """Return the key of each text ("" where nothing is left of it), the vectors by key, and the newly encoded."""
        words = [normalise_text(text, self._max_text_chars) for text in texts]
        keys = [text_key(w) if w else "" for w in words]
        by_key = {key: w for key, w in zip(keys, words, strict=True) if key}
        # One at a time: the encoder takes all cores anyway, and two batches may share a text.
        with self._lock:
            known, new = self._known_and_new(by_key)
        return keys, known, new

    def _known_and_new(self, by_key: dict[str, str]) -> tuple[dict[str, NDArray[np.float32]], list[VectorRecord]]:
        known = {key: self._recent[key] for key in by_key if key in self._recent}
        known.update(self._index.get("texts", [key for key in by_key if key not in known]))
        missing = [key for key in by_key if key not in known]
        encoded = self._encoder.encode([by_key[key] for key in missing])
        new = [VectorRecord(key, vector) for key, vector in zip(missing, encoded, strict=True)]
        for record in new:
            known[record.key] = record.vector
            self._recent[record.key] = record.vector
        while len(self._recent) > _RECENT_TEXTS:
            self._recent.popitem(last=False)
        return known, new


def embed_conversations(stores: Stores, embedder: Embedder, conversation_ids: Sequence[str]) -> EmbeddedBatch:
    """Return the vectors of these conversations: the mean of those of the user's own messages."""
    batch = EmbeddedBatch()
    conversations = [stored.conversation for stored in stores.documents.get(conversation_ids)]
    texts = [text for c in conversations for text in c.user_texts()]
    keys, vectors, batch.texts = embedder.vectors(texts)
    stored = {c.conversation_id for c in conversations}
    batch.silent += [i for i in conversation_ids if i not in stored]
    start = 0
    for c in conversations:
        count = len(c.user_texts())
        said = [vectors[key] for key in keys[start : start + count] if key]
        start += count
        if said:
            vector = conversation_vector(np.stack(said))
            batch.conversations.append(VectorRecord(c.conversation_id, vector, owner=c.user_id))
        else:
            batch.silent.append(c.conversation_id)
    return batch


def load_embedded(index: VectorIndex, batch: EmbeddedBatch) -> None:
    """Put a batch into the index; texts first, so that whatever is cut off can be continued without encoding again."""
    index.upsert("texts", batch.texts)
    index.upsert("conversations", batch.conversations)
    index.delete("conversations", batch.silent)


def load_campaign_vectors(embedder: Embedder, index: VectorIndex, campaigns: Sequence[Campaign]) -> None:
    """Put the vectors of the campaigns' own words into the index, where they are not there already."""
    keys, vectors, new = embedder.vectors([campaign_text(c) for c in campaigns])
    index.upsert("texts", new)
    held = index.get("campaigns", [c.campaign_id for c in campaigns])
    changed, silent = [], []
    for campaign, key in zip(campaigns, keys, strict=True):
        before = held.get(campaign.campaign_id)
        if not key and before is not None:
            silent.append(campaign.campaign_id)
        elif key and (before is None or not np.array_equal(before, vectors[key])):
            changed.append(VectorRecord(campaign.campaign_id, vectors[key]))
    index.upsert("campaigns", changed)
    index.delete("campaigns", silent)


def campaign_text(campaign: Campaign) -> str:
    """Return what of a campaign is embedded: its name, description and categories."""
    name = "" if campaign.name == campaign.campaign_id else f"{campaign.name}."
    categories = ", ".join(campaign.categories).replace("_", " ")
    return " ".join(part for part in (name, campaign.description or "", categories) if part)


def load_user_vectors(
    stores: Stores,
    index: VectorIndex,
    user_ids: Sequence[str],
    *,
    half_life_days: float,
) -> int:
    """Compute and store these users' vectors from all their conversations; returns how many have one."""
    conversations: dict[str, list[StoredConversation]] = {user_id: [] for user_id in user_ids}
    for stored in stores.documents.of_users(user_ids, texts=False):
        conversations[stored.conversation.user_id].append(stored)
    ids = [s.conversation.conversation_id for theirs in conversations.values() for s in theirs]
    vectors = index.get("conversations", ids)
    records, silent = [], []
    for user_id, theirs in conversations.items():
        vector = user_vector(theirs, vectors, half_life_days)
        if vector is None:
            silent.append(user_id)
        else:
            records.append(VectorRecord(user_id, vector))
    index.upsert("users", records)
    index.delete("users", silent)
    return len(records)


def mean_user(index: VectorIndex, user_ids: Sequence[str], dim: int) -> tuple[float, ...]:
    """Return the mean of these users' vectors, (dim,) as floats; zeros where none has one."""
    total, count = np.zeros(dim), 0
    for start in range(0, len(user_ids), 1000):
        vectors = index.get("users", user_ids[start : start + 1000])
        # Summed in the order asked for: float addition depends on it.
        for user_id in user_ids[start : start + 1000]:
            if user_id in vectors:
                total += unit(vectors[user_id])
                count += 1
    return tuple((total / count).tolist()) if count else (0.0,) * dim
