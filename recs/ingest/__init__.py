"""Reading of input files: conversations, campaigns and preferences; what is bad goes to the quarantine.

No store, no network: files in, plain data out. docs/data-formats.md tells users what is read and what becomes of
each defect.
"""

from recs.ingest.catalogue import read_campaigns, read_preferences
from recs.ingest.classify import Classified, classify
from recs.ingest.extract import ExtractCounts, InputFile, extract
from recs.ingest.mapping import ColumnMapping
from recs.ingest.quarantine import Entry, Quarantine
from recs.ingest.records import Accepted, RawRecord, Reject
from recs.ingest.sources import Source, read_records
from recs.ingest.staging import StagedCounts, StagedRecord, Staging
from recs.ingest.validate import parse_record

__all__ = [
    "Accepted",
    "Classified",
    "ColumnMapping",
    "Entry",
    "ExtractCounts",
    "InputFile",
    "Quarantine",
    "RawRecord",
    "Reject",
    "Source",
    "StagedCounts",
    "StagedRecord",
    "Staging",
    "classify",
    "extract",
    "parse_record",
    "read_campaigns",
    "read_preferences",
    "read_records",
]
