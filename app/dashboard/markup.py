"""Parts of pages as HTML. Everything that comes from data goes through `text`, which makes it inert."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from app.dashboard import words
from app.dashboard.lookup import View
from app.dashboard.style import colour
from recs.explain import COMPONENT_NAMES
from recs.model import BreakdownPart, Evidence, Item, Quote
from recs.privacy import mask_text

_QUOTE_SHOWN = 220
#: Stands for an id in a sentence until the sentence is HTML; no text that was typed holds it.
_ID = "\x00"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>$:&^=])")


def text(value: str) -> str:
    """Return a text as HTML that shows it; its own direction of writing does not reach beyond it."""
    return f"<bdi>{html.escape(value)}</bdi>"


def code(value: str) -> str:
    return f"<code>{text(value)}</code>"


def as_markdown(value: str) -> str:
    """Return a text as Markdown that shows it, for places where Streamlit allows nothing else."""
    return _MARKDOWN.sub(r"\\\1", " ".join(value.split()))


def when(at: datetime, now: datetime) -> str:
    """Return a relative time, the exact one on hover."""
    exact = at.astimezone(UTC)
    return f'<time datetime="{exact.isoformat()}" title="{exact:%d %B %Y, %H:%M} UTC">{words.ago(at, now)}</time>'


def user_link(user_id: str) -> str:
    """Return a link that opens this user in the same window."""
    return f'<a href="?{html.escape(urlencode({"user": user_id}))}" target="_self">{code(user_id)}</a>'


def block(*parts: str) -> str:
    return f'<div class="lm">{"".join(parts)}</div>'


def heading(view: View) -> str:
    """Return the finding as the page's heading, the user's id in monospace, and what is to be said of it."""
    said = html.escape(words.finding(view, _ID)).replace(_ID, code(view.answer.user_id or ""))
    note = words.how_found(view)
    return f"<h1>{said}</h1>" + (f"<p>{text(note)}</p>" if note else "")


def profile_line(view: View, now: datetime) -> str:
    """Return who the user is, in one line."""
    profile = view.profile
    if profile is None:
        return ""
    parts = []
    if profile.conversations is None:
        parts.append("conversations not known now")
    else:
        last = f", the latest {when(profile.last_at, now)}" if profile.last_at else ""
        parts.append(words.counted(profile.conversations, "conversation") + last)
    if not profile.profiling:
        parts.append("what they said and did does not count for this ranking")
    elif profile.edges is not None and (intents := profile.edges.known_intents()):
        most = sorted(intents.items(), key=lambda pair: (-pair[1], pair[0]))
        guessed = profile.edges.predicted
        named = ", ".join(
            f"{text(words.intent_words(name))} ({count}{f', {guessed[name]} predicted' if name in guessed else ''})"
            for name, count in most[:3]
        )
        rest = len(most) - 3
        parts.append(f"asks about {named}" + (f" and {rest} more" if rest > 0 else ""))
    if profile.profiling and not profile.edges_known:
        parts.append("engagements not known now")
    elif profile.profiling:
        did = ", ".join(f"{count} {said}" for said, count in words.took_words(profile))
        parts.append(f"campaigns: {did}" if did else "no engagement with any campaign")
    parts.append(text(words.consent(profile.preferences)))
    return f'<p class="quiet">{" &nbsp;·&nbsp; ".join(parts)}</p>'


def components_of(items: Sequence[Item]) -> list[str]:
    """Return the components that occur, in the order in which the first item has them."""
    return list(dict.fromkeys(part.component for item in items for part in item.breakdown))


def legend(components: Sequence[str]) -> str:
    keys = "".join(
        f'<span><span class="key" style="background:{colour(c)}"></span>{text(COMPONENT_NAMES.get(c, c))}</span>'
        for c in components
    )
    return f'<div class="legend" aria-hidden="true">{keys}</div>'


def breakdown_table(items: Sequence[Item], chosen: str | None) -> str:
    """Return the scores and their parts as a table."""
    components = components_of(items)
    head = "".join(
        f'<th class="num" scope="col"><span class="key" style="background:{colour(c)}"></span>'
        f"{text(COMPONENT_NAMES.get(c, c))}</th>"
        for c in components
    )
    rows = []
    for item in items:
        parts = {part.component: part for part in item.breakdown}
        cells = "".join(f'<td class="num">{_part(parts.get(c))}</td>' for c in components)
        marked = ' class="chosen"' if item.campaign_id == chosen else ""
        rows.append(
            f'<tr{marked}><td class="num">{item.rank}</td><th scope="row">{text(item.name)} '
            f"{code(item.campaign_id)}</th>{cells}"
            f'<td class="num">{words.number(item.score)}</td></tr>'
        )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Scores and their parts"><table>'
        '<caption class="quiet">The parts of each score add up to it. A dash: nothing is known that would speak '
        "for or against.</caption>"
        f'<thead><tr><th class="num" scope="col">Rank</th><th scope="col">Campaign</th>{head}'
        f'<th class="num" scope="col">score</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _part(part: BreakdownPart | None) -> str:
    return "–" if part is None or part.value is None else words.number(part.contribution)


def evidence_list(item: Item, view: View) -> str:
    """Return an item's evidence as sentences, quotes below them."""
    if not item.evidence:
        return f"<p>{text(_no_evidence(view))}</p>"
    return f"<ul>{''.join(f'<li>{_piece(piece, view)}</li>' for piece in item.evidence)}</ul>"


def _no_evidence(view: View) -> str:
    if view.answer.strategy == "popular":
        return "It is popular with others; nothing about this user was used."
    return "Nothing in particular speaks for it; its place comes from the parts of the score."


def _piece(evidence: Evidence, view: View) -> str:
    said = html.escape(words.evidence_sentence(evidence, view, _ID))
    said = said.replace(_ID, user_link(evidence.user_id or ""))
    quotes = ""
    if evidence.quote is not None:
        quotes = _quote("they said", evidence.quote)
        if evidence.own_quote is not None:
            quotes += _quote(f"{view.answer.user_id} said", evidence.own_quote)
    return said + quotes


def _quote(who: str, quote: Quote) -> str:
    said = " ".join(mask_text(quote.text).split())
    shown = said if len(said) <= _QUOTE_SHOWN else said[: _QUOTE_SHOWN - 1].rstrip() + "…"
    return f'<blockquote><span class="who quiet">{text(who)}</span>{text(shown)}</blockquote>'


def similar_table(view: View) -> str:
    """Return the similar users: how alike they talk, and what they took."""
    offered = {item.campaign_id for item in view.answer.items}
    rows = "".join(
        f'<tr><th scope="row">{user_link(s.neighbour.user_id)}</th>'
        f'<td class="num">{words.number(s.neighbour.similarity)}</td><td>{_took(s.took, offered, view)}</td></tr>'
        for s in view.similar
    )
    return (
        '<table><thead><tr><th scope="col">User</th><th class="num" scope="col">Similarity</th>'
        f'<th scope="col">Took (bold: offered above)</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _took(campaigns: Sequence[str], offered: set[str], view: View) -> str:
    if not campaigns:
        return '<span class="quiet">nothing yet</span>'
    names = (f"<b>{text(view.name(c))}</b>" if c in offered else text(view.name(c)) for c in campaigns)
    return ", ".join(names)


def left_out_list(view: View) -> str:
    rows = "".join(
        f'<tr><th scope="row">{text(reason)}</th><td>{", ".join(text(view.name(c)) for c in campaigns)}</td></tr>'
        for reason, campaigns in words.left_out(view)
    )
    return (
        '<table><thead><tr><th scope="col">Reason</th><th scope="col">Campaigns</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
