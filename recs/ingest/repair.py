"""Repair of one decoded conversation: what can be put right without a guess is, the rest is a Defect.

Each repair has a code; docs/data-formats.md lists them. Where a value had to go, it is kept beside its field under
the field's name and `_raw`.
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from recs.ingest.canonical import MAX_ID_CHARS
from recs.ingest.lenient_json import DamagedText
from recs.ingest.records import Defect, shown
from recs.ingest.times import EARLIEST, UnreadableTime, read_time
from recs.model import ACTIONS

_USER_NAMES = "user customer client consumer human visitor guest member caller buyer shopper end_user enduser"
_AGENT_NAMES = (
    "agent assistant bot chatbot system operator support advisor adviser representative rep staff employee "
    "human_agent virtual_agent virtual_assistant ai model"
)
ROLES: dict[str, str] = dict.fromkeys(_USER_NAMES.split(), "user") | dict.fromkeys(_AGENT_NAMES.split(), "agent")

Repairs = dict[str, None]
"""An ordered set of codes."""


@dataclass(slots=True)
class BadEngagement:
    index: int
    value: Any
    defect: Defect


@dataclass(slots=True)
class Repaired:
    """A conversation as plain data that the model accepts, and the engagements that were left out."""

    fields: dict[str, Any]
    bad_engagements: list[BadEngagement] = field(default_factory=list)


def repair_conversation(
    record: Any, repairs: Repairs, *, known_campaigns: Container[str] | None, latest: datetime
) -> Repaired:
    """Return a decoded record as the model wants it; raises Defect where the record as a whole cannot be kept."""
    if not isinstance(record, dict):
        met = "an array" if isinstance(record, list) else shown(record)
        raise Defect("not_an_object", f"the record is {met}; one JSON object is allowed")
    fields = dict(record)
    fields["conversation_id"] = clean_id(record, "conversation_id", repairs)
    fields["user_id"] = clean_id(record, "user_id", repairs)
    clean_time(fields, "started_at", repairs, latest)
    for name in ("channel", "intent"):
        clean_label(fields, name, repairs)
    _clean_seq(fields, repairs)
    fields["messages"] = _messages(record, repairs, latest)
    result = Repaired(fields)
    fields["engagements"] = _engagements(record.get("engagements"), result, repairs, known_campaigns, latest)
    return result


def clean_id(record: dict[str, Any], name: str, repairs: Repairs) -> str:
    """Return a record's id as text; raises Defect NAME_missing, _blank, _not_text, _too_long or _damaged."""
    value = record.get(name)
    allowed = f"text of 1 to {MAX_ID_CHARS} characters, or a whole number, is allowed"
    if value is None:
        met = "null" if name in record else "missing"
        raise Defect(f"{name}_missing", f"{name} is {met}; {allowed}")
    if isinstance(value, int) and not isinstance(value, bool):
        repairs["id_number"] = None
        value = str(value)
    if not isinstance(value, str):
        raise Defect(f"{name}_not_text", f"{name} is {shown(value)}; {allowed}")
    if isinstance(value, DamagedText):
        raise Defect(
            f"{name}_damaged", f"{name} reads {shown(value)} after bytes or characters that no text can hold; {allowed}"
        )
    stripped = value.strip()
    if not stripped:
        raise Defect(f"{name}_blank", f"{name} is {shown(value)}; {allowed}")
    if len(stripped) > MAX_ID_CHARS:
        raise Defect(f"{name}_too_long", f"{name} has {len(stripped):,} characters; {allowed}")
    if stripped != value:
        repairs["id_trimmed"] = None
    return stripped


def clean_label(fields: dict[str, Any], name: str, repairs: Repairs) -> None:
    """Make a field text or None, in place; raises Defect NAME_not_text or _too_long."""
    value = fields.get(name)
    if value is None:
        return
    if isinstance(value, int) and not isinstance(value, bool):
        repairs[f"{name}_number"] = None
        fields[name] = value = str(value)
    if not isinstance(value, str):
        raise Defect(f"{name}_not_text", f"{name} is {shown(value)}; text or null is allowed")
    if not value.strip():
        repairs[f"{name}_blank"] = None
        fields[name] = None
    elif len(value) > MAX_ID_CHARS:
        message = f"{name} has {len(value):,} characters; at most {MAX_ID_CHARS} are allowed"
        raise Defect(f"{name}_too_long", message)


def clean_time(fields: dict[str, Any], name: str, repairs: Repairs, latest: datetime) -> None:
    """Make a field a time in UTC or None, in place. What cannot be read is kept as NAME_raw."""
    value = fields.get(name)
    if value is None:
        return
    try:
        moment, repair = read_time(value)
    except UnreadableTime:
        repair = f"{name}_unreadable"
    else:
        if EARLIEST <= moment <= latest:
            fields[name] = moment
            if repair is not None:
                repairs[repair] = None
            return
        repair = f"{name}_out_of_range"
    fields[name] = None
    _keep(fields, name, value)
    repairs[repair] = None


