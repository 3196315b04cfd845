"""What passes between reading, validating and the quarantine."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Literal

from recs.model import Conversation

Part = Literal["record", "engagement"]

#: Of a record that is too long, or of the damaged rest of a file, this much is kept for a person to look at.
PREFIX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record as bytes of JSON, not looked into yet."""

    source: str
    line: int
    """1-based line where the record starts; for CSV and Parquet the 1-based number of its first data row."""
    offset: int | None
    """Byte offset in the decompressed stream; None where the format has none (CSV, Parquet)."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Reject:
    """What was not accepted, and why. `message` says what was met and what is allowed."""

    source: str
    line: int
    offset: int | None
    code: str
    """Stable, snake_case; docs/data-formats.md lists every one."""
    message: str
    raw: str
    """The text as it came. Bytes that are not UTF-8 show as \\xNN; `raw_base64` then holds the exact bytes."""
    part: Part = "record"
    conversation_id: str | None = None
    raw_base64: str | None = None
    cut: bool = False
    """True where `raw` is only the beginning; such a reject cannot be replayed."""
    record: str | None = None
    """For a part of a record: the whole record, as JSON, which is what a replay reads."""

    def raw_bytes(self) -> bytes:
        """Return the exact bytes that were met."""
        return self.raw.encode() if self.raw_base64 is None else base64.b64decode(self.raw_base64)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A conversation that may be stored."""

    conversation: Conversation
    content_hash: str
    """sha256, hex, over the canonical JSON of the conversation: after repairs, without bad engagements, extra keys
    in order of their names, place in the file left out."""
    repairs: tuple[str, ...] = ()
    """Codes, one per kind, in the order met."""
    rejects: tuple[Reject, ...] = ()
    """Engagements that were left out."""
    body: bytes = field(default=b"", repr=False)
    """The canonical JSON."""


class Defect(Exception):  # noqa: N818 - it is a finding about data, turned into a Reject, and never leaves ingest
    """A reason not to accept a record or a part of it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def make_reject(
    source: str, line: int, offset: int | None, code: str, message: str, data: bytes, *, cut: bool = False
) -> Reject:
    """Return a Reject of a whole record whose bytes may be anything."""
    if cut:
        data = data[:PREFIX_BYTES]
    try:
        raw, encoded = data.decode(), None
    except UnicodeDecodeError:
        raw, encoded = data.decode(errors="backslashreplace"), base64.b64encode(data).decode("ascii")
    return Reject(source, line, offset, code, message, raw, raw_base64=encoded, cut=cut)


def content_hash(body: bytes) -> str:
    """Return the sha256, hex, of canonical JSON."""
    return hashlib.sha256(body).hexdigest()


def shown(value: object, limit: int = 80) -> str:
    """Return a value as a message may show it: short, on one line."""
    try:
        text = repr(value)
    except ValueError:  # an integer beyond the interpreter's limit for printing
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"
