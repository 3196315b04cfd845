"""Samples that depend on nothing but ids: the same ones in whichever order they come, and on every machine."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable


def place(an_id: str) -> int:
    """Return where an id stands, in [0, 2**64); those that stand first are the sample."""
    return int.from_bytes(hashlib.sha256(an_id.encode("utf-8", "surrogatepass")).digest()[:8])


def sample(ids: Iterable[str], size: int) -> list[str]:
    """Return at most `size` of the ids, in order of their places."""
    return heapq.nsmallest(size, ids, key=lambda an_id: (place(an_id), an_id))


class Sample:
    """At most `size` of the ids that are added one by one; `count` is how many were."""

    def __init__(self, size: int) -> None:
        self._size = size
        # The last place first, so that what comes before it takes its turn.
        self._kept: list[tuple[int, str]] = []
        self.count = 0

    def add(self, an_id: str) -> None:
        self.count += 1
        held = (-place(an_id), an_id)
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, held)
        else:
            heapq.heappushpop(self._kept, held)

    def first(self, size: int) -> list[str]:
        """Return at most `size` of those kept, in order of their places."""
        return [an_id for _, an_id in heapq.nlargest(size, self._kept)]

    @property
    def ids(self) -> list[str]:
        """All that are kept, sorted."""
        return sorted(an_id for _, an_id in self._kept)
