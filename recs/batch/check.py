"""Do all stores agree? The raw conversations are the truth; everything else follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from recs.batch.relationships import edges_of, facts_of
from recs.batch.vectors import campaign_text
from recs.bootstrap import Stores
from recs.embed import normalise_text
from recs.model import EngagementFact, StoredConversation

_SHOWN = 5
_BATCH = 500


@dataclass(slots=True)
class Finding:
    """One way in which a store differs."""

    store: str
    what: str
    ids: list[str] = field(default_factory=list)

    def text(self) -> str:
        shown = ", ".join(repr(i) for i in self.ids[:_SHOWN])
        return f"{self.store}: {len(self.ids):,} {self.what}: {shown}{', ...' if len(self.ids) > _SHOWN else ''}"


@dataclass(slots=True)
class CheckReport:
    counts: dict[str, dict[str, int]]
    findings: list[Finding]
    conversations: dict[str, str] = field(default_factory=dict)
    """Conversation to user: what has to be projected again."""

    def as_dict(self) -> dict[str, Any]:
        findings = [
            {"store": f.store, "what": f.what, "count": len(f.ids), "ids": f.ids[:_SHOWN]} for f in self.findings
        ]
        return {"agree": not self.findings, "counts": self.counts, "findings": findings}

    def text(self) -> str:
        lines = [f"{store}: " + ", ".join(f"{n:,} {what}" for what, n in c.items()) for store, c in self.counts.items()]
        lines += [f.text() for f in self.findings]
        lines.append("all stores agree" if not self.findings else "the stores differ; `recs check --repair` mends it")
        return "\n".join(lines)


def check_stores(stores: Stores, *, max_text_chars: int) -> CheckReport:
    """Compare vectors, edges, facts and the catalogue with the raw conversations."""
    report = CheckReport(counts={}, findings=[])
    users: dict[str, list[str]] = {}
    talking: set[str] = set()
    with_words: dict[str, str] = {}
    facts_differ: list[str] = []
    facts = _facts_by_conversation(stores)
    ahead = next(facts, None)
    orphans: list[str] = []
    for stored in stores.documents.scan():
        c = stored.conversation
        users.setdefault(c.user_id, []).append(c.conversation_id)
        if any(normalise_text(text, max_text_chars) for text in c.user_texts()):
            with_words[c.conversation_id] = c.user_id
            talking.add(c.user_id)
        while ahead is not None and ahead[0] < c.conversation_id:
            orphans.append(ahead[0])
            ahead = next(facts, None)
        expected = facts_of(c)
        held: list[EngagementFact] = []
        if ahead is not None and ahead[0] == c.conversation_id:
            held = ahead[1]
            ahead = next(facts, None)
        if held != expected:
            facts_differ.append(c.conversation_id)
            report.conversations[c.conversation_id] = c.user_id
    orphans += [ahead[0]] if ahead is not None else []
    orphans += [conversation_id for conversation_id, _ in facts]
    report.conversations.update((i, "") for i in orphans)
    _find(report, "metrics", "conversations whose facts differ", facts_differ)
    _find(report, "metrics", "conversations with facts that are not stored", orphans)
    _check_vectors(stores, report, with_words, talking, users)
    _check_graph(stores, report, users)
    _check_catalogue(stores, report)
    pending = stores.state.pending()
    _find(report, "state", "conversations that an interrupted run left to be projected", sorted(pending))
    if not pending and stores.state.is_dirty():
        _find(report, "state", "change that is not published yet", ["next publish"])
    head = stores.state.head()
    report.counts = {
        "documents": {"conversations": sum(map(len, users.values())), "users": len(users)},
        "vectors": {"conversations": len(with_words), "users": len(talking)},
        "graph": stores.graph.counts(),
        "metrics": stores.metrics.counts(),
        "state": {"generation": head.generation},
    }
    return report


def repair(stores: Stores, report: CheckReport) -> None:
    """Note everything that differs as pending; the next run of the flow brings it up to date and publishes."""
    nodes = stores.graph.campaigns()
    stores.graph.put_campaigns([c for c in stores.documents.campaigns() if c.campaign_id not in nodes])
    stores.state.add_pending(report.conversations)
    stores.state.mark_dirty()


def _find(report: CheckReport, store: str, what: str, ids: list[str]) -> None:
    if ids:
        report.findings.append(Finding(store, what, sorted(ids)))


def _facts_by_conversation(stores: Stores) -> Iterator[tuple[str, list[EngagementFact]]]:
    for conversation_id, facts in groupby(stores.metrics.scan_facts(), key=lambda f: f.conversation_id):
        yield conversation_id, list(facts)


def _check_vectors(
    stores: Stores, report: CheckReport, with_words: dict[str, str], talking: set[str], users: dict[str, list[str]]
) -> None:
    generation = stores.state.generation()
    if generation is None:
        _find(report, "state", "generation missing", ["nothing was published yet"] if users else [])
        return
    index = stores.vectors.open(generation.build)
    held = set(index.keys("conversations"))
    missing = sorted(with_words.keys() - held)
    beyond = sorted(held - with_words.keys())
    _find(report, "vectors", "conversations without a vector", missing)
    _find(report, "vectors", "vectors of conversations that are not stored or say nothing", beyond)
    report.conversations.update((i, with_words[i]) for i in missing)
    report.conversations.update((i, "") for i in beyond)
    of_users = set(index.keys("users"))
    for what, ids in (
        ("users without a vector", talking - of_users),
        ("vectors of users without words", of_users - talking),
    ):
        _find(report, "vectors", what, sorted(ids))
        for user_id in ids:
            report.conversations.update((i, user_id) for i in users.get(user_id, [user_id]))


def _check_graph(stores: Stores, report: CheckReport, users: dict[str, list[str]]) -> None:
    known = set(stores.graph.user_ids())
    _find(report, "graph", "users missing", sorted(users.keys() - known))
    _find(report, "graph", "users without a conversation", sorted(known - users.keys()))
    differ: list[str] = []
    ids = sorted(users)
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        conversations: dict[str, list[StoredConversation]] = {user_id: [] for user_id in batch}
        for stored in stores.documents.of_users(batch, texts=False):
            conversations[stored.conversation.user_id].append(stored)
        differ += [
            u for u, theirs in conversations.items() if u in known and stores.graph.user(u) != edges_of(u, theirs)
        ]
    _find(report, "graph", "users whose edges differ", differ)
    for user_id in {*differ, *(users.keys() ^ known)}:
        report.conversations.update((i, user_id) for i in users.get(user_id, [user_id]))


def _check_catalogue(stores: Stores, report: CheckReport) -> None:
    raw = {c.campaign_id: c for c in stores.documents.campaigns()}
    nodes = stores.graph.campaigns()
    _find(report, "graph", "campaigns missing", sorted(raw.keys() - nodes.keys()))
    _find(report, "graph", "campaigns that are not in the catalogue", sorted(nodes.keys() - raw.keys()))
    generation = stores.state.generation()
    if generation is not None:
        held = set(stores.vectors.open(generation.build).keys("campaigns"))
        described = {i for i, c in raw.items() if normalise_text(campaign_text(c), 10_000)}
        _find(report, "vectors", "campaigns without a vector", sorted(described - held))
