"""The first stage of a run: files in, accepted records staged, the rest in the quarantine, everything counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from recs.ingest.mapping import ColumnMapping
from recs.ingest.quarantine import Quarantine
from recs.ingest.records import Reject
from recs.ingest.sources import Source
from recs.ingest.staging import Staging
from recs.ingest.times import LATEST
from recs.ingest.validate import parse_record

#: Records between two reports of progress.
_PROGRESS_RECORDS = 500

#: Clocks of other machines run ahead; more than this is a mistake.
FUTURE_ALLOWED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input file of a run, as lineage records it."""

    path: str
    sha256: str
    """Of the file itself, compressed where it is."""
    bytes: int
    format: str
    records: int


@dataclass(slots=True)
class ExtractCounts:
    """read = accepted + rejected, always."""

    read: int = 0
    accepted: int = 0
    blank: int = 0
    """Blank lines; not part of `read`."""
    rejected: int = 0
    """Whole records."""
    rejected_engagements: int = 0
    """Engagements left out of records that were accepted."""
    repaired: dict[str, int] = field(default_factory=dict)
    """Repair code to the number of records that took it."""
    reject_codes: dict[str, int] = field(default_factory=dict)
    """Code to the number of rejects, records and engagements alike."""
    inputs: list[InputFile] = field(default_factory=list)


def extract(
    paths: Sequence[Path],
    staging: Staging,
    quarantine: Quarantine,
    *,
    run_id: str,
    known_campaigns: Container[str] | None,
    mapping: ColumnMapping | None = None,
    max_record_bytes: int,
    progress: Callable[[int, int], None] | None = None,
    latest: datetime | None = None,
) -> ExtractCounts:
    """Read files into a staging file and finish it; returns what was met.

    `progress` gets the bytes done and the bytes in all. A time after `latest`, by default a day from now, counts as
    a mistake. Raises InputError where a file cannot be read at all, before anything of any file is staged.
    """
    latest = latest or min(datetime.now(UTC) + FUTURE_ALLOWED, LATEST)
    counts = ExtractCounts()
    repaired: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    # All are opened once up front, so that a wrong name does not surface an hour into the run.
    total = 0
    for path in paths:
        with Source(path, mapping=mapping, max_record_bytes=max_record_bytes) as source:
            total += source.size
    done = 0

    def put_away(reject: Reject) -> None:
        codes[reject.code] += 1
        quarantine.add(reject, run_id)

    for path in paths:
        with Source(path, mapping=mapping, max_record_bytes=max_record_bytes) as source:
            before = counts.read
            for raw in source:
                counts.read += 1
                if progress is not None and counts.read % _PROGRESS_RECORDS == 0:
                    progress(done + source.bytes_done, total)
                outcome = (
                    raw
                    if isinstance(raw, Reject)
                    else parse_record(raw, known_campaigns=known_campaigns, latest=latest)
                )
                if isinstance(outcome, Reject):
                    counts.rejected += 1
                    put_away(outcome)
                    continue
                counts.accepted += 1
                staging.add(outcome, raw.line)
                if outcome.repairs:
                    repaired.update(outcome.repairs)
                counts.rejected_engagements += len(outcome.rejects)
                for reject in outcome.rejects:
                    put_away(reject)
            counts.blank += source.blank
            counts.inputs.append(
                InputFile(str(path), source.sha256(), source.size, source.format, counts.read - before)
            )
            done += source.size
            if progress is not None:
                progress(done, total)
    quarantine.flush()
    staging.finish()
    counts.repaired = dict(sorted(repaired.items()))
    counts.reject_codes = dict(sorted(codes.items()))
    return counts
