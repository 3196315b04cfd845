"""Counting of what a run read: loaded, updated or duplicate, so that read = loaded + duplicate + rejected holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from recs.model import Change


@dataclass(frozen=True, slots=True)
class Classified:
    """What the lines of one conversation id in one run amount to."""

    loaded: int
    """Lines that brought something new, updates included."""
    updated: int
    duplicate: int
    steps: tuple[tuple[str, str], ...]
    """Old and new content hash of each update, in order."""

    @property
    def write(self) -> bool:
        """Whether the winner has to be stored: not where the store holds it already."""
        return self.loaded > 0

    def changes(self, conversation_id: str, *, run_id: str, at: datetime) -> list[Change]:
        """Return the updates as the store records them."""
        return [Change(conversation_id, old, new, run_id, at) for old, new in self.steps]


def classify(hashes: Sequence[str], stored_hash: str | None) -> Classified:
    """Return what the lines of one id, by their content hashes in the order read, are to a store.

    Where the last line is what the store holds, nothing changes and all are duplicates. Else each line is compared
    with the one before it (the first with the store): the same is a duplicate, other content is loaded, and an
    update where there was something before.
    """
    if hashes and hashes[-1] == stored_hash:
        return Classified(0, 0, len(hashes), ())
    loaded = duplicate = 0
    steps = []
    state = stored_hash
    for line_hash in hashes:
        if line_hash == state:
            duplicate += 1
            continue
        loaded += 1
        if state is not None:
            steps.append((state, line_hash))
        state = line_hash
    return Classified(loaded, len(steps), duplicate, tuple(steps))
