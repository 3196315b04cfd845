"""Rows of a table become the JSON that a line would have held."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from recs.ingest.mapping import CONVERSATION_FIELDS, ENGAGEMENT_FIELDS, MESSAGE_FIELDS, ColumnMapping, Row
from recs.ingest.records import RawRecord, Reject, make_reject


@dataclass(slots=True)
class _Group:
    """The rows of one conversation, as far as read."""

    conversation_id: Any
    number: int
    fields: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)
    engagements: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0
    users: set[str] = field(default_factory=set)


class RowGrouper:
    """Turns rows into records of conversations: rows that follow one another with the same conversation_id."""

    def __init__(self, source: str, mapping: ColumnMapping, max_record_bytes: int) -> None:
        mapping.check_conversations()
        self._source = source
        self._mapping = mapping
        self._limit = max_record_bytes
        names = {*mapping.columns, *mapping.constants}
        self._message_extras = sorted(n for n in names if n.startswith("message."))
        own = {*CONVERSATION_FIELDS, *MESSAGE_FIELDS, *ENGAGEMENT_FIELDS, *self._message_extras}
        self._fields = [n for n in CONVERSATION_FIELDS if n in names] + sorted(names - own)
        self._group: _Group | None = None

    def add(self, number: int, row: Row) -> Iterator[RawRecord | Reject]:
        """Take in a row; yields the conversation before it where this one begins another."""
        get = self._mapping.get
        conversation_id = get(row, "conversation_id")
        group = self._group
        if group is None or conversation_id is None or conversation_id != group.conversation_id:
            yield from self.finish()
            group = self._group = _Group(conversation_id, number, {})
        if group.size > self._limit:
            return
        for name in self._fields:
            value = get(row, name)
            if value is not None:
                group.fields.setdefault(name, value)
                if name == "user_id":
                    group.users.add(str(value))
        message = {name: get(row, name) for name in MESSAGE_FIELDS}
        # A row without text and role carries an engagement alone.
        if message["text"] is not None or (message["role"] is not None and "role" in self._mapping.columns):
            message |= {n.removeprefix("message."): get(row, n) for n in self._message_extras}
            group.messages.append(
                {"role": message["role"], "text": message["text"] or ""}
                | {n: v for n, v in message.items() if v is not None}
            )
        if get(row, "campaign_id") is not None:
            engagement = {n: get(row, n) for n in ENGAGEMENT_FIELDS}
            engagement["at"] = engagement.pop("engaged_at")
            group.engagements.append({n: v for n, v in engagement.items() if v is not None})
        group.size += sum(len(v) if isinstance(v, str | bytes | list) else 8 for v in row.values())

    def finish(self) -> Iterator[RawRecord | Reject]:
        """Yield the last conversation."""
        group, self._group = self._group, None
        if group is None:
            return
        record = dict(group.fields)
        if "messages" not in record:
            record["messages"] = group.messages
        if group.engagements and "engagements" not in record:
            record["engagements"] = group.engagements
        data = to_json(record)
        if group.size > self._limit or len(data) > self._limit:
            message = f"the rows of this conversation hold more than {self._limit:,} bytes (RECS_MAX_RECORD_BYTES)"
            yield make_reject(self._source, group.number, None, "record_too_long", message, data, cut=True)
        elif len(group.users) > 1:
            users = ", ".join(sorted(group.users)[:5])
            message = f"the rows of this conversation name several users: {users[:200]}; one is allowed"
            yield make_reject(self._source, group.number, None, "rows_disagree", message, data)
        else:
            yield RawRecord(self._source, group.number, None, data)


class FlatRows:
    """Turns each row into a record of its own: campaigns and preferences."""

    def __init__(self, source: str, mapping: ColumnMapping) -> None:
        self._source = source
        self._mapping = mapping

    def add(self, number: int, row: Row) -> Iterator[RawRecord | Reject]:
        """Yield the record of a row."""
        names = {*self._mapping.columns, *self._mapping.constants}
        values = {name: self._mapping.get(row, name) for name in names}
        data = to_json({n: v for n, v in values.items() if v is not None})
        yield RawRecord(self._source, number, None, data)

    def finish(self) -> Iterator[RawRecord | Reject]:
        """Yield nothing: no row is held back."""
        yield from ()


Rows = RowGrouper | FlatRows


def to_json(record: Mapping[str, Any]) -> bytes:
    """Return a record as bytes of JSON; bytes that were not UTF-8 come out as they went in."""
    text = json.dumps(record, ensure_ascii=False, default=_plain)
    return text.encode(errors="surrogateescape")


def _plain(value: object) -> object:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else str(value)
    return str(value)
