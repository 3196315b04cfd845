"""The last step of a run: one transaction moves the generation, then what nobody reads any more is dropped."""

from __future__ import annotations

from recs.bootstrap import Stores
from recs.model import Generation


def publish(stores: Stores, generation: Generation, *, marks_seen: int | None = None) -> None:
    """Make a generation current. `marks_seen` are the state store's dirty marks before it was computed: what changed
    since then is left for the next run.

    Everything that it names is in place before, so that whoever reads the new number finds it. The generation before
    stays readable for requests that have taken its number already.
    """
    # Nothing may be left to do for the conversations that were pending: they are part of the new generation.
    stores.state.clear_pending(list(stores.state.pending()))
    stores.state.publish(generation, marks_seen=marks_seen)
    stores.vectors.point_alias(generation.build)
    drop_unread(stores)


def drop_unread(stores: Stores) -> None:
    """Drop what neither the current generation nor the one before it reads."""
    head = stores.state.head()
    kept = [
        g for n in (head.generation, head.generation - 1) if n > 0 and (g := stores.state.generation(n)) is not None
    ]
    numbers = [g.number for g in kept]
    stores.metrics.keep_generations(numbers)
    stores.graph.keep_co_engagement(numbers)
    for build in stores.vectors.builds():
        if build not in {g.build for g in kept}:
            stores.vectors.drop(build)
