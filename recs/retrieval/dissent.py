"""Who of a user's neighbours speaks for a campaign, and who met it and did not take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from recs.model import ACTION_STRENGTH, TAKEN, Dissent, EngagementEdge, Opinion, Voice
from recs.retrieval.signals import PoolMember, Signals

#: Neighbours of each group that are listed.
VOICES = 10


def dissent_of(campaign_id: str, signals: Signals, *, limit: int = VOICES) -> Dissent:
    """Return what the neighbours did with a campaign, and at most `limit` of each group who did not take it.

    Neighbours are those whose engagements the score counts: of the pools, who is alike at all.
    """
    strongest: dict[str, EngagementEdge] = {}
    for edge in signals.edges:
        if edge.campaign_id == campaign_id:
            held = strongest.get(edge.user_id)
            if held is None or _told(edge) > _told(held):
                strongest[edge.user_id] = edge
    groups: list[tuple[Literal["talks_alike", "took_alike"], Sequence[PoolMember]]] = [
        ("talks_alike", [member for member in signals.pool if member.weight > 0]),
        ("took_alike", [member for member in signals.alike if member.weight > 0]),
    ]
    opinions, voices, more = [], [], 0
    for group, members in groups:
        took, met, disliked, never = list[PoolMember](), list[PoolMember](), list[PoolMember](), list[PoolMember]()
        for member in members:
            edge_of = strongest.get(member.user_id)
            if edge_of is None:
                never.append(member)
            elif edge_of.action == "dislike":
                disliked.append(member)
            else:
                (took if edge_of.action in TAKEN else met).append(member)
        opinions.append(
            Opinion(
                group=group,
                users=len(members),
                took=len(took),
                met=len(met),
                disliked=len(disliked),
                never_met=len(never),
                took_share=_say(took),
                met_share=_say(met),
                disliked_share=_say(disliked),
                never_met_share=_say(never),
            )
        )
        against = sorted([*met, *disliked], key=lambda member: (-member.weight, member.user_id))
        more += max(0, len(against) - limit)
        voices += [
            Voice(
                user_id=member.user_id,
                group=group,
                similarity=round(member.similarity, 4),
                weight=member.weight,
                action=strongest[member.user_id].action,
                at=strongest[member.user_id].last_at,
            )
            for member in against[:limit]
        ]
    return Dissent(opinions=opinions, voices=voices, more_voices=more)


def _told(edge: EngagementEdge) -> tuple[bool, float, str]:
    """Orders what one person did with a campaign by what it tells; a dislike overrules the rest, as in the score."""
    return edge.action == "dislike", ACTION_STRENGTH[edge.action], edge.action


def _say(members: Sequence[PoolMember]) -> float:
    return sum(member.weight for member in members)
