"""Input files of a benchmark: their conversations, their distinct texts, and what a result says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.samples import ROOT, shown_path
from recs.batch.vectors import campaign_text
from recs.embed import normalise_text, text_key
from recs.ingest.catalogue import read_campaigns
from recs.ingest.records import Accepted, RawRecord
from recs.ingest.sources import read_records
from recs.ingest.validate import parse_record
from recs.model import Campaign, Conversation
from recs.settings import Settings

SAMPLE = ROOT / "data" / "sample_conversations.json"
SAMPLE_CAMPAIGNS = ROOT / "data" / "sample_campaigns.json"


@dataclass(frozen=True, slots=True)
class Input:
    """A file of conversations, with the catalogue that belongs to it, read as the flow reads them."""

    conversations: Path
    campaigns: Path | None
    limit: int | None = None
    """The first so many records; None takes all."""

    def records(self, settings: Settings) -> Iterator[RawRecord]:
        """Yield the raw records that are taken."""
        every = read_records(self.conversations, max_record_bytes=settings.max_record_bytes)
        for raw in islice(every, self.limit):
            if isinstance(raw, RawRecord):
                yield raw

    def accepted(self, settings: Settings) -> list[Conversation]:
        """Return the conversations that the flow would load; of several with one id the last."""
        kept: dict[str, Conversation] = {}
        for raw in self.records(settings):
            parsed = parse_record(raw, known_campaigns=None)
            if isinstance(parsed, Accepted):
                kept[parsed.conversation.conversation_id] = parsed.conversation
        if not kept:
            raise BenchmarkError(f"{shown_path(self.conversations)} holds no conversation that can be loaded")
        return list(kept.values())

    def catalogue(self, settings: Settings) -> list[Campaign]:
        """Return the campaigns, none where there is no catalogue."""
        if self.campaigns is None:
            return []
        return read_campaigns(self.campaigns, max_record_bytes=settings.max_record_bytes)[0]

    def described(self, settings: Settings) -> list[dict[str, Any]]:
        """Return path, sha256 and the rows taken of each file, as results hold them."""
        rows = sum(1 for _ in self.records(settings))
        described = [{"path": shown_path(self.conversations), "sha256": sha256(self.conversations), "rows": rows}]
        if self.campaigns is not None:
            size = len(self.catalogue(settings))
            described.append({"path": shown_path(self.campaigns), "sha256": sha256(self.campaigns), "rows": size})
        return described

    def written(self, folder: Path, settings: Settings) -> Path:
        """Return a file of the records that are taken: the file itself, or JSON Lines of its beginning."""
        if self.limit is None:
            return self.conversations
        path = folder / "limited.jsonl"
        with path.open("wb") as file:
            for raw in self.records(settings):
                file.write(raw.data.replace(b"\n", b" ") + b"\n")
        return path


def given(conversations: Path | None, campaigns: Path | None, limit: int | None = None) -> Input:
    """Return what the options of a command name; the sample with its catalogue where they name nothing."""
    if conversations is None:
        return Input(SAMPLE, campaigns or SAMPLE_CAMPAIGNS, limit)
    return Input(conversations, campaigns, limit)


def distinct_texts(texts: Sequence[str], settings: Settings) -> list[str]:
    """Return the texts as the encoder gets them, each once, in the order they first come in."""
    found: dict[str, str] = {}
    for text in texts:
        words = normalise_text(text, settings.max_text_chars)
        if words:
            found.setdefault(text_key(words), words)
    return list(found.values())


def encoded_texts(
    conversations: Sequence[Conversation], campaigns: Sequence[Campaign], settings: Settings
) -> list[str]:
    """Return every distinct text that a first run of the flow encodes."""
    said = [text for c in conversations for text in c.user_texts()]
    return distinct_texts([*said, *(campaign_text(c) for c in campaigns)], settings)


def sha256(path: Path) -> str:
    """Return the sha256, hex, of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