def _keep(fields: dict[str, Any], name: str, value: Any) -> None:
    """Keep what came beside its field, unless the record has something of its own there."""
    fields.setdefault(f"{name}_raw", value)


def _clean_seq(fields: dict[str, Any], repairs: Repairs) -> None:
    value = fields.get("seq")
    if value is None:
        return
    number, repair = _number(value)
    fields["seq"] = number
    if number is None:
        _keep(fields, "seq", value)
        repairs["seq_not_a_number"] = None
    elif repair is not None:
        repairs[repair] = None


def _number(value: Any) -> tuple[float | None, str | None]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None, None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None, None
    if not math.isfinite(number):
        return None, None
    return number, "number_from_text" if isinstance(value, str) else None


def _messages(record: dict[str, Any], repairs: Repairs, latest: datetime) -> list[dict[str, Any]]:
    messages = record.get("messages")
    if messages is None:
        met = "null" if "messages" in record else "missing"
        raise Defect("messages_missing", f"messages is {met}; an array is allowed, an empty one too")
    if not isinstance(messages, list):
        raise Defect("messages_not_a_list", f"messages is {shown(messages)}; an array of objects is allowed")
    return [_message(message, index, repairs, latest) for index, message in enumerate(messages)]


def _message(message: Any, index: int, repairs: Repairs, latest: datetime) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise Defect("message_not_an_object", f"messages[{index}] is {shown(message)}; an object is allowed")
    fields = dict(message)
    role = message.get("role")
    if role not in ("user", "agent"):
        known = ROLES.get(role.strip().lower().replace("-", "_").replace(" ", "_")) if isinstance(role, str) else None
        if known is None:
            met = f"is {shown(role)}" if "role" in message else "is missing"
            raise Defect(
                "unknown_role", f'role of messages[{index}] {met}; "user", "agent" or one of their aliases is allowed'
            )
        fields["role"] = known
        _keep(fields, "role", role)
        repairs["role_alias"] = None
    text = message.get("text")
    if text is None:
        fields["text"] = ""
        repairs["text_null"] = None
    elif isinstance(text, int | float) and not isinstance(text, bool):
        fields["text"] = str(text)
        repairs["text_number"] = None
    elif not isinstance(text, str):
        raise Defect("text_not_text", f"text of messages[{index}] is {shown(text)}; text is allowed")
    clean_time(fields, "at", repairs, latest)
    return fields


def _engagements(
    engagements: Any, result: Repaired, repairs: Repairs, known_campaigns: Container[str] | None, latest: datetime
) -> list[dict[str, Any]]:
    if engagements is None:
        if "engagements" in result.fields:
            repairs["engagements_null"] = None
        return []
    if not isinstance(engagements, list):
        defect = Defect("engagements_not_a_list", f"engagements is {shown(engagements)}; an array is allowed")
        result.bad_engagements.append(BadEngagement(0, engagements, defect))
        return []
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for index, engagement in enumerate(engagements):
        try:
            fields = _engagement(engagement, index, repairs, known_campaigns, latest)
        except Defect as defect:
            result.bad_engagements.append(BadEngagement(index, engagement, defect))
            continue
        key = tuple(fields.get(name) for name in ("campaign_id", "action", "at", "value", "currency"))
        if key in kept:
            repairs["engagement_duplicate"] = None
        else:
            kept[key] = fields
    return list(kept.values())


def _engagement(
    engagement: Any, index: int, repairs: Repairs, known_campaigns: Container[str] | None, latest: datetime
) -> dict[str, Any]:
    if not isinstance(engagement, dict):
        raise Defect("engagement_not_an_object", f"engagements[{index}] is {shown(engagement)}; an object is allowed")
    fields = dict(engagement)
    own: Repairs = {}
    campaign_id = fields["campaign_id"] = clean_id(engagement, "campaign_id", own)
    if known_campaigns is not None and campaign_id not in known_campaigns:
        message = f"campaign_id of engagements[{index}] is {shown(campaign_id)}; a campaign of the catalogue is allowed"
        raise Defect("unknown_campaign", message)
    action = engagement.get("action")
    if action not in ACTIONS:
        folded = action.strip().lower() if isinstance(action, str) else None
        if folded not in ACTIONS:
            message = f"action of engagements[{index}] is {shown(action)}; one of {', '.join(ACTIONS)} is allowed"
            raise Defect("unknown_action", message)
        fields["action"] = folded
        own["action_spelling"] = None
    value = engagement.get("value")
    if value is not None:
        number, repair = _number(value)
        if number is None:
            raise Defect("value_not_a_number", f"value of engagements[{index}] is {shown(value)}; a number is allowed")
        fields["value"] = number
        if repair is not None:
            own[repair] = None
    clean_label(fields, "currency", own)
    clean_time(fields, "at", own, latest)
    # An engagement that is left out has no say in the repairs of the record.
    repairs.update(own)
    return fields
