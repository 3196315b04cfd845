"""Recommendations as sentences and plain text, for the terminal and the workbench."""

from __future__ import annotations

from collections.abc import Mapping

from recs.model import Evidence, Item, Recommendations
from recs.ranking.filters import REASONS

#: What a component is called before marketers, and what it measures.
COMPONENT_NAMES: Mapping[str, str] = {
    "similar_users": "similar users",
    "engaged_alike": "users who took the same",
    "co_engagement": "goes with what they took",
    "intent": "intent",
    "content": "likeness of content",
    "engagement_prior": "popularity",
}
COMPONENT_METHODS: Mapping[str, str] = {
    "similar_users": "How many of the users who talk alike took the campaign, each weighted by the similarity cubed.",
    "engaged_alike": "How many of the users with campaigns in common took this one too, each weighted by how many.",
    "co_engagement": "How strongly the campaigns that the user took lead to this one, by an item-to-item model (EASE).",
    "intent": "The share of the user's conversations whose intent, labelled or predicted, the campaign targets.",
    "content": "How alike the campaign's text is to that of campaigns that the user took, else to the user's words.",
    "engagement_prior": "How many users took the campaign, recent ones counting more.",
}

#: What the methods of an evaluation are called before marketers.
METHOD_NAMES: Mapping[str, str] = {
    "hybrid": "our ranking",
    "random": "chance",
    "popularity": "popularity",
    "popularity_before": "popularity at the time",
    "popularity_by_category": "popularity per category",
    "repeat": "what they met already",
    "item_knn": "campaigns taken together",
    "user_knn": "users who took the same",
    "user_knn_text": "users who talk alike, many",
    "top5_neighbours": "the five who talk most alike",
    "ease": "item-to-item model (EASE)",
    "als": "matrix factorisation (ALS)",
    "bpr": "matrix factorisation (BPR)",
}

_DID = {
    "view": "saw this",
    "click": "clicked on this",
    "like": "liked this",
    "convert": "took this",
    "mention": "mentioned this",
    "dislike": "disliked this",
}
_QUOTE_SHOWN = 110


def describe_evidence(evidence: Evidence) -> str:
    """Return one piece of evidence as a sentence."""
    match evidence.kind:
        case "neighbour":
            when = f" on {evidence.at:%d %B %Y}" if evidence.at else ""
            did = _DID[evidence.action or "view"]
            text = f"{evidence.user_id}, who talks alike ({evidence.similarity:.2f}), {did}{when}"
            if evidence.quote is not None:
                text += f': "{_short(evidence.quote.text)}"'
                if evidence.own_quote is not None:
                    text += f' - compare "{_short(evidence.own_quote.text)}"'
            return text
        case "engaged_alike":
            when = f" on {evidence.at:%d %B %Y}" if evidence.at else ""
            did = _DID[evidence.action or "view"]
            others = int(evidence.weight or 1) - 1
            more = f" and {others} more" if others else ""
            common = evidence.name or evidence.campaign_id or "much of the same"
            return f"{evidence.user_id}, who took {common}{more} like this user, {did}{when}"
        case "co_engagement":
            return f"Users who took {evidence.name or evidence.campaign_id}, as this user did, tend to take this too."
        case "intent":
            times = int(evidence.weight or 0)
            if evidence.predicted:
                return f"It is meant for {_words(evidence.intent)}, which the words point to (predicted, {times}x)."
            return f"It is meant for {_words(evidence.intent)}, which the user asked about {times}x."
        case "content":
            return f"Its text is much like that of {evidence.name or evidence.campaign_id}, which the user took."


def describe_item(item: Item) -> str:
    """Return a ranked campaign with its parts and its evidence, as lines of text."""
    lines = [f"{item.rank:3}. {item.name}  [{item.campaign_id}]  {item.score:.3f}"]
    shown = [
        f"{COMPONENT_NAMES.get(p.component, p.component)} {p.contribution:+.3f}"
        for p in item.breakdown
        if p.contribution
    ]
    lines.append(f"       = {' '.join(shown) or 'nothing speaks for or against it'}")
    lines += [f"       - {describe_evidence(piece)}" for piece in item.evidence]
    return "\n".join(lines)


def describe_recommendations(answer: Recommendations) -> str:
    """Return an answer as text for a terminal."""
    who = f"user {answer.user_id}" if answer.user_id is not None else "these words"
    how = {
        "hybrid": "",
        "popular": " (nothing is known of this user that may be used: what is popular)",
        "text": " (from the words alone)",
    }[answer.strategy]
    lines = [f"Campaigns for {who}{how}, generation {answer.generation}{', cached' if answer.cached else ''}"]
    lines += [describe_item(item) for item in answer.items]
    if not answer.items:
        lines.append("  none may be offered")
    by_reason: dict[str, list[str]] = {}
    for left_out in answer.suppressed:
        by_reason.setdefault(left_out.reason, []).append(left_out.campaign_id)
    for reason, campaigns in by_reason.items():
        lines.append(f"left out, {REASONS.get(reason, reason)}: {', '.join(campaigns)}")  # type: ignore[call-overload]
    if answer.degraded:
        lines.append(f"incomplete: no answer from {', '.join(answer.degraded)}; `recs status` shows more")
    return "\n".join(lines)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _QUOTE_SHOWN else text[: _QUOTE_SHOWN - 1].rstrip() + "…"


def _words(intent: str | None) -> str:
    return (intent or "").replace("_", " ")
