"""One commit for the rows of all threads that wait to write; nobody returns before their own row is committed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from recs.errors import StoreError, StoreUnavailableError

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[T]):
    row: T
    done: bool = False
    error: StoreError | None = None


class GroupCommit(Generic[T]):
    """Gather rows that arrive while a write is under way, and write them together next.

    A commit costs a wait for the disk however many rows it holds, so with n threads this is up to n times the rows
    per second. A lone thread writes at once, as without it.
    """

    def __init__(self, role: str, write: Callable[[Sequence[T]], None], *, timeout_seconds: float) -> None:
        self._role = role
        self._write = write
        self._timeout_seconds = timeout_seconds
        self._queue: list[_Waiting[T]] = []
        self._queue_lock = threading.Lock()
        self._turn = threading.Lock()

    def put(self, row: T) -> None:
        """Return once the row is committed; raises what writing it raised."""
        mine = _Waiting(row)
        with self._queue_lock:
            self._queue.append(mine)
        # Whoever gets the turn first writes for all that queue; the others then find their row done.
        if not self._turn.acquire(timeout=self._timeout_seconds):
            self._give_up(mine)
            return
        try:
            if not mine.done:
                self._write_queue(mine)
        finally:
            self._turn.release()
        if mine.error is not None:
            raise mine.error

    def _give_up(self, mine: _Waiting[T]) -> None:
        with self._queue_lock:
            if mine in self._queue:
                self._queue.remove(mine)
        if mine.error is not None:
            raise mine.error
        if not mine.done:
            raise StoreUnavailableError(self._role, f"no turn to write within {self._timeout_seconds:g} s")

    def _write_queue(self, mine: _Waiting[T]) -> None:
        with self._queue_lock:
            batch, self._queue = self._queue, []
        try:
            self._write([waiting.row for waiting in batch])
        except StoreUnavailableError as exc:
            for waiting in batch:
                waiting.error = exc
        except StoreError as exc:
            self._write_singly(batch, exc)
        except BaseException:
            # Not the store's doing, an interrupt for one: the rows of the others go back to the queue.
            with self._queue_lock:
                self._queue = [waiting for waiting in batch if waiting is not mine] + self._queue
            raise
        for waiting in batch:
            waiting.done = True

    def _write_singly(self, batch: Sequence[_Waiting[T]], error: StoreError) -> None:
        """Find the row that the store refused: the others must not fail with it."""
        if len(batch) == 1:
            batch[0].error = error
            return
        for waiting in batch:
            try:
                self._write([waiting.row])
            except StoreError as exc:
                waiting.error = exc
