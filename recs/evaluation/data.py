"""What is evaluated on: conversations and catalogue, read as the flow reads them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from recs.errors import InputError
from recs.ingest.catalogue import read_campaigns
from recs.ingest.extract import FUTURE_ALLOWED
from recs.ingest.records import Accepted, RawRecord
from recs.ingest.sources import read_records
from recs.ingest.times import LATEST
from recs.ingest.validate import parse_record
from recs.model import Campaign, StoredConversation


@dataclass(frozen=True, slots=True)
class Dataset:
    """Accepted conversations in the order of the file, and the catalogue sorted by id."""

    conversations: tuple[StoredConversation, ...]
    campaigns: tuple[Campaign, ...]
    rejected: int = 0
    """Records that the flow would send to the quarantine."""


def read_dataset(conversations: Path, campaigns: Path, *, max_record_bytes: int) -> Dataset:
    """Return what the flow would load of two files; of several versions of an id the one that is read last.

    Engagements with campaigns that are not in the catalogue are left out, as the flow leaves them out. Raises
    InputError where a file cannot be read or holds nothing that can be loaded.
    """
    catalogue = sorted(read_campaigns(campaigns, max_record_bytes=max_record_bytes)[0], key=lambda c: c.campaign_id)
    if not catalogue:
        raise InputError(f"{campaigns} holds no campaign; there is nothing to rank")
    known = {c.campaign_id for c in catalogue}
    found, rejected = read_conversations(conversations, known, max_record_bytes=max_record_bytes)
    if not found:
        raise InputError(f"{conversations} holds no conversation that can be loaded")
    return Dataset(tuple(found), tuple(catalogue), rejected)


def read_conversations(
    path: Path, known_campaigns: set[str], *, max_record_bytes: int
) -> tuple[list[StoredConversation], int]:
    """Return a file's conversations in its order, and the number of records that were rejected."""
    latest = min(datetime.now(UTC) + FUTURE_ALLOWED, LATEST)
    found: dict[str, StoredConversation] = {}
    rejected = 0
    for raw in read_records(path, max_record_bytes=max_record_bytes):
        parsed = (
            parse_record(raw, known_campaigns=known_campaigns, latest=latest) if isinstance(raw, RawRecord) else raw
        )
        if not isinstance(parsed, Accepted) or not isinstance(raw, RawRecord):
            rejected += 1
            continue
        conversation = parsed.conversation
        found.pop(conversation.conversation_id, None)  # the last version counts, at its own place
        found[conversation.conversation_id] = StoredConversation(conversation, parsed.content_hash, raw.line, "")
    return list(found.values()), rejected


def sha256(path: Path) -> str:
    """Return the sha256, hex, of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
