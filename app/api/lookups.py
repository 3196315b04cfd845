"""The head and the cache, asked for many requests at once without holding up the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from recs.errors import StoreUnavailableError
from recs.model import Head
from recs.stores.ports import Cache, StateStore

#: A cache that has just failed is left alone for so long: every request would else wait for it in vain.
_CACHE_REST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """What there is for one request before anything is computed."""

    head: Head
    key: str
    body: bytes | None
    """The cached answer, None where there is none."""
    cache_down: bool


KeyOf = Callable[[Head], str]


class Lookups:
    """Reads the head once for all requests that wait, then the cache for each.

    A round starts after the requests in it have come, so each sees every change that was made before it was sent.
    While one is under way the next requests gather: the more there are, the fewer reads and thread switches each
    costs. Belongs to one event loop.
    """

    def __init__(self, state: StateStore, cache: Cache, executor: Executor) -> None:
        self._state = state
        self._cache = cache
        self._executor = executor
        self._waiting: list[tuple[KeyOf, asyncio.Future[Found]]] = []
        self._busy = False
        self._cache_rests_until = 0.0

    async def find(self, key_of: KeyOf) -> Found:
        """Return the head and the answer that is cached under it; raises StoreUnavailableError without a head."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Found] = loop.create_future()
        self._waiting.append((key_of, future))
        if not self._busy:
            self._start(loop)
        return await future

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        round_, self._waiting = self._waiting, []
        self._busy = True
        job = loop.run_in_executor(self._executor, self._read, [key_of for key_of, _ in round_])
        job.add_done_callback(lambda done: self._deliver(loop, [future for _, future in round_], done))

    def _deliver(
        self,
        loop: asyncio.AbstractEventLoop,
        futures: Sequence[asyncio.Future[Found]],
        done: asyncio.Future[list[Found]],
    ) -> None:
        self._busy = False
        if self._waiting:
            self._start(loop)
        for place, future in enumerate(futures):
            if future.done():
                continue  # its request was cancelled
            if done.cancelled():
                future.cancel()
            elif (error := done.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result()[place])

    def _read(self, keys_of: Sequence[KeyOf]) -> list[Found]:
        head = self._state.head()
        found = []
        for key_of in keys_of:
            key, body = key_of(head), None
            if head.generation and time.monotonic() >= self._cache_rests_until:
                try:
                    body = self._cache.get(key)
                except StoreUnavailableError:
                    # A cache that is down costs time, not correctness; the answer will say that it went without.
                    self._cache_rests_until = time.monotonic() + _CACHE_REST_SECONDS
            found.append(Found(head, key, body, cache_down=time.monotonic() < self._cache_rests_until))
        return found
