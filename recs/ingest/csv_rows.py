"""CSV, row by row in bounded memory."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from recs.ingest.lines import damaged
from recs.ingest.records import PREFIX_BYTES, RawRecord, Reject, make_reject
from recs.ingest.rows import FlatRows, RowGrouper
from recs.ingest.stream import DamagedStream

DELIMITERS = ",;\t|"


class _RowTooLong(Exception):  # noqa: N818 - ends the reading of one row
    pass


class CsvReader:
    """Reads CSV from a stream; a row that cannot be read is a Reject, and the next one goes on."""

    def __init__(
        self,
        source: str,
        read: Callable[[], bytes],
        header: Sequence[str],
        delimiter: str,
        rows: RowGrouper | FlatRows,
        max_record_bytes: int,
    ) -> None:
        self._source = source
        self._read = read
        self._header = list(header)
        self._delimiter = delimiter
        self._rows = rows
        self._limit = max_record_bytes
        self._physical = self._physical_lines()
        self._pushed: deque[bytes] = deque()
        self._taken: list[bytes] = []
        """The lines of the row that is being read; a quoted line break makes a row span several."""
        self._held = 0
        self._ended = False
        """Whether the file ended while a row was being read."""
        self.blank = 0
        # The csv module's own limit is per process and low (131,072). Raising it harms nobody: rows are bounded here.
        csv.field_size_limit(max(csv.field_size_limit(), 2 * max_record_bytes))

    def records(self) -> Iterator[RawRecord | Reject]:
        """Yield what the rows below the header amount to."""
        reader = self._reader()
        number = -1  # the header becomes row 0
        while True:
            self._taken, self._held, self._ended = [], 0, False
            problem = ""
            cells: list[str] = []
            try:
                cells = next(reader)
            except StopIteration:
                break
            except DamagedStream as damage:
                yield from self._rows.finish()
                yield damaged(self._source, max(number + 1, 1), None, b"".join(self._taken)[:PREFIX_BYTES], damage)
                return
            except _RowTooLong:
                problem = f"the row has more than {self._limit:,} bytes"
            except csv.Error as exc:
                problem = str(exc)
            if self._ended:
                problem = "the file ends inside the quotes of a cell"
            if not problem and not cells:
                self.blank += 1
                continue
            number += 1
            if problem:
                yield self._bad_row(number, problem)
                reader = self._reader()
            elif number > 0 and len(cells) != len(self._header):
                message = f"the row has {len(cells)} cells; the header has {len(self._header)}, which is allowed"
                raw = b"".join(self._taken).rstrip(b"\r\n")
                yield make_reject(self._source, number, None, "csv_row_width", message, raw)
            elif number > 0:
                yield from self._rows.add(number, dict(zip(self._header, cells, strict=True)))
        yield from self._rows.finish()

    def _reader(self) -> Iterator[list[str]]:
        return csv.reader(self._lines(), delimiter=self._delimiter)

    def _bad_row(self, number: int, problem: str) -> Reject:
        """Return the Reject of the row's first line; the lines after it are read again, as rows of their own.

        A quote that is never closed would otherwise take everything below it along.
        """
        first, *rest = self._taken
        self._pushed.extendleft(reversed(rest))
        cut = len(first) > self._limit
        code = "csv_unclosed_quote" if rest else "record_too_long" if cut else "csv_malformed"
        message = f"{problem}; a quote in a cell has to be closed, and doubled inside one"
        raw = first.rstrip(b"\r\n")
        return make_reject(self._source, number, None, code, message, raw, cut=cut)

    def _lines(self) -> Iterator[str]:
        while True:
            line = self._pushed.popleft() if self._pushed else next(self._physical, None)
            if line is None:
                self._ended = bool(self._taken)
                return
            self._taken.append(line)
            self._held += len(line)
            if self._held > self._limit:
                raise _RowTooLong
            yield line.decode(errors="surrogateescape")

    def _physical_lines(self) -> Iterator[bytes]:
        """Yield each line with its end; of one that is too long only the beginning, longer than the limit."""
        rest = b""
        skipping = False
        while block := self._read():
            first, newline, others = block.partition(b"\n")
            if not skipping:
                rest += first
            if not newline:
                if len(rest) > self._limit and not skipping:
                    rest, skipping = rest[: self._limit + 1], True
                continue
            yield rest if skipping else rest + newline
            rest, skipping = b"", False
            if others:
                lines = others.split(b"\n")
                rest = lines.pop()
                for line in lines:
                    yield line + b"\n"
        if rest:
            yield rest


def find_header(head: bytes, wanted: set[str]) -> tuple[list[str], str] | None:
    """Return the header of a CSV file and its delimiter: the first under which every column wanted is there.

    None where no delimiter fits.
    """
    text = head.decode(errors="surrogateescape").lstrip("\ufeff")
    for delimiter in DELIMITERS:
        try:
            header = next(csv.reader(text.lstrip().splitlines(keepends=True), delimiter=delimiter), [])
        except csv.Error:
            continue
        if wanted <= set(header):
            return header, delimiter
    return None
