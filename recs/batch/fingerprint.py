"""One hash of what all stores hold, the same whichever servers hold it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from recs.bootstrap import Stores
from recs.ingest.canonical import canonical

_DECIMALS = 6


def fingerprint(stores: Stores) -> dict[str, str]:
    """Return the sha256 of each store's logical content, and "all" over them.

    Counted are texts, the campaign catalogue, which conversations, users and campaigns have vectors and of which
    model, relationships, facts, rounded aggregates and consent. Not counted are float vectors and what is measured
    on them, run and generation numbers, times of runs, caches and logs.
    """
    parts = {
        "documents": _digest(_documents(stores)),
        "vectors": _digest(_vectors(stores)),
        "graph": _digest(_graph(stores)),
        "metrics": _digest(_metrics(stores)),
        "state": _digest(_state(stores)),
    }
    return {**parts, "all": _digest(sorted(parts.items()))}


def _documents(stores: Stores) -> Iterator[Any]:
    for stored in stores.documents.scan():
        yield canonical(stored.conversation).decode(), stored.content_hash, stored.position
    for campaign in stores.documents.campaigns():
        yield campaign.model_dump(mode="json")


def _vectors(stores: Stores) -> Iterator[Any]:
    generation = stores.state.generation()
    if generation is None:
        return
    # Weights alone: each machine chooses the arithmetic that is fast on it, and would be another one.
    yield generation.model.rpartition("/")[0]
    index = stores.vectors.open(generation.build)
    for space in ("conversations", "users", "campaigns"):
        yield space
        # Keys come in no order: the sum of their hashes does not depend on one, and is held in bounded memory.
        total = count = 0
        for key in index.keys(space):
            total = (total + int.from_bytes(hashlib.sha256(key.encode()).digest())) % 2**256
            count += 1
        yield count, f"{total:x}"


def _graph(stores: Stores) -> Iterator[Any]:
    for campaign_id, node in sorted(stores.graph.campaigns().items()):
        yield campaign_id, node.name, node.status, node.channel, _time(node.starts_at), _time(node.ends_at)
        yield sorted(node.categories), sorted(node.intents)
    for user_id in stores.graph.user_ids():
        edges = stores.graph.user(user_id)
        if edges is not None:
            yield user_id, sorted(edges.intents.items())
            yield [(e.campaign_id, e.action, e.count, _time(e.last_at)) for e in edges.engagements]
    head = stores.state.head()
    for link in stores.graph.scan_links(head.generation):
        yield link.source, link.target, round(link.weight, _DECIMALS)


def _metrics(stores: Stores) -> Iterator[Any]:
    for fact in stores.metrics.scan_facts():
        yield fact.conversation_id, fact.user_id, fact.campaign_id, fact.action, fact.count, _time(fact.at)
        yield fact.value, fact.currency
    head = stores.state.head()
    ids = sorted(stores.graph.campaigns())
    for campaign_id, row in sorted(stores.metrics.campaign_metrics(head.generation, ids).items()):
        counts = (row.users, row.positive_users, row.views, row.clicks, row.likes, row.converts, row.mentions)
        yield campaign_id, *counts, row.dislikes, round(row.prior, _DECIMALS), _time(row.last_at)


def _state(stores: Stores) -> Iterator[Any]:
    for preferences in stores.state.all_preferences():
        yield preferences.model_dump(mode="json")


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _digest(rows: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=True, default=list).encode() + b"\n")
    return digest.hexdigest()
