"""What the pages say, as plain sentences. No Streamlit and no markup here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from app.dashboard.lookup import Profile, View
from recs.explain import COMPONENT_NAMES, describe_evidence
from recs.model import TAKEN, Evidence, Item, Preferences
from recs.ranking.filters import REASONS

_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

#: Store role to what a person misses, and what still counts.
_WITHOUT = {
    "vectors": "The vector store does not answer: similar users and likeness of content are left out; what goes with "
    "the user's own campaigns, intents and popularity still count.",
    "graph": "The graph store does not answer: what users took, and the intents they have, are left out.",
    "metrics": "The analytics store does not answer: popularity is left out; everything else still counts.",
    "documents": "The store of conversations does not answer: quotes and the number of conversations are left out; "
    "the scores are complete.",
    "cache": "The cache does not answer: every answer is computed anew, which takes a moment longer and is otherwise "
    "the same.",
    "state": "The state store does not answer: consent and the current generation cannot be looked up.",
}
ROLE_NAMES = {
    "vectors": "vector store",
    "graph": "graph store",
    "metrics": "analytics store",
    "documents": "store of conversations",
    "cache": "cache",
    "state": "state store",
}


def number(value: float) -> str:
    """Return a score or a part of one with two or three significant digits, and a true minus sign."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if size < 0.005:
        return "0"
    text = f"{size:,.0f}" if size >= 100 else f"{size:.1f}" if size >= 10 else f"{size:.2f}"
    return f"\u2212{text}" if value < 0 else text


def counted(count: int, noun: str) -> str:
    """Return "1 conversation", "1,200 conversations"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def ago(at: datetime, now: datetime) -> str:
    """Return how long ago something was, to the coarsest unit that says it."""
    days = (now - at).days
    if days < 0:
        return "in the future"
    for size, unit in ((365, "year"), (30, "month"), (7, "week"), (1, "day")):
        if days >= size:
            return f"{counted(days // size, unit)} ago"
    return "today"


def intent_words(intent: str) -> str:
    return intent.replace("_", " ")


def finding(view: View, who: str | None = None) -> str:
    """Return the answer to the page's question as one sentence, without its full stop; `who` stands for the id."""
    answer = view.answer
    who = "somebody who says this" if answer.user_id is None else answer.user_id if who is None else who
    if not answer.items:
        return f"Nothing may be offered to {who}"
    top = answer.items[0]
    if answer.strategy == "popular":
        return f"{_why_popular(view, who)}: what is popular, {top.name} first"
    return f"Offer {top.name} to {who}: {_lead(view, top)}"


def _why_popular(view: View, who: str) -> str:
    profile = view.profile
    if profile is not None and not profile.profiling:
        return f"{who} does not want to be profiled"
    if view.missing:
        return f"Too little can be looked up of {who} now"
    if profile is not None and profile.known:
        return f"Too little is known of {who}"
    return f"{who} is not known"


def _lead(view: View, item: Item) -> str:
    """Return what speaks most for an item."""
    leading = max(item.breakdown, key=lambda part: part.contribution, default=None)
    if leading is None or leading.contribution <= 0:
        return "nothing speaks for it, less against it than against the rest"
    takers = sum(item.campaign_id in similar.took for similar in view.similar)
    of = len(view.similar)
    # The neighbourhood says it best, wherever it says anything; it is what people can look at.
    if takers >= 2 and of and leading.component in ("similar_users", "engaged_alike", "co_engagement"):
        return f"{_count_word(takers)} of the {_count_word(of)} users who talk most alike took it"
    match leading.component:
        case "similar_users":
            return "users who talk alike took it"
        case "engaged_alike":
            return "users who took the same campaigns took it"
        case "co_engagement":
            strongest = next((e.campaign_id for e in item.evidence if e.kind == "co_engagement"), None)
            return "it goes with " + (
                "what they took" if strongest is None else f"{view.name(strongest)}, which they took"
            )
        case "intent":
            # An intent may be there twice, as labelled and as predicted.
            intents = dict.fromkeys(intent_words(e.intent) for e in item.evidence if e.kind == "intent" and e.intent)
            return f"it is meant for {_list_words(list(intents)) or 'what they ask about'}"
        case "content":
            return "its text is close to what they took" if _owns(view) else "its text is close to their words"
        case "engagement_prior":
            return "it is popular, and little else speaks for anything"
        case other:
            return f"{COMPONENT_NAMES.get(other, other)} speaks for it"


def _owns(view: View) -> bool:
    edges = view.profile.edges if view.profile is not None else None
    return edges is not None and any(e.action in TAKEN for e in edges.engagements)


def how_found(view: View) -> str:
    """Return the line under the finding where the answer is not what was asked for; empty otherwise."""
    if view.answer.strategy == "popular" and view.answer.items:
        return (
            "This is the popular list, the same for everybody of whom nothing may be used. Check the id, or switch to "
            "“What somebody said” and paste their words."
        )
    if not view.answer.items:
        return "Every campaign is held back; the reasons are below."
    return ""


def evidence_sentence(evidence: Evidence, view: View, who: str | None = None) -> str:
    """Return a piece of evidence as a sentence without the quotes, campaigns by name; `who` stands for the other id."""
    user_id = evidence.user_id if who is None or evidence.user_id is None else who
    shown = evidence.model_copy(update={"user_id": user_id, "quote": None, "own_quote": None})
    if shown.campaign_id is not None and shown.name is None:
        shown.name = view.name(shown.campaign_id)
    sentence = describe_evidence(shown)
    return sentence if sentence.endswith(".") else f"{sentence}."


def consent(preferences: Preferences | None) -> str:
    """Return what a user allows."""
    if preferences is None:
        return "no opt-outs on record"
    if not preferences.allows_any_channel():
        said = "wants no campaigns"
    elif preferences.channels is None:
        said = "all channels allowed"
    elif isinstance(preferences.channels, dict):
        named = sorted(c for c in preferences.channels if c != "*")
        no = [c for c in named if not preferences.channels[c]]
        yes = [c for c in named if preferences.channels[c]]
        only = preferences.channels.get("*", True) is False
        said = f"only {_list_words(yes)} allowed" if only else f"no {_list_words(no, 'or')}" if no else "all channels"
    else:
        said = f"only {_list_words(sorted(preferences.channels))} allowed"
    return said if preferences.profiling else f"no profiling, {said}"


def took_words(profile: Profile) -> list[tuple[str, int]]:
    """Return actions with the number of campaigns of each, strongest first, those without any left out."""
    if profile.edges is None:
        return []
    per = {"convert": "converted", "like": "liked", "click": "clicked", "view": "seen", "dislike": "disliked"}
    counts = {said: sum(e.action == action for e in profile.edges.engagements) for action, said in per.items()}
    return [(said, count) for said, count in counts.items() if count]


def left_out(view: View) -> list[tuple[str, list[str]]]:
    """Return reasons in words, in the order of `REASONS`, each with the campaigns held back for it."""
    found: dict[str, list[str]] = {}
    for one in view.answer.suppressed:
        found.setdefault(one.reason, []).append(one.campaign_id)
    known: dict[str, str] = {str(reason): said for reason, said in REASONS.items()}
    order = [*(r for r in known if r in found), *(r for r in found if r not in known)]
    return [(_capital(known.get(reason, reason)), found[reason]) for reason in order]


def missing_sentence(role: str) -> str:
    """Return what is missing without a store, and what still counts."""
    return _WITHOUT.get(role, f"The {role} store does not answer.")


def _count_word(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else f"{count:,}"


def _list_words(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
