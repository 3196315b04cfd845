"""Words: topics and manners read from `texts/*.toml`, and the small grammar that turns them into messages.

In a template `[a|b|c]` is one of its alternatives (they may nest) and `{slot}` a value of the person or the talk.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

TEXTS = Path(__file__).parent / "texts"

_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[a-z]{5,}")


def read(name: str) -> dict[str, Any]:
    """Return `texts/NAME.toml`."""
    return tomllib.loads((TEXTS / f"{name}.toml").read_text(encoding="utf-8"))


def _contains(text: str, parts: str) -> bool:
    return any(part in text for part in parts.split("|"))


@dataclass(frozen=True)
class Line:
    """What may be said, or sold."""

    text: str
    only: str = ""
    """Parts of names, with `|` between them, of what the line fits: of items, for an item of breeds; empty: all."""
    answer: str = ""
    """An agent's answer, if the line is a question."""

    def fits(self, name: str) -> bool:
        return _contains(name, self.only)


@dataclass(frozen=True)
class Topic:
    """What one conversation is about."""

    key: str
    intent: str
    openers: tuple[Line, ...]
    advice: tuple[Line, ...]
    """An agent's first answer."""
    qa: tuple[Line, ...]
    """Further questions, in any order."""
    items: tuple[Line, ...]
    """What the shop sells for it. Of a service topic: parts of the names of what it is about, all if empty."""
    not_items: tuple[str, ...]
    """Parts of the names of what a service topic is never about."""
    prices: tuple[int, int]
    """What the items cost, from and to."""
    months: tuple[int, ...]
    """Months in which people ask this; empty for all."""
    service: bool

    def in_season(self, month: int) -> bool:
        return not self.months or month in self.months

    def serves(self, item: str) -> bool:
        """Return whether people ask this service topic about an item."""
        wanted = not self.items or any(part.text in item for part in self.items)
        return wanted and not any(part in item for part in self.not_items)


def topics(name: str, intent: str | None = None) -> tuple[Topic, ...]:
    """Return the topics of a file in its order; `intent` None takes each topic's own, and marks it as service."""

    def lines(rows: Sequence[str | Sequence[str]]) -> tuple[Line, ...]:
        return tuple(Line(row) if isinstance(row, str) else Line(*row) for row in rows)

    return tuple(
        Topic(
            key=raw["key"],
            intent=raw["intent"] if intent is None else intent,
            openers=lines(raw["openers"]),
            advice=lines(raw["advice"]),
            qa=tuple(Line(text, only[0] if only else "", answer) for text, answer, *only in raw["qa"]),
            items=lines(raw.get("items", ())),
            not_items=tuple(raw.get("not_items", ())),
            prices=tuple(raw.get("prices", (80, 380))),
            months=tuple(raw.get("months", ())),
            service=intent is None,
        )
        for raw in read(name)["topic"]
    )


def render(template: str, slots: Mapping[str, str], rng: Random) -> str:
    """Return the template with alternatives chosen and slots filled. Raises KeyError for an unknown slot."""
    text, left = template, 1
    while left:
        text, left = _ALTERNATIVES.subn(lambda m: rng.choice(m[1].split("|")), text)
    # A number is drawn anew wherever it stands, all other slots hold for the whole conversation.
    return _SLOT.sub(lambda m: str(rng.randint(2, 6)) if m[1] == "n" else slots[m[1]], text).strip()


class Manners:
    """How people of a style put what they say."""

    STYLES = ("plain", "terse", "chatty", "typos", "polite", "annoyed", "emoji")

    def __init__(self) -> None:
        self._talk: dict[str, list[str]] = read("talk")

    def phrases(self, name: str) -> Sequence[str]:
        return self._talk[name]

    def dress(self, text: str, style: str, *, first: bool, service: bool, slots: Mapping[str, str], rng: Random) -> str:
        """Return the text as a person of this style would type it."""

        def some(name: str) -> str:
            # Not stripped: the pieces carry the space that joins them.
            return _SLOT.sub(lambda m: slots[m[1]], rng.choice(self._talk[name]))

        names = frozenset(slots.values())
        if style == "chatty":
            if first and rng.random() < 0.5:
                text = _join(some("chatty_before"), text, names)
            if rng.random() < 0.3:
                text += some("chatty_after")
        elif style == "polite":
            if first:
                text = _join(some("greetings"), text, names)
            if rng.random() < 0.3:
                text += some("polite_after")
        elif style == "annoyed":
            if service and "?" in text and rng.random() < 0.5:
                text = _join(some("annoyed_before"), text, names)
        elif style == "emoji":
            if rng.random() < 0.4:
                text += some("emoji_after")
        elif style == "terse":
            text = text[:1].lower() + text[1:].rstrip(".")
        elif style == "typos":
            text = _mistype(text, rng).lower()
        elif first and rng.random() < 0.4:
            text = _join(some("greetings"), text, names)
        return text


def _join(before: str, text: str, names: frozenset[str]) -> str:
    """Return both, the second in lower case where it goes on with the first's sentence."""
    first = text.split(" ", 1)[0].split("'")[0].strip(",.!?")
    if before.rstrip()[-1] in ".!?" or first == "I" or first in names or first.isupper():
        return before + text
    return before + text[:1].lower() + text[1:]


def _mistype(text: str, rng: Random) -> str:
    """Return the text with two neighbouring letters of one long word swapped."""
    words = list(_WORD.finditer(text))
    if not words:
        return text
    word = rng.choice(words)
    i = rng.randrange(word.start() + 1, word.end() - 2)
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
