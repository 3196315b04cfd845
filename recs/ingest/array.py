"""JSON arrays of any size, split into their elements without being parsed: the elements go where lines go."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from recs.ingest.lines import LineReader, damaged, too_long
from recs.ingest.records import PREFIX_BYTES, RawRecord, Reject, make_reject
from recs.ingest.stream import DamagedStream

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rb'[^"{}\[\]]++|' + _STRING
#: Passes over whole strings and whole flat objects, at most 1,000 at a time, up to the next bracket if there is one.
#: The quantifiers are possessive, so that time is linear in the bytes whatever they are.
_SKIP = re.compile(rb"(?:" + _FLAT + rb"|\{(?:" + _FLAT + rb"){0,1000}+\}){0,1000}+([{}\[\]])?", re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+("?)', re.DOTALL)
_BETWEEN = re.compile(rb"\s*+")
_SCALAR_END = re.compile(rb"[,\]\s]")


class ArrayReader:
    """Splits the array that a stream starts with; what follows the array is read as JSON Lines."""

    def __init__(self, source: str, read: Callable[[], bytes], max_record_bytes: int, *, offset: int = 0) -> None:
        self._source = source
        self._read = read
        self._limit = max_record_bytes
        self._buffer = b""
        self._pos = 0
        self._base = offset
        """Byte offset in the stream of the buffer's first byte."""
        self._line = 1
        """Line of the byte at `_counted`."""
        self._counted = 0
        self.blank = 0

    def records(self) -> Iterator[RawRecord | Reject]:
        """Yield each element, and one Reject where the array is broken off or the file is damaged."""
        try:
            yield from self._elements()
        except DamagedStream as damage:
            self._count_to(self._pos)
            rest = self._buffer[self._pos : self._pos + PREFIX_BYTES]
            yield damaged(self._source, self._line, self._base + self._pos, rest, damage)

    def _elements(self) -> Iterator[RawRecord | Reject]:
        self._between()
        self._pos += 1  # the opening bracket, which is why this reader was chosen
        while True:
            here = self._between()
            if here == b",":
                # Between two elements, or after the last one, where JSON does not allow it but nothing is lost.
                self._pos += 1
                here = self._between()
            if here == b"]":
                self._pos += 1
                yield from self._after()
                return
            if here == b"":
                yield self._broken("array_truncated", "the array is not closed by ]: the file ends before")
                return
            yield from self._element()
            here = self._between()
            if here not in (b",", b"]", b""):
                yield self._broken("array_broken", f"after an array element comes {here!r}; a comma or ] is allowed")
                return

    def _between(self) -> bytes:
        """Go to the next byte that is not white; it comes back, empty at the end."""
        while True:
            if match := _BETWEEN.match(self._buffer, self._pos):
                self._pos = match.end()
            if self._pos < len(self._buffer):
                return self._buffer[self._pos : self._pos + 1]
            if not self._more(self._base + self._pos):
                return b""

    def _element(self) -> Iterator[RawRecord | Reject]:
        """Go to the end of the element that starts here, and yield it."""
        self._count_to(self._pos)
        line, start = self._line, self._base + self._pos
        prefix: list[bytes] = []
        complete = self._skip_element(start, prefix)
        size = self._base + self._pos - start
        if prefix or size > self._limit:
            first = prefix[0] if prefix else self._buffer[start - self._base :][:PREFIX_BYTES]
            yield too_long(self._source, line, start, first, size, self._limit)
        elif complete:
            yield RawRecord(self._source, line, start, self._buffer[start - self._base : self._pos])
        else:
            message = "the file ends inside an array element; the array has to be closed by ]"
            rest = self._buffer[start - self._base :]
            yield make_reject(self._source, line, start, "array_truncated", message, rest, cut=True)
        if not complete:
            # One Reject stands for the end of the file, not a second one for the bracket that is missing.
            self._buffer, self._pos, self._counted = b"]", 0, 0

    def _skip_element(self, start: int, prefix: list[bytes]) -> bool:
        """Move to the byte after the element; returns False where the file ends before.

        Once the element is longer than allowed, its first bytes go into `prefix` and what has been passed is let go.
        """
        first = self._buffer[self._pos : self._pos + 1]
        scalar = first not in (b"{", b"[", b'"')
        in_string = first == b'"'
        depth = 0 if scalar or in_string else 1
        self._pos += 1
        while True:
            buffer, pos = self._buffer, self._pos
            if scalar:
                found = _SCALAR_END.search(buffer, pos)
                self._pos = found.start() if found else len(buffer)
                if found:
                    return True
            elif in_string:
                match = _IN_STRING.match(buffer, pos)
                if match is not None:
                    self._pos = match.end()
                    if match[1]:
                        in_string = False
                        if depth == 0:
                            return True
                        continue
            else:
                match = _SKIP.match(buffer, pos)
                if match is not None and match.end() > pos:
                    self._pos = match.end()
                    if match[1]:
                        depth += 1 if match[1] in b"{[" else -1
                        if depth == 0:
                            return True
                    continue
                if pos < len(buffer):  # a string that does not end in this buffer
                    in_string, self._pos = True, pos + 1
                    continue
            here = self._base + self._pos
            if not prefix and here - start > self._limit:
                prefix.append(self._buffer[start - self._base :][:PREFIX_BYTES])
            if not self._more(here if prefix else start):
                return False

    def _more(self, keep: int) -> bool:
        """Read on, letting go of what is before an offset in the stream; returns False at the end."""
        block = self._read()
        drop = min(keep - self._base, len(self._buffer))
        self._count_to(max(self._counted, drop))
        self._buffer = self._buffer[drop:] + block
        self._base += drop
        self._pos -= drop
        self._counted -= drop
        return bool(block)

    def _count_to(self, pos: int) -> None:
        self._line += self._buffer.count(b"\n", self._counted, pos)
        self._counted = pos

    def _broken(self, code: str, message: str) -> Reject:
        self._count_to(self._pos)
        rest = self._buffer[self._pos : self._pos + PREFIX_BYTES]
        return make_reject(self._source, self._line, self._base + self._pos, code, message, rest, cut=True)

    def _after(self) -> Iterator[RawRecord | Reject]:
        """Yield what follows the array, if anything, as lines: a file may be several pieces put together."""
        if not self._between():
            return
        self._count_to(self._pos)
        pending = [self._buffer[self._pos :]]

        def read() -> bytes:
            return pending.pop() if pending else self._read()

        lines = LineReader(self._source, read, self._limit, line=self._line, offset=self._base + self._pos)
        yield from lines.records()
        self.blank += lines.blank
