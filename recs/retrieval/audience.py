"""Who should get a campaign: candidates from the graph and the vectors, scored exactly as for the users themselves."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from recs.bootstrap import Stores
from recs.embed.vectors import unit
from recs.errors import StoreUnavailableError
from recs.model import TAKEN, Audience, AudienceMember
from recs.ranking import rank_order
from recs.retrieval.scoring import Scorer

#: Users scored for one audience at least, and per member asked for; each costs one retrieval.
_CONSIDER_AT_LEAST = 50
_CONSIDER_PER_MEMBER = 1.5
_EDGES_READ = 5_000
_THREADS = 8


def candidates(stores: Stores, scorer: Scorer, campaign_id: str, *, limit: int) -> tuple[list[str], set[str]]:
    """Return users to consider, most promising first, and the stores that did not answer.

    They come from three sides in turn: users who talk like those who took the campaign, users who took campaigns
    that lead to it, users with an intent that it targets.
    """
    degraded: set[str] = set()
    generation, catalogue = scorer.generation, scorer.catalogue
    node = catalogue.nodes[catalogue.position[campaign_id]]
    sides: list[list[str]] = []
    try:
        edges = stores.graph.engaged_with([campaign_id], _EDGES_READ)
        takers = sorted({e.user_id for e in edges if e.action in ("like", "convert", "click")})
        links = stores.graph.co_engaging(campaign_id, generation.number)
        leading = [x.source for x in sorted(links, key=lambda x: (-x.weight, x.source)) if x.weight > 0][:10]
        strength: dict[str, float] = {}
        weight = {x.source: x.weight for x in links}
        for edge in stores.graph.engaged_with(leading, _EDGES_READ):
            if edge.action in TAKEN:
                strength[edge.user_id] = strength.get(edge.user_id, 0.0) + weight[edge.campaign_id]
        sides.append(sorted(strength, key=lambda user: (-strength[user], user)))
        shares = stores.graph.users_with_intents(node.intents, _EDGES_READ)
        sides.append([user for user, _, _ in sorted(shares, key=lambda row: (-row[2], row[0]))])
    except StoreUnavailableError as exc:
        degraded.add(exc.store)
        takers = []
    try:
        index = stores.vectors.open(generation.build, lagging=True)
        heard = list(index.get("users", takers[:500]).values())
        column = catalogue.vectors[catalogue.position[campaign_id]]
        if heard:
            target = unit(np.stack(heard).mean(axis=0) - np.asarray(generation.centre))
        elif not np.isnan(column).any():
            target = column
        else:
            target = None
        if target is not None:
            sides.insert(0, [hit.key for hit in index.search("users", target, min(limit, 1000))])
    except StoreUnavailableError as exc:
        degraded.add(exc.store)
    in_turn: dict[str, None] = {}
    for place in range(max(map(len, sides), default=0)):
        for side in sides:
            if place < len(side):
                in_turn[side[place]] = None
    return list(in_turn)[:limit], degraded


def audience_of(stores: Stores, scorer: Scorer, campaign_id: str, *, limit: int) -> Audience:
    """Return at most `limit` users, best first; a user's score is the one that `recommend` gives the campaign."""
    considered = max(_CONSIDER_AT_LEAST, int(limit * _CONSIDER_PER_MEMBER))
    users, degraded = candidates(stores, scorer, campaign_id, limit=considered)
    column = scorer.catalogue.position[campaign_id]
    suppressed: Counter[str] = Counter()
    found: list[AudienceMember] = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="recs-audience") as executor:
        for user, signals in zip(users, executor.map(scorer.signals, users), strict=True):
            degraded |= signals.degraded
            if signals.preferences is not None and not signals.preferences.profiling:
                suppressed["profiling_opt_out"] += 1
                continue
            scored = scorer.score(signals)
            reason = scored.reasons[column]
            if reason is not None:
                suppressed[reason] += 1
                continue
            score = float(scored.scores[column])
            found.append(AudienceMember(user_id=user, rank=0, score=score, breakdown=scored.breakdown(column)))
    order = rank_order(np.array([m.score for m in found]), [m.user_id for m in found])
    members = [found[i].model_copy(update={"rank": rank}) for rank, i in enumerate(order[:limit].tolist(), start=1)]
    return Audience(
        campaign_id=campaign_id,
        name=scorer.catalogue.nodes[column].name,
        generation=scorer.generation.number,
        considered=len(users),
        degraded=sorted(degraded),
        members=members,
        suppressed=dict(sorted(suppressed.items())),
    )
