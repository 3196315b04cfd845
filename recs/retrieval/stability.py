"""How much of a list stays when one of the person's own messages had not been said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from recs.bootstrap import Stores
from recs.embed import conversation_vector, normalise_text, text_key
from recs.errors import StoreUnavailableError
from recs.model import LeftOut, Stability
from recs.retrieval.counterfactual import WhatIf
from recs.settings import Settings

#: Campaigns that are compared.
TOP = 5
#: Messages that are left out, one at a time, at most: the latest.
TURNS = 20


def overlap(before: Sequence[str], after: Sequence[str]) -> float:
    """Return the share, in [0, 1], of the campaigns `before` that are in `after`; raises ValueError if none is."""
    if not before:
        raise ValueError("the overlap with an empty list is not defined")
    return len(set(before) & set(after)) / len(before)


def stability(
    turns: Sequence[tuple[str | None, int, str]],
    top: Sequence[str],
    top_without: Callable[[int], Sequence[str]] | None,
    *,
    user_id: str | None,
    generation: int,
    k: int,
    limit: int,
) -> Stability:
    """Return what stays of `top` as each of the latest `limit` turns is left out, by `top_without(its position)`.

    `turns` are (conversation, message index, text), old to new; `top_without` is None where none can be left out.
    """
    found = []
    for place in range(len(turns) - 1, max(-1, len(turns) - 1 - limit), -1):
        if top_without is None or not top:
            break
        conversation_id, message_index, text = turns[place]
        after = top_without(place)
        found.append(
            LeftOut(
                conversation_id=conversation_id,
                message_index=message_index,
                text=text,
                overlap=overlap(top, after),
                entered=[c for c in after if c not in top],
                left=[c for c in top if c not in after],
            )
        )
    shares = [turn.overlap for turn in found]
    return Stability(
        user_id=user_id,
        generation=generation,
        k=k,
        top=list(top),
        mean=sum(shares) / len(shares) if shares else None,
        lowest=min(shares, default=None),
        messages=len(turns),
        turns=found,
    )


def stability_of_user(
    what_if: WhatIf, stores: Stores, settings: Settings, user_id: str, *, k: int, limit: int
) -> Stability:
    """Return how much of a user's first k campaigns hangs on single messages.

    A message that is left out is gone from the words alone: the conversation keeps its label and its engagements,
    while an intent that was predicted from its words is predicted again. Raises StoreUnavailableError where documents
    or vectors do not answer.
    """
    conversations = stores.documents.of_users([user_id])
    turns: list[tuple[str | None, int, str]] = []
    keys: list[str] = []
    places: list[tuple[str, list[int]]] = []
    for stored in conversations:
        c = stored.conversation
        said: list[int] = []
        for index, message in enumerate(c.messages):
            words = normalise_text(message.text, settings.max_text_chars) if message.role == "user" else ""
            if words:
                said.append(len(turns))
                places.append((c.conversation_id, said))
                keys.append(text_key(words))
                turns.append((c.conversation_id, index, message.text))
    if turns and what_if.known.vector is None:
        raise StoreUnavailableError("vectors", f"does not have the words of user {user_id!r}")
    latest = _keys_needed(places, keys, limit)
    texts = what_if.index().get("texts", latest)
    if len(texts) < len(latest):
        raise StoreUnavailableError("vectors", f"does not have all words of user {user_id!r} yet")
    vectors = what_if.vectors_of(conversations)

    def top_without(place: int) -> list[str]:
        conversation_id, said = places[place]
        rest = [texts[keys[other]] for other in said if other != place]
        changed: dict[str, NDArray[np.float32]] = {i: v for i, v in vectors.items() if i != conversation_id}
        if rest:
            changed[conversation_id] = conversation_vector(np.stack(rest))
        return what_if.standing(what_if.with_conversations(conversations, changed)).top(k)

    found = stability(
        turns,
        what_if.before.top(k),
        top_without,
        user_id=user_id,
        generation=what_if.generation,
        k=k,
        limit=limit,
    )
    return found.model_copy(update={"degraded": sorted(what_if.known.degraded)})


def _keys_needed(places: Sequence[tuple[str, Sequence[int]]], keys: Sequence[str], limit: int) -> list[str]:
    """Return the keys of all texts of the conversations that the latest `limit` turns are of, each once."""
    return list(dict.fromkeys(keys[other] for _, said in places[-limit:] for other in said))
