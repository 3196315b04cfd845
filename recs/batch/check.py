"""Do all stores agree? The raw conversations are the truth; everything else follows from them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from recs.batch.intents import Predictor
from recs.batch.vectors import campaign_text
from recs.bootstrap import Stores
from recs.edges import edges_of, facts_of
from recs.embed import normalise_text
from recs.errors import BuildMissingError
from recs.model import Campaign, EngagementFact, StoredConversation
from recs.stores.ports import CampaignNode, VectorIndex

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
    _check_aggregates(stores, report)
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
    """Note everything that differs as pending; the next run of the flow brings it up to date and publishes.

    Raises RunError while a run is going on.
    """
    with stores.state.run_lock(f"repair-{uuid.uuid4().hex[:12]}"):
        _repair_catalogue(stores)
        if stores.state.generation() is None:
            # Nobody knows which model they are of.
            for build in stores.vectors.builds():
                stores.vectors.drop(build)
        stores.state.add_pending(report.conversations)
        stores.state.mark_dirty()
        # Where the state store went back to an earlier time, generations will bear the numbers of lost ones.
        stores.cache.clear()


def _repair_catalogue(stores: Stores) -> None:
    raw = {c.campaign_id: c for c in stores.documents.campaigns()}
    nodes = stores.graph.campaigns()
    missing, stray, differing = _compared(raw, nodes)
    # A status is set on the node while serving, and stays.
    renewed = [raw[i].model_copy(update={"status": nodes[i].status}) for i in differing]
    stores.graph.put_campaigns([raw[i] for i in missing] + renewed)
    # A catalogue that is lost as a whole comes back from its file; until then its campaigns go on.
    if raw:
        stores.graph.delete_campaigns(stray)
        index = _current_index(stores)
        if index is not None:
            index.delete("campaigns", [i for i in index.keys("campaigns") if i not in raw])


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
        if users:
            _find(report, "state", "generation missing", ["nothing was published yet"])
            report.conversations.update((i, user_id) for user_id, theirs in users.items() for i in theirs)
        return
    index = _current_index(stores)
    if index is None:
        _find(report, "vectors", "build missing", [generation.build])
    held = set() if index is None else set(index.keys("conversations"))
    missing = sorted(with_words.keys() - held)
    beyond = sorted(held - with_words.keys())
    _find(report, "vectors", "conversations without a vector", missing)
    _find(report, "vectors", "vectors of conversations that are not stored or say nothing", beyond)
    report.conversations.update((i, with_words[i]) for i in missing)
    report.conversations.update((i, "") for i in beyond)
    of_users = set() if index is None else set(index.keys("users"))
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
    generation, index = stores.state.generation(), _current_index(stores)
    # Without vectors, which are reported as such, nobody can tell what is predicted.
    predictor = None if generation is None or index is None else Predictor(stores, index, generation.model)
    ids = sorted(users)
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        conversations: dict[str, list[StoredConversation]] = {user_id: [] for user_id in batch}
        for stored in stores.documents.of_users(batch, texts=False):
            conversations[stored.conversation.user_id].append(stored)
        predicted = predictor.intents([s for theirs in conversations.values() for s in theirs]) if predictor else {}
        for user_id, theirs in conversations.items():
            held = stores.graph.user(user_id) if user_id in known else None
            if held is not None:
                expected = edges_of(user_id, theirs, predicted)
                if held != (expected if predictor else replace(expected, predicted=held.predicted)):
                    differ.append(user_id)
    _find(report, "graph", "users whose edges differ", differ)
    for user_id in {*differ, *(users.keys() ^ known)}:
        report.conversations.update((i, user_id) for i in users.get(user_id, [user_id]))


def _check_catalogue(stores: Stores, report: CheckReport) -> None:
    raw = {c.campaign_id: c for c in stores.documents.campaigns()}
    missing, stray, differing = _compared(raw, stores.graph.campaigns())
    _find(report, "graph", "campaigns missing", missing)
    _find(report, "graph", "campaigns that are not in the catalogue", stray)
    _find(report, "graph", "campaigns that differ from the catalogue", differing)
    index = _current_index(stores)
    if index is not None:
        held = set(index.keys("campaigns"))
        described = {i for i, c in raw.items() if normalise_text(campaign_text(c), 10_000)}
        _find(report, "vectors", "campaigns without a vector", sorted(described - held))
        _find(report, "vectors", "vectors of campaigns that are not in the catalogue", sorted(held - raw.keys()))


def _compared(raw: Mapping[str, Campaign], nodes: Mapping[str, CampaignNode]) -> tuple[list[str], list[str], list[str]]:
    """Return the campaigns that have no node, the nodes that no campaign has, and the campaigns whose node differs.

    The status is not compared: it is set on the node alone while serving.
    """
    differing = [i for i in sorted(raw.keys() & nodes.keys()) if _node_of(raw[i], nodes[i].status) != nodes[i]]
    return sorted(raw.keys() - nodes.keys()), sorted(nodes.keys() - raw.keys()), differing


def _node_of(campaign: Campaign, status: str) -> CampaignNode:
    return CampaignNode(
        campaign.campaign_id,
        campaign.name,
        status,
        campaign.channel,
        campaign.starts_at,
        campaign.ends_at,
        tuple(campaign.categories),
        tuple(sorted(set(campaign.intents))),
    )


def _check_aggregates(stores: Stores, report: CheckReport) -> None:
    """Find a generation whose aggregates are lost: a store was restored to a time before it was published."""
    generation = stores.state.generation()
    run = None if generation is None else stores.state.run(generation.run_id)
    if generation is None or run is None or stores.state.is_dirty():
        return
    links = sum(1 for _ in stores.graph.scan_links(generation.number))
    if links < run.counts.get("co_engagement_links", 0):
        _find(report, "graph", "generation without all of its co-engagement links", [str(generation.number)])
    rows = len(stores.metrics.campaign_metrics(generation.number, sorted(stores.graph.campaigns())))
    if rows < run.counts.get("campaigns_with_metrics", 0):
        _find(report, "metrics", "generation without all of its campaign metrics", [str(generation.number)])


def _current_index(stores: Stores) -> VectorIndex | None:
    """Return the vectors of the current generation, None where there is none, or its vectors are lost."""
    generation = stores.state.generation()
    try:
        return None if generation is None else stores.vectors.open(generation.build)
    except BuildMissingError:
        return None  # which is reported as such
