"""From message vectors to conversation and user vectors. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from recs.model import StoredConversation

#: Half-life in conversations for users whose conversations do not all carry a time.
HALF_LIFE_CONVERSATIONS = 10.0


def unit(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the vector, or each row of a matrix, at length 1; a zero vector stays zero."""
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.asarray(vector / np.where(norm == 0, 1, norm), dtype=np.float32)


def conversation_vector(message_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of a conversation's message vectors, (n_messages, dim) to (dim,). Raises ValueError if empty."""
    if not len(message_vectors):
        raise ValueError("a conversation without a message vector has no vector")
    return np.asarray(np.asarray(message_vectors, dtype=np.float64).mean(axis=0), dtype=np.float32)


def recency_weights(started_at: Sequence[datetime | None], half_life_days: float) -> NDArray[np.float64]:
    """Return a weight in (0, 1] per conversation, given from old to new; the newest weighs 1.

    With a time on every conversation the weight halves every `half_life_days` before the newest one; else it halves
    every 10 conversations. Only weights relative to one another matter, so that a user's vector does not change when
    somebody else says something later.
    """
    times = [t.timestamp() for t in started_at if t is not None]
    if len(times) == len(started_at):
        age_days = (max(times, default=0.0) - np.asarray(times)) / 86400.0
        return np.asarray(np.exp2(-age_days / half_life_days))
    return np.asarray(np.exp2(-np.arange(len(started_at) - 1, -1, -1) / HALF_LIFE_CONVERSATIONS))


def user_vector(
    conversations: Sequence[StoredConversation],
    vectors: Mapping[str, NDArray[np.float32]],
    half_life_days: float,
) -> NDArray[np.float32] | None:
    """Return the recency-weighted mean of a user's conversation vectors at length 1, (dim,).

    `conversations` are sorted from old to new; those without a vector are left out. None where none has one.
    """
    known = [c for c in conversations if c.conversation.conversation_id in vectors]
    if not known:
        return None
    matrix = np.stack([vectors[c.conversation.conversation_id] for c in known]).astype(np.float64)
    weights = recency_weights([c.conversation.started_at for c in known], half_life_days)
    return unit(weights @ matrix / weights.sum())
