"""JSON Lines: one record per line, lines of any length in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from recs.ingest.records import PREFIX_BYTES, RawRecord, Reject, make_reject
from recs.ingest.stream import DamagedStream

#: What str.strip() of bytes takes off, which is also what JSON allows around a value.
WHITE = b" \t\r\n\v\f"


def too_long(source: str, line: int, offset: int, prefix: bytes, size: int, limit: int) -> Reject:
    """Return the Reject of a record that is longer than allowed."""
    message = f"the record has {size:,} bytes; at most {limit:,} are allowed (RECS_MAX_RECORD_BYTES)"
    return make_reject(source, line, offset, "record_too_long", message, prefix, cut=True)


def damaged(source: str, line: int, offset: int | None, rest: bytes, damage: DamagedStream) -> Reject:
    """Return the Reject that stands for the rest of a file that cannot be read on."""
    message = f"{damage.message}; what comes from here on is lost"
    return make_reject(source, line, offset, damage.code, message, rest, cut=True)


class LineReader:
    """Splits a stream into lines. `blank` counts those that hold nothing."""

    def __init__(
        self, source: str, read: Callable[[], bytes], max_record_bytes: int, *, line: int = 1, offset: int = 0
    ) -> None:
        self._source = source
        self._read = read
        self._limit = max_record_bytes
        self._line = line
        self._offset = offset
        self.blank = 0

    def records(self) -> Iterator[RawRecord | Reject]:
        """Yield each line that holds anything."""
        parts: list[bytes] = []
        held = 0
        while True:
            try:
                block = self._read()
            except DamagedStream as damage:
                yield damaged(self._source, self._line, self._offset, b"".join(parts)[:PREFIX_BYTES], damage)
                return
            if not block:
                break
            start = 0
            while (end := block.find(b"\n", start)) >= 0:
                parts.append(block[start:end])
                size = held + end - start
                yield from self._line_of(parts, size)
                self._line += 1
                self._offset += size + 1
                parts, held, start = [], 0, end + 1
            if start < len(block):
                held += len(block) - start
                # Beyond the limit only the first bytes are worth keeping; the rest is counted.
                if held <= self._limit + 1:
                    parts.append(block[start:])
                else:
                    parts = [b"".join([*parts, block[start : start + PREFIX_BYTES]])[:PREFIX_BYTES]]
        if held:
            yield from self._line_of(parts, held)

    def _line_of(self, parts: list[bytes], size: int) -> Iterator[RawRecord | Reject]:
        # One byte more than the limit may be the carriage return of the line's end.
        if size > self._limit + 1:
            yield too_long(self._source, self._line, self._offset, b"".join(parts)[:PREFIX_BYTES], size, self._limit)
            return
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if data.endswith(b"\r"):
            data = data[:-1]
        if len(data) > self._limit:
            yield too_long(self._source, self._line, self._offset, data[:PREFIX_BYTES], size, self._limit)
        elif data.isspace() or not data:
            self.blank += 1
        else:
            yield RawRecord(self._source, self._line, self._offset, data)
