"""How conversations, changes and campaigns lie in MongoDB documents, and back again without loss.

What BSON or a look-alike of MongoDB would lose is kept beside it: microseconds (BSON has milliseconds) under
`<field>_us`, keys beyond the model (any name, any JSON value) as a JSON string under `extra`, and infinite numbers,
which nx-27017 refuses, by name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from recs.model import Campaign, Change, Conversation, Engagement, Message, StoredConversation

Document = dict[str, Any]

BODY_FIELDS = ("messages", "engagements", "extra")
"""The fields of a conversation that can grow large."""

_UNSORTABLE = re.compile("[\x00\x01\ud7ff-\U0010ffff]")
_ESCAPES = {"\x00": "\x01\x01", "\x01": "\x01\x02"}


def key(text: str) -> str:
    """Return a text that can be matched and sorted on every server, and whose order is the order by code point.

    What nx-27017 takes for a date, such as "2026-03-01-chat-7", it compares as a date, so that different ids are one
    and some are none; it looks at the beginning, hence the colon. It ends texts at NUL when it compares them, and
    servers that sort by UTF-16 put emoji before U+E000; so these are escaped in a way that keeps their places.
    """
    return ":" + _UNSORTABLE.sub(lambda m: _ESCAPES.get(m[0]) or f"\ud7ff{ord(m[0]):06x}", text)


def digest(*parts: str) -> str:
    """Return 32 hex digits that name these texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def conversation_document(stored: StoredConversation) -> Document:
    """Return the document of a conversation; raises TypeError or ValueError where an extra key is not JSON."""
    c = stored.conversation
    return {
        "_id": key(c.conversation_id),
        # The same again: nx-27017 reads a whole collection for `_id: {$gt: ...}`, yet not for another indexed field.
        "id_key": key(c.conversation_id),
        "conversation_id": c.conversation_id,
        "user_id": c.user_id,
        "user_key": key(c.user_id),
        **_time("started_at", c.started_at),
        "channel": c.channel,
        "intent": c.intent,
        "seq": _number(c.seq),
        "position": stored.position,
        "messages": [{"role": m.role, "text": m.text, **_time("at", m.at), **_extra(m)} for m in c.messages],
        "engagements": [_engagement_document(e) for e in c.engagements],
        "extra": _extra(c).get("extra"),
        "content_hash": stored.content_hash,
        "run_id": stored.run_id,
    }


def stored_conversation(document: Mapping[str, Any]) -> StoredConversation:
    """Return the conversation of a document that `conversation_document` made."""
    conversation = Conversation.model_construct(
        conversation_id=document["conversation_id"],
        user_id=document["user_id"],
        started_at=_read_time(document, "started_at"),
        channel=document["channel"],
        messages=tuple(_message(m) for m in document["messages"]),
        intent=document["intent"],
        engagements=tuple(_engagement(e) for e in document["engagements"]),
        seq=_read_number(document["seq"]),
    )
    _read_extra(conversation, document)
    return StoredConversation(conversation, document["content_hash"], int(document["position"]), document["run_id"])


def change_document(change: Change) -> Document:
    """Return the document of a change, named by what changed, so that recording it again adds nothing."""
    return {
        "_id": digest(change.conversation_id, change.old_hash, change.new_hash, change.run_id),
        "id_key": key(change.conversation_id),
        "conversation_id": change.conversation_id,
        "old_hash": change.old_hash,
        "new_hash": change.new_hash,
        "run_id": change.run_id,
        **_time("at", change.at),
    }


def change(document: Mapping[str, Any]) -> Change:
    at = _read_time(document, "at")
    assert at is not None, "a change has a time"
    return Change(document["conversation_id"], document["old_hash"], document["new_hash"], document["run_id"], at)


def campaign_document(campaign: Campaign) -> Document:
    return {
        "_id": key(campaign.campaign_id),
        "campaign_id": campaign.campaign_id,
        "name": campaign.name,
        "description": campaign.description,
        "intents": list(campaign.intents),
        "categories": list(campaign.categories),
        "channel": campaign.channel,
        **_time("starts_at", campaign.starts_at),
        **_time("ends_at", campaign.ends_at),
        "status": campaign.status,
        **_extra(campaign),
    }


def campaign(document: Mapping[str, Any]) -> Campaign:
    read = Campaign.model_construct(
        campaign_id=document["campaign_id"],
        name=document["name"],
        description=document["description"],
        intents=tuple(document["intents"]),
        categories=tuple(document["categories"]),
        channel=document["channel"],
        starts_at=_read_time(document, "starts_at"),
        ends_at=_read_time(document, "ends_at"),
        status=document["status"],
    )
    _read_extra(read, document)
    return read


def _engagement_document(engagement: Engagement) -> Document:
    return {
        "campaign_id": engagement.campaign_id,
        "action": engagement.action,
        **_time("at", engagement.at),
        "value": _number(engagement.value),
        "currency": engagement.currency,
        **_extra(engagement),
    }


def _engagement(document: Mapping[str, Any]) -> Engagement:
    engagement = Engagement.model_construct(
        campaign_id=document["campaign_id"],
        action=document["action"],
        at=_read_time(document, "at"),
        value=_read_number(document["value"]),
        currency=document["currency"],
    )
    _read_extra(engagement, document)
    return engagement


def _message(document: Mapping[str, Any]) -> Message:
    message = Message.model_construct(role=document["role"], text=document["text"], at=_read_time(document, "at"))
    _read_extra(message, document)
    return message


def _time(field: str, at: datetime | None) -> Document:
    if at is None:
        return {field: None}
    at = at.astimezone(UTC)
    below = at.microsecond % 1000
    whole = at - timedelta(microseconds=below)
    return {field: whole, f"{field}_us": below} if below else {field: whole}


def _read_time(document: Mapping[str, Any], field: str) -> datetime | None:
    at: datetime | None = document.get(field)
    return None if at is None else at + timedelta(microseconds=int(document.get(f"{field}_us", 0)))


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else repr(value)


def _read_number(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def _extra(record: BaseModel) -> Document:
    return {"extra": json.dumps(record.model_extra, ensure_ascii=False)} if record.model_extra else {}


def _read_extra(record: BaseModel, document: Mapping[str, Any]) -> None:
    """Put the extra keys into a record; not by keyword, which a key such as `cls` would break."""
    extra: str | None = document.get("extra")
    if extra:
        assert record.model_extra is not None, "the records of the model keep extra keys"
        record.model_extra.update(json.loads(extra))
