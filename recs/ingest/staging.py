"""A scratch file that holds what one run accepted until it is loaded, so that memory does not grow with the input."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from recs.errors import RunError
from recs.ingest.records import Accepted
from recs.model import Conversation

_WRITE_ROWS = 500

_validator = Conversation.__pydantic_validator__


@dataclass(frozen=True, slots=True)
class StagedRecord:
    """The last version of a conversation in a run."""

    conversation: Conversation
    content_hash: str
    position: int
    """Line of this version in its file."""
    earlier_hashes: tuple[str, ...] = ()
    """Content hashes of the versions read before, in the order read."""

    @property
    def hashes(self) -> tuple[str, ...]:
        """The content hash of every line of this id, in the order read: what `classify` takes."""
        return (*self.earlier_hashes, self.content_hash)


@dataclass(frozen=True, slots=True)
class StagedCounts:
    lines: int
    """Accepted records."""
    conversations: int
    """Distinct conversation ids among them."""


class Staging:
    """Spools accepted records to an SQLite file that goes away on close. May be used from several threads.

    Call `add` for every record in the order read, then `finish`, then the rest.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[tuple[str, int, str, bytes]] = []
        self._lock = threading.RLock()
        self._counts: StagedCounts | None = None
        self._db: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # of a run that was killed
            db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        except (OSError, sqlite3.Error) as exc:
            raise RunError(f"cannot write the staging file {path}: {exc}") from exc
        self._db = db
        # Scratch: lost with the process anyway, so neither a journal nor a wait for the disk.
        self._execute("PRAGMA journal_mode = OFF")
        self._execute("PRAGMA synchronous = OFF")
        self._execute("PRAGMA cache_size = -8000")
        self._execute(
            "CREATE TABLE staged (seq INTEGER PRIMARY KEY, conversation_id TEXT NOT NULL, line INTEGER NOT NULL,"
            " hash TEXT NOT NULL, body BLOB NOT NULL)"
        )

    def add(self, accepted: Accepted, line: int) -> None:
        """Take in an accepted record that was read at a line."""
        with self._lock:
            self._rows.append((accepted.conversation.conversation_id, line, accepted.content_hash, accepted.body))
            if len(self._rows) >= _WRITE_ROWS:
                self._write()

    def finish(self) -> StagedCounts:
        """Settle which version of each id wins: the one read last. Returns the counts."""
        with self._lock:
            self._write()
            self._execute("CREATE INDEX by_id ON staged (conversation_id, seq)")
            self._execute("CREATE TABLE winner (seq INTEGER PRIMARY KEY, versions INTEGER NOT NULL)")
            self._execute("INSERT INTO winner SELECT max(seq), count(*) FROM staged GROUP BY conversation_id")
            [(lines, conversations)] = self._execute("SELECT coalesce(sum(versions), 0), count(*) FROM winner")
            self._counts = StagedCounts(lines, conversations)
            return self._counts

    def counts(self) -> StagedCounts:
        """Return how much is staged; raises RunError before `finish`."""
        if self._counts is None:
            raise RunError(f"the staging file {self._path} is asked for its counts before it is finished")
        return self._counts

    def winners(self, batch_size: int) -> Iterator[list[StagedRecord]]:
        """Yield the winning version of every id in batches, in the order in which the winners were read."""
        self.counts()
        last = 0
        while True:
            with self._lock:
                rows = self._execute(
                    "SELECT seq, versions, conversation_id, line, hash, body FROM winner JOIN staged USING (seq)"
                    " WHERE seq > ? ORDER BY seq LIMIT ?",
                    (last, batch_size),
                )
                earlier = {row[0]: self._earlier(row[2], row[0]) for row in rows if row[1] > 1}
            if not rows:
                return
            last = rows[-1][0]
            yield [
                StagedRecord(_validator.validate_json(body), content_hash, line, earlier.get(seq, ()))
                for seq, _, _, line, content_hash, body in rows
            ]

    def _earlier(self, conversation_id: str, seq: int) -> tuple[str, ...]:
        rows = self._execute(
            "SELECT hash FROM staged WHERE conversation_id = ? AND seq < ? ORDER BY seq", (conversation_id, seq)
        )
        return tuple(row[0] for row in rows)

    def _write(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        self._execute("BEGIN")
        try:
            self._connection().executemany(
                "INSERT INTO staged (conversation_id, line, hash, body) VALUES (?, ?, ?, ?)", rows
            )
        except sqlite3.Error as exc:
            raise RunError(f"cannot write the staging file {self._path}: {exc}") from exc
        self._execute("COMMIT")

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise RunError(f"the staging file {self._path} is closed")
        return self._db

    def _execute(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection().execute(sql, values).fetchall()
        except sqlite3.Error as exc:
            raise RunError(f"cannot use the staging file {self._path}: {exc}") from exc

    def close(self) -> None:
        """Delete the file; may be called twice."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
