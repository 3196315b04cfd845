"""The one form in which equal conversations are equal bytes."""

from __future__ import annotations

import math
from collections.abc import Container
from datetime import UTC, datetime
from typing import Any

from recs.ingest.lenient_json import MAX_DEPTH
from recs.ingest.times import EARLIEST
from recs.model import Conversation

MAX_ID_CHARS = 512

#: Texts of eight digits and fewer come out of Pydantic as seconds since 1970, that is before this. Whether it was
#: such a text or an honest date is seen on the slow path only.
_DOUBTFUL_BEFORE = datetime(1974, 1, 1, tzinfo=UTC)

_to_json = Conversation.__pydantic_serializer__.to_json


#: Types of JSON values that may need settling; a parser makes no subclasses of them.
_LOOKED_INTO = frozenset({float, list, dict})


class Unclean(Exception):  # noqa: N818 - tells the fast path to hand over, nothing more
    """The conversation needs a repair, or may need one."""


def canonical(conversation: Conversation) -> bytes:
    """Return the canonical JSON of a conversation that `settle` has been through.

    Fields with their default value are left out: absent and null are the same, and a field that the model gains
    later does not make all that is stored look changed.
    """
    return _to_json(conversation, exclude_defaults=True)


def settle(
    conversation: Conversation, *, known_campaigns: Container[str] | None, latest: datetime, repaired: bool = False
) -> int:
    """Put a conversation's times into UTC and its extra keys in order, in place; return its number of JSON keys.

    Raises Unclean where anything is not as the canonical form wants it. With `repaired`, what only might need a
    repair passes. Changes a frozen object, which nobody else has seen yet.
    """
    doubtful = EARLIEST if repaired else _DOUBTFUL_BEFORE
    c = conversation
    keys = len(c.__pydantic_fields_set__)
    if not (is_clean_id(c.conversation_id) and is_clean_id(c.user_id)):
        raise Unclean
    if not (is_clean_label(c.channel) and is_clean_label(c.intent)):
        raise Unclean
    if c.seq is not None and not math.isfinite(c.seq):
        raise Unclean
    if c.started_at is not None:
        c.__dict__["started_at"] = _in_utc(c.started_at, doubtful, latest)
    if c.__pydantic_extra__:
        keys += _settle_extra(c.__pydantic_extra__, 2)
    for m in c.messages:
        keys += len(m.__pydantic_fields_set__)
        if m.at is not None:
            m.__dict__["at"] = _in_utc(m.at, doubtful, latest)
        if m.__pydantic_extra__:
            keys += _settle_extra(m.__pydantic_extra__, 4)
    for e in c.engagements:
        keys += len(e.__pydantic_fields_set__)
        # Ids of the catalogue are clean.
        if not is_clean_id(e.campaign_id) if known_campaigns is None else e.campaign_id not in known_campaigns:
            raise Unclean
        if e.at is not None:
            e.__dict__["at"] = _in_utc(e.at, doubtful, latest)
        if (e.value is not None and not math.isfinite(e.value)) or not is_clean_label(e.currency):
            raise Unclean
        if e.__pydantic_extra__:
            keys += _settle_extra(e.__pydantic_extra__, 4)
    if len(c.engagements) > 1:
        distinct = {(e.campaign_id, e.action, e.at, e.value, e.currency) for e in c.engagements}
        if len(distinct) < len(c.engagements):
            raise Unclean
    return keys


def is_clean_id(text: str) -> bool:
    """Return whether a text can be an id as it stands."""
    return 0 < len(text) <= MAX_ID_CHARS and not (text[0].isspace() or text[-1].isspace())


def is_clean_label(text: str | None) -> bool:
    """Return whether a text can be an intent or a channel as it stands."""
    return text is None or (0 < len(text) <= MAX_ID_CHARS and not text.isspace())


def _in_utc(at: datetime, earliest: datetime, latest: datetime) -> datetime:
    if not earliest <= at <= latest:
        raise Unclean
    return at.astimezone(UTC) if at.utcoffset() else at


def _settle_extra(extra: dict[str, Any], depth: int) -> int:
    """Settle the extra keys of a record, whose values stand at this depth; returns the number of keys inside them."""
    keys = 0
    for value in extra.values():
        if type(value) in _LOOKED_INTO:
            keys += _settle_value(value, depth)
    if len(extra) > 1:
        _sort_keys(extra)
    return keys


def _settle_value(value: Any, depth: int) -> int:
    if type(value) is float:
        if not math.isfinite(value):
            raise Unclean
        return 0
    if depth > MAX_DEPTH:
        raise Unclean
    keys = 0
    items = value
    if type(value) is dict:
        keys = len(value)
        _sort_keys(value)
        items = value.values()
    for item in items:
        if type(item) in _LOOKED_INTO:
            keys += _settle_value(item, depth + 1)
    return keys


def _sort_keys(mapping: dict[str, Any]) -> None:
    names = list(mapping)
    ordered = sorted(names)
    if names != ordered:
        items = [(name, mapping[name]) for name in ordered]
        mapping.clear()
        mapping.update(items)
