"""One record in, a conversation that may be stored or the reason why not out. Every format comes through here."""

from __future__ import annotations

import json
import re
from collections.abc import Container
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from recs.ingest.canonical import Unclean, canonical, settle
from recs.ingest.lenient_json import load
from recs.ingest.records import Accepted, Defect, RawRecord, Reject, content_hash, make_reject
from recs.ingest.repair import BadEngagement, repair_conversation
from recs.ingest.times import LATEST
from recs.model import Conversation

__all__ = ["Accepted", "Reject", "parse_record"]

_validator = Conversation.__pydantic_validator__

#: Times as text of digits alone, which Pydantic reads as seconds without a word.
_TIME_OF_DIGITS = re.compile(rb'at":\s?"[-+\d.\s]*"')


def parse_record(
    raw: RawRecord, *, known_campaigns: Container[str] | None, latest: datetime = LATEST
) -> Accepted | Reject:
    """Return the conversation in a record, or the reason why there is none. Never raises for what the bytes hold.

    With `known_campaigns` None engagements are not checked against the catalogue. A time after `latest` counts as
    a mistake.
    """
    accepted = _parse_clean(raw.data, known_campaigns, latest)
    return accepted if accepted is not None else _parse_repairing(raw, known_campaigns, latest)


def _parse_clean(data: bytes, known_campaigns: Container[str] | None, latest: datetime) -> Accepted | None:
    """Return the conversation of a record that needs no repair; None where the slower path has to look."""
    # NUL could be anywhere, keys too; a search for its escape is cheaper than a walk.
    if b"\\u0000" in data or ((b'at":"' in data or b'at": "' in data) and _TIME_OF_DIGITS.search(data)):
        return None
    try:
        conversation = _validator.validate_json(data, strict=True)
        if "messages" not in conversation.__pydantic_fields_set__:
            return None
        keys = settle(conversation, known_campaigns=known_campaigns, latest=latest)
    except (ValidationError, Unclean):
        return None
    # A key that occurs twice is seen by the count of keys alone: the parser keeps the last without a word. A text
    # that looks like a key makes the counts differ too, and costs no more than the slower path.
    met = data.count(b'":')
    if met != keys and met - data.count(b'\\":') != keys:
        return None
    body = canonical(conversation)
    return Accepted(conversation, content_hash(body), body=body)


def _parse_repairing(raw: RawRecord, known_campaigns: Container[str] | None, latest: datetime) -> Accepted | Reject:
    repairs: dict[str, None] = {}
    record: Any = None
    try:
        record = load(raw.data, repairs)
        repaired = repair_conversation(record, repairs, known_campaigns=known_campaigns, latest=latest)
        try:
            conversation = _validator.validate_python(repaired.fields)
            settle(conversation, known_campaigns=known_campaigns, latest=latest, repaired=True)
            body = canonical(conversation)
        except (ValidationError, Unclean, ValueError) as exc:
            raise Defect("schema", f"the record does not fit the schema of a conversation: {exc}"[:500]) from exc
    except Defect as defect:
        return _reject(raw, defect, record)
    rejects = tuple(
        _reject_engagement(raw, bad, record, conversation.conversation_id) for bad in repaired.bad_engagements
    )
    return Accepted(conversation, content_hash(body), tuple(repairs), rejects, body)


def _reject(raw: RawRecord, defect: Defect, record: Any) -> Reject:
    reject = make_reject(raw.source, raw.line, raw.offset, defect.code, defect.message, raw.data)
    conversation_id = record.get("conversation_id") if isinstance(record, dict) else None
    if not isinstance(conversation_id, str):
        return reject
    return Reject(
        raw.source, raw.line, raw.offset, defect.code, defect.message, reject.raw,
        conversation_id=conversation_id, raw_base64=reject.raw_base64,
    )  # fmt: skip


def _reject_engagement(raw: RawRecord, bad: BadEngagement, record: Any, conversation_id: str) -> Reject:
    return Reject(
        raw.source,
        raw.line,
        raw.offset,
        bad.defect.code,
        bad.defect.message,
        json.dumps(bad.value, ensure_ascii=False),
        part="engagement",
        conversation_id=conversation_id,
        record=json.dumps(record, ensure_ascii=False),
    )
