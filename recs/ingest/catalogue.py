"""Campaigns and preferences: the same files, the same care, small enough to be held whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from recs.ingest.lenient_json import load
from recs.ingest.mapping import ColumnMapping
from recs.ingest.records import Defect, RawRecord, Reject, make_reject, shown
from recs.ingest.repair import Repairs, clean_id, clean_label
from recs.ingest.sources import Source
from recs.ingest.times import UnreadableTime, read_time
from recs.model import Campaign, Preferences

_T = TypeVar("_T", bound=BaseModel)

_STATUSES = ("active", "paused", "ended")
_YES = ("true", "yes", "1", "on")
_NO = ("false", "no", "0", "off")


def read_campaigns(
    path: Path, *, max_record_bytes: int, mapping: ColumnMapping | None = None
) -> tuple[list[Campaign], list[Reject]]:
    """Return the campaigns of a file, the last one of each id, and what was not accepted.

    Raises InputError where the file cannot be read.
    """
    return _read(path, Campaign, _campaign, "campaign_id", max_record_bytes, mapping)


def read_preferences(
    path: Path, *, max_record_bytes: int, mapping: ColumnMapping | None = None
) -> tuple[list[Preferences], list[Reject]]:
    """Return the preferences of a file, the last ones of each user, and what was not accepted.

    Consent is never guessed: a value that is not clearly yes or no makes a reject. Raises InputError where the file
    cannot be read.
    """
    return _read(path, Preferences, _preferences, "user_id", max_record_bytes, mapping)


def _read(
    path: Path,
    model: type[_T],
    repair: Callable[[dict[str, Any]], None],
    key: str,
    max_record_bytes: int,
    mapping: ColumnMapping | None,
) -> tuple[list[_T], list[Reject]]:
    kept: dict[str, _T] = {}
    rejects: list[Reject] = []
    with Source(path, mapping=mapping, max_record_bytes=max_record_bytes, flat_key=key) as source:
        for raw in source:
            if isinstance(raw, Reject):
                rejects.append(raw)
                continue
            try:
                value = _parse(raw, model, repair, key)
            except Defect as defect:
                rejects.append(make_reject(raw.source, raw.line, raw.offset, defect.code, defect.message, raw.data))
                continue
            kept[getattr(value, key)] = value
    return list(kept.values()), rejects


def _parse(raw: RawRecord, model: type[_T], repair: Callable[[dict[str, Any]], None], key: str) -> _T:
    repairs: Repairs = {}
    record = load(raw.data, repairs)
    if not isinstance(record, dict):
        raise Defect("not_an_object", f"the record is {shown(record)}; one JSON object is allowed")
    fields = dict(record)
    fields[key] = clean_id(record, key, repairs)
    repair(fields)
    try:
        return model.model_validate(fields)
    except ValidationError as exc:
        raise Defect("schema", f"the record does not fit the schema of {model.__name__}: {exc}"[:500]) from exc


def _campaign(fields: dict[str, Any]) -> None:
    name = fields.get("name")
    if isinstance(name, int | float) and not isinstance(name, bool):
        fields["name"] = name = str(name)
    if not isinstance(name, str) or not name.strip():
        raise Defect("name_missing", f"name is {shown(name)}; text that is not blank is allowed")
    for key in ("intents", "categories"):
        fields[key] = _texts(fields.get(key), key)
    for key in ("channel", "description"):
        if fields.get(key) is not None and not isinstance(fields[key], str):
            raise Defect(f"{key}_not_text", f"{key} is {shown(fields[key])}; text or null is allowed")
    clean_label(fields, "channel", {})
    for key in ("starts_at", "ends_at"):
        fields[key] = _campaign_time(fields.get(key), key)
    if fields["starts_at"] and fields["ends_at"] and fields["ends_at"] < fields["starts_at"]:
        raise Defect("ends_before_start", "ends_at is before starts_at")
    status = fields.get("status")
    folded = status.strip().lower() if isinstance(status, str) else status
    if folded is None:
        fields.pop("status", None)
    elif folded in _STATUSES:
        fields["status"] = folded
    else:
        raise Defect("unknown_status", f"status is {shown(status)}; one of {', '.join(_STATUSES)} is allowed")


def _texts(value: Any, name: str) -> list[str]:
    """Return a list of distinct texts; text of its own (a table's cell) is split at |."""
    if value is None:
        return []
    if isinstance(value, str):
        value = value.split("|")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Defect(f"{name}_not_a_list", f"{name} is {shown(value)}; an array of texts is allowed")
    return list(dict.fromkeys(item.strip() for item in value if item.strip()))


def _campaign_time(value: Any, name: str) -> Any:
    """Return a campaign's time. One that cannot be read is no null, which would leave the campaign open for ever."""
    if value is None or value == "":
        return None
    try:
        return read_time(value)[0]
    except UnreadableTime as exc:
        message = f"{name} is {shown(value)}; ISO 8601, or seconds or milliseconds since 1970, is allowed"
        raise Defect(f"{name}_unreadable", message) from exc


def _preferences(fields: dict[str, Any]) -> None:
    if "profiling" in fields:
        fields["profiling"] = _yes_or_no(fields["profiling"], "profiling")
    channels = fields.get("channels")
    if isinstance(channels, dict):
        fields["channels"] = {name: _yes_or_no(value, f"channels.{name}") for name, value in channels.items()}
    elif channels is not None:
        if isinstance(channels, list) and not all(isinstance(c, str) and c.strip() for c in channels):
            raise Defect("channels_not_text", f"channels is {shown(channels)}; texts that are not blank are allowed")
        if not isinstance(channels, list | str):
            raise Defect(
                "channels_not_a_list",
                f"channels is {shown(channels)}; an array, an object of yes or no, or null is allowed",
            )
        fields["channels"] = _texts(channels, "channels")


def _yes_or_no(value: Any, name: str) -> bool:
    folded = str(value).strip().lower() if isinstance(value, bool | int | str) else None
    if folded in _YES:
        return True
    if folded in _NO:
        return False
    raise Defect("consent_unclear", f"{name} is {shown(value)}; true or false is allowed")
