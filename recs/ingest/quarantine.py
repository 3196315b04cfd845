"""What was not accepted, kept so that nothing is lost: JSON Lines that are appended to and never half-written.

`rejects.jsonl` holds lines of three kinds:

    {"entry_id", "source", "line", "offset", "code", "message", "raw", "part", "run_id", "at", ...}
    {"record_id", "record"}         the whole record that rejected engagements came from, once
    {"settled", "at"}               the entry of this id is done with: it was replayed or removed

`index.sqlite` is derived from it, can be deleted at any time, and makes "held once" possible without holding every
entry in memory. Several processes may use one quarantine at a time.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recs.errors import RunError
from recs.ingest.records import Part, Reject

_BATCH = 256
_RECORD_PREFIX = "r-"


@dataclass(frozen=True, slots=True)
class Entry:
    """A reject in the quarantine. Fields as in `Reject`."""

    entry_id: str
    """Stable: the same reject of the same content, read twice from the same place, is one entry."""
    source: str
    line: int
    offset: int | None
    code: str
    message: str
    raw: str
    part: Part
    run_id: str
    """The run that met it first."""
    at: str
    """When, ISO 8601 in UTC."""
    conversation_id: str | None = None
    raw_base64: str | None = None
    cut: bool = False
    record_id: str | None = None
    """For an engagement: the record that it came from."""

    def raw_bytes(self) -> bytes:
        """Return the exact bytes that were met."""
        return self.raw.encode() if self.raw_base64 is None else base64.b64decode(self.raw_base64)


class Quarantine:
    """The quarantine in a directory, `home/quarantine`. `add` gathers; `flush`, or a full batch, makes durable."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "rejects.jsonl"
        self._index_path = directory / "index.sqlite"
        self._pending: list[tuple[Reject, str]] = []
        self._mutex = threading.RLock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise RunError(f"cannot use the quarantine {directory}: {exc}") from exc

    def add(self, reject: Reject, run_id: str) -> None:
        """Keep a reject that a run met. It is on disk after the next `flush`."""
        with self._mutex:
            self._pending.append((reject, run_id))
            if len(self._pending) >= _BATCH:
                self.flush()

    def flush(self) -> None:
        """Write what was added and wait until the disk has it."""
        with self._mutex:
            pending, self._pending = self._pending, []
            if not pending:
                return
            with self._locked() as index:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                lines: list[dict[str, Any]] = []
                new: set[str] = set()
                for reject, run_id in pending:
                    entry_id = _entry_id(reject)
                    if entry_id in new or index.state(entry_id) == "open":
                        continue
                    new.add(entry_id)
                    line = asdict(reject) | {"entry_id": entry_id, "run_id": run_id, "at": now}
                    record = line.pop("record")
                    if record is not None:
                        line["record_id"] = record_id = _RECORD_PREFIX + _digest(record)
                        if record_id not in new and index.state(record_id) is None:
                            new.add(record_id)
                            lines.append({"record_id": record_id, "record": record})
                    lines.append({k: v for k, v in line.items() if v is not None and v is not False})
                self._append(lines, index)

    def entries(self, run_id: str | None = None) -> Iterator[Entry]:
        """Yield what is held, of one run or of all, in the order met, in bounded memory."""
        self.flush()
        with self._locked() as index:
            end = index.indexed
        # Read without the lock: a reader that takes its time keeps nobody from writing.
        held = _Index(self._index_path)
        try:
            for offset, line in self._lines(end):
                if "entry_id" in line and held.is_at(line["entry_id"], offset):
                    entry = _entry(line)
                    if run_id is None or entry.run_id == run_id:
                        yield entry
        finally:
            held.close()

    def count(self) -> int:
        """Return how many entries are held."""
        self.flush()
        with self._locked() as index:
            return index.count()

    def settle(self, entry_ids: Iterable[str]) -> int:
        """Take entries out, because they were replayed or are of no use; returns how many were there."""
        self.flush()
        with self._locked() as index:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            ids = [entry_id for entry_id in dict.fromkeys(entry_ids) if index.state(entry_id) == "open"]
            self._append([{"settled": entry_id, "at": now} for entry_id in ids], index)
            return len(ids)

    def write_replay(self, path: Path, entry_ids: Collection[str] | None = None) -> list[str]:
        """Write the records behind entries, or behind all, as JSON Lines to a file; returns the ids of the entries.

        A rejected engagement brings its whole record, once. An entry that holds the beginning of a record alone
        cannot be replayed and is left out.
        """
        chosen: list[str] = []
        records: set[str] = set()
        with path.open("wb") as file:
            for entry in self.entries():
                if (entry_ids is not None and entry.entry_id not in entry_ids) or entry.cut:
                    continue
                chosen.append(entry.entry_id)
                if entry.record_id is not None:
                    records.add(entry.record_id)
                    continue
                file.write(_one_line(entry.raw_bytes()) + b"\n")
            for _, line in self._lines(None) if records else ():
                if line.get("record_id") in records and "record" in line:
                    records.remove(line["record_id"])
                    file.write(_one_line(line["record"].encode()) + b"\n")
        return chosen

    def erase(self, ids: Iterable[str]) -> int:
        """Drop every entry that mentions one of these ids of users or conversations; returns how many went.

        An id is mentioned where it stands by itself, not inside a longer word: in the raw text, the record, the
        message or as the conversation's id. Settled entries go in any case. The file is replaced in one step.
        """
        self.flush()
        pattern = _mention(ids)
        if pattern is None:
            return 0
        with self._locked() as index:
            dropped = 0
            gone: set[str] = set()
            needed: set[str] = set()
            staying: set[int] = set()
            # A record stands before the entries that came from it, so one pass decides.
            for offset, line in self._lines(index.indexed):
                if "record" in line:
                    if pattern.search(line["record"]):
                        gone.add(line["record_id"])
                elif "entry_id" in line and index.is_at(line["entry_id"], offset):
                    record_id = line.get("record_id")
                    if record_id in gone or _mentions(line, pattern):
                        dropped += 1
                    else:
                        staying.add(offset)
                        if record_id is not None:
                            needed.add(record_id)
            self._rewrite(
                index, lambda offset, line: offset in staying or ("record" in line and line["record_id"] in needed)
            )
            return dropped

    def _rewrite(self, index: _Index, stays: Callable[[int, dict[str, Any]], bool]) -> None:
        """Replace the file by one with these lines alone."""
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            for offset, line in self._lines(index.indexed):
                if stays(offset, line):
                    file.write(_encode(line))
            file.flush()
            os.fsync(file.fileno())
        index.clear()  # first, so that a crash between the two leaves no index of what is gone
        temporary.replace(self._path)
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._index_tail(index)

    def _append(self, lines: list[dict[str, Any]], index: _Index) -> None:
        if not lines:
            return
        try:
            with self._path.open("ab") as file:
                for line in lines:
                    file.write(_encode(line))
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise RunError(f"cannot write to the quarantine {self._path}: {exc}") from exc
        self._index_tail(index)

    def _lines(self, end: int | None, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield offset and content of each whole line that can be read."""
        if not self._path.exists():
            return
        offset = start
        with self._path.open("rb") as file:
            file.seek(start)
            while (end is None or offset < end) and (line := file.readline()):
                try:
                    value = json.loads(line)
                except ValueError:
                    value = None  # a line that a crash tore, ended by the next writer
                if isinstance(value, dict):
                    yield offset, value
                offset += len(line)

    def _index_tail(self, index: _Index) -> None:
        """Bring the index up to the end of the file."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if size < index.indexed:
            index.clear()
        if size > index.indexed:
            index.put(self._lines(size, index.indexed), size)

    @contextmanager
    def _locked(self) -> Iterator[_Index]:
        """Hold the right to write, with an index that knows all that the file holds."""
        try:
            with self._mutex, (self._directory / "lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._close_torn_line()
                index = _Index(self._index_path)
                try:
                    self._index_tail(index)
                    yield index
                finally:
                    index.close()
        except (OSError, sqlite3.Error) as exc:
            raise RunError(f"cannot use the quarantine {self._directory}: {exc}") from exc

    def _close_torn_line(self) -> None:
        """End a line that a crash left without an end, so that the next one does not continue it."""
        if not self._path.exists() or not self._path.stat().st_size:
            return
        with self._path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


class _Index:
    """Which ids the file holds: where each open entry stands. Derived, so a crash may lose it."""

    def __init__(self, path: Path) -> None:
        try:
            self._open(path)
        except sqlite3.OperationalError:
            raise  # busy, or no place to write to: nothing that making it anew would mend
        except sqlite3.DatabaseError:
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                path.with_name(name).unlink(missing_ok=True)
            self._open(path)

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS held (id TEXT PRIMARY KEY, offset INTEGER) WITHOUT ROWID")
        self._db.execute("CREATE TABLE IF NOT EXISTS indexed (bytes INTEGER NOT NULL)")

    @property
    def indexed(self) -> int:
        """Bytes of the file that the index knows."""
        row = self._db.execute("SELECT bytes FROM indexed").fetchone()
        return int(row[0]) if row else 0

    def state(self, entry_id: str) -> str | None:
        """Return "open", "settled", or None for an id that was never met. A record counts as open."""
        row = self._db.execute("SELECT offset FROM held WHERE id = ?", (entry_id,)).fetchone()
        return None if row is None else "settled" if row[0] is None else "open"

    def is_at(self, entry_id: str, offset: int) -> bool:
        """Return whether the line at this offset is the one that holds the entry now."""
        row = self._db.execute("SELECT offset FROM held WHERE id = ?", (entry_id,)).fetchone()
        return row is not None and row[0] == offset

    def count(self) -> int:
        """Return the number of open entries."""
        row = self._db.execute("SELECT count(*) FROM held WHERE offset >= 0 AND id NOT LIKE 'r-%'").fetchone()
        return int(row[0])

    def put(self, lines: Iterable[tuple[int, dict[str, Any]]], size: int) -> None:
        """Note lines, and that the file is known up to `size`."""
        self._db.execute("BEGIN IMMEDIATE")
        for offset, line in lines:
            if "entry_id" in line:
                row: tuple[str, int | None] = (line["entry_id"], offset)
            elif "settled" in line:
                row = (line["settled"], None)
            else:
                row = (line.get("record_id", ""), offset)
            self._db.execute("INSERT OR REPLACE INTO held (id, offset) VALUES (?, ?)", row)
        self._db.execute("DELETE FROM indexed")
        self._db.execute("INSERT INTO indexed (bytes) VALUES (?)", (size,))
        self._db.execute("COMMIT")

    def clear(self) -> None:
        """Forget everything."""
        self._db.execute("DELETE FROM held")
        self._db.execute("DELETE FROM indexed")

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode("ascii")).hexdigest()[:32]


def _entry_id(reject: Reject) -> str:
    return _digest(
        reject.source, reject.line, reject.part, reject.code, reject.message, reject.raw, reject.conversation_id
    )


def _entry(line: dict[str, Any]) -> Entry:
    return Entry(**{"offset": None} | {name: line[name] for name in Entry.__dataclass_fields__ if name in line})


def _one_line(record: bytes) -> bytes:
    """Return a record on one line; in JSON a line break can only be white space between its parts."""
    return record.replace(b"\r", b" ").replace(b"\n", b" ")


def _mentions(line: dict[str, Any], pattern: re.Pattern[str]) -> bool:
    return any(pattern.search(line.get(name) or "") for name in ("conversation_id", "raw", "message"))


def _mention(ids: Iterable[str]) -> re.Pattern[str] | None:
    """Return what finds these ids in raw text, where they may be written with the escapes of JSON."""
    spellings: dict[str, None] = {}
    for one in ids:
        for text in (one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1]):
            spellings[re.escape(text)] = None
            spellings[re.escape(text.replace("/", "\\/"))] = None
    spellings.pop("", None)
    if not spellings:
        return None
    return re.compile(rf"(?:(?<!\w)|(?<=\\[nrtbf]))(?:{'|'.join(spellings)})(?!\w)")
