"""Any input file in, raw records out. The format is told by the content, never by the name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from recs.errors import InputError
from recs.ingest.array import ArrayReader
from recs.ingest.csv_rows import CsvReader, find_header
from recs.ingest.lenient_json import BOM
from recs.ingest.lines import LineReader
from recs.ingest.mapping import ColumnMapping
from recs.ingest.records import RawRecord, Reject
from recs.ingest.rows import FlatRows, RowGrouper
from recs.ingest.stream import ByteStream

__all__ = ["ColumnMapping", "RawRecord", "Source", "read_records"]

Format = Literal["json_array", "json_lines", "csv", "parquet"]

_TABLE_NAMES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


class Source:
    """One input file: iterate it once for its records, then ask for what only the end knows.

    Raises InputError where the file cannot be read, can hold no records, or is a table that the mapping does not fit.
    With `flat_key` each row of a table is a record of its own, as campaigns are; the key is a column that is always
    there. Use as a context manager.
    """

    def __init__(
        self, path: Path, *, mapping: ColumnMapping | None = None, max_record_bytes: int, flat_key: str | None = None
    ) -> None:
        self.path = path
        self._name = str(path)
        self._mapping = mapping
        self._limit = max_record_bytes
        self._flat_key = flat_key
        self._stream = ByteStream(path)
        self._reader: LineReader | ArrayReader | CsvReader | None = None
        try:
            self.format: Format = self._open()
        except BaseException:
            self._stream.close()
            raise

    def _open(self) -> Format:
        stream, name, limit = self._stream, self._name, self._limit
        if stream.is_parquet:
            return "parquet"
        start = len(BOM) if stream.head.startswith(BOM) else 0
        read = _Skipping(stream, start).read
        head = stream.head[start:].lstrip()
        if head.startswith(b"["):
            self._reader = ArrayReader(name, read, limit, offset=start)
            return "json_array"
        if head.startswith(b"{"):
            self._reader = LineReader(name, read, limit, offset=start)
            return "json_lines"
        wanted = {self._flat_key} if self._flat_key else {"conversation_id", "user_id"}
        if self._mapping is not None:
            wanted = set(self._mapping.columns.values())
        found = find_header(stream.head, wanted)
        if found is None and self._mapping is not None:
            first = head.partition(b"\n")[0][:200].decode(errors="replace")
            raise InputError(
                f"{name} has not the columns of the mapping ({', '.join(sorted(wanted))}); its first line is {first!r}"
            )
        if found is None:
            if name.lower().endswith(_TABLE_NAMES):
                raise InputError(
                    f"{name} is a table whose columns are not called {', '.join(sorted(wanted))} and so on; "
                    "a column mapping is needed (docs/data-formats.md)"
                )
            # Whatever it is, it is not lost: every line that is no record goes to the quarantine.
            self._reader = LineReader(name, read, limit, offset=start)
            return "json_lines"
        header, delimiter = found
        rows = self._rows(self._mapping or ColumnMapping.of_header(header))
        self._reader = CsvReader(name, read, header, delimiter, rows, limit)
        return "csv"

    def _rows(self, mapping: ColumnMapping) -> RowGrouper | FlatRows:
        return FlatRows(self._name, mapping) if self._flat_key else RowGrouper(self._name, mapping, self._limit)

    def __iter__(self) -> Iterator[RawRecord | Reject]:
        if self._reader is not None:
            return self._reader.records()
        from recs.ingest.parquet import read_parquet  # see there

        return read_parquet(self._name, self.path, self._mapping, self._rows)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.close()

    @property
    def blank(self) -> int:
        """Blank lines so far; they are no records."""
        return self._reader.blank if self._reader is not None else 0

    @property
    def size(self) -> int:
        """Bytes of the file itself, compressed where it is."""
        return self._stream.size

    @property
    def bytes_done(self) -> int:
        """Bytes of the file itself that have been read; stays near 0 for Parquet, which is read out of order."""
        return self._stream.bytes_done

    def sha256(self) -> str:
        """Return the sha256, hex, of the file itself. Reads the rest where the records ended early, and all of
        Parquet."""
        return self._stream.sha256()


class _Skipping:
    """A stream without its first bytes."""

    def __init__(self, stream: ByteStream, count: int) -> None:
        self._stream = stream
        self._count = count

    def read(self) -> bytes:
        block = self._stream.read()
        if self._count:
            block, self._count = block[self._count :], 0
            return block or self._stream.read()
        return block


def read_records(
    path: Path, *, mapping: ColumnMapping | None = None, max_record_bytes: int
) -> Iterator[RawRecord | Reject]:
    """Yield the records of a file in bounded memory, and a Reject for each piece that is no record.

    The file may be a JSON array, JSON Lines, CSV, gzip of any of these, or Parquet. Raises InputError at the first
    record where the file is missing, unreadable, empty, or a table that the mapping does not fit.
    """
    with Source(path, mapping=mapping, max_record_bytes=max_record_bytes) as source:
        yield from source
