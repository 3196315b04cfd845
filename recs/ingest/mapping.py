"""Which column of a table holds what."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recs.errors import InputError
from recs.ingest.records import shown

CONVERSATION_FIELDS = (
    "conversation_id",
    "user_id",
    "started_at",
    "channel",
    "intent",
    "seq",
    "messages",
    "engagements",
)
MESSAGE_FIELDS = ("role", "text", "at")
ENGAGEMENT_FIELDS = ("campaign_id", "action", "engaged_at", "value", "currency")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """Which column holds what. A field that is not mapped is not filled; a column that is not mapped is not read."""

    columns: Mapping[str, str]
    """Field to column. Besides the fields above: `message.NAME` for an extra key of a message, and any other name
    for an extra key of the conversation."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Field to a value that holds for every row."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Field to a mapping of what stands in its column to what is meant, such as roles given as True and False."""

    @classmethod
    def from_object(cls, value: object) -> ColumnMapping:
        """Return the mapping that a JSON object describes; raises InputError that says what is wrong with it."""
        if not isinstance(value, dict) or not value:
            raise InputError(
                f"a column mapping is a JSON object of field to column such as "
                f'{{"conversation_id": "thread", "user_id": "author"}}; met was {shown(value)}'
            )
        columns: dict[str, str] = {}
        constants: dict[str, str] = {}
        values: dict[str, Mapping[str, str]] = {}
        for name, target in value.items():
            if isinstance(target, str):
                columns[name] = target
                continue
            known = isinstance(target, dict) and (
                set(target) == {"constant"} or set(target) in ({"column"}, {"column", "values"})
            )
            texts = known and all(isinstance(target[k], str) for k in ("column", "constant") if k in target)
            meanings = target.get("values", {}) if texts else None
            if not isinstance(meanings, dict) or not all(isinstance(v, str) for v in meanings.values()):
                raise InputError(
                    f"column mapping: {name} is {shown(target)}; a column's name, "
                    f'{{"column": NAME, "values": {{MET: MEANT}}}} or {{"constant": TEXT}} is allowed'
                )
            if "constant" in target:
                constants[name] = target["constant"]
            else:
                columns[name] = target["column"]
                values[name] = meanings
        return cls(columns, constants, values)

    @classmethod
    def load(cls, path: Path) -> ColumnMapping:
        """Return the mapping in a JSON file; raises InputError."""
        try:
            value = json.loads(path.read_bytes())
        except OSError as exc:
            raise InputError(f"cannot read the column mapping {path}: {exc}") from exc
        except ValueError as exc:
            raise InputError(f"the column mapping {path} is not JSON: {exc}") from exc
        return cls.from_object(value)

    @classmethod
    def of_header(cls, names: Sequence[str]) -> ColumnMapping:
        """Return the mapping of a table whose columns are called as the fields are."""
        return cls({name: name for name in names if name})

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the mapped columns that a table does not have, sorted."""
        return sorted(set(self.columns.values()) - set(names))

    def check_conversations(self) -> None:
        """Raise InputError where a conversation could never come of this mapping."""
        given = {*self.columns, *self.constants}
        needed = {"conversation_id", "user_id"} - given
        if "messages" not in given:
            needed |= {"role", "text"} - given
        if needed:
            raise InputError(
                f"the column mapping names no column for {', '.join(sorted(needed))}; conversation_id, user_id and "
                f"either messages or both role and text are needed; mapped are {', '.join(sorted(given))}"
            )

    def get(self, row: Row, name: str) -> Any:
        """Return what a row holds for a field, None where it holds nothing."""
        if name in self.constants:
            return self.constants[name]
        value = row.get(self.columns[name]) if name in self.columns else None
        if value is None or (isinstance(value, str) and not value):
            return None
        if isinstance(value, float) and math.isnan(value):
            return None  # pandas writes what is missing so
        meanings = self.values.get(name)
        return meanings.get(str(value), value) if meanings else value
