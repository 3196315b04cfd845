"""A run's work in parts that can be done in any process: what such a part is told, uses and reports.

A `Work` says which run, stores and vector build a part belongs to, and is small enough to travel. Where it arrives,
`Work.tools` lends what the part needs: in the process of the run itself the run's own, elsewhere stores and an encoder
that are opened once per process. Nothing here knows what carries the parts about.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from recs.batch.intents import Predictor
from recs.batch.vectors import Embedder
from recs.bootstrap import Stores, connect
from recs.embed import LazyEncoder, TextEncoder
from recs.errors import RunError
from recs.settings import Settings, load_settings
from recs.stores.ports import VectorIndex


class Tools:
    """What the parts of one run share in one process."""

    def __init__(
        self, stores: Stores, index: VectorIndex, settings: Settings, encoder: TextEncoder, *, model: str
    ) -> None:
        """`model` is the identity of the run's encoder."""
        self.stores = stores
        self.index = index
        self.settings = settings
        self.embedder = Embedder(encoder, index, max_text_chars=settings.max_text_chars)
        self.predictor = Predictor(stores, index, model)
        """Not to be asked before the run has seen to it that there is a classifier."""
        self.embedding = threading.Semaphore(2)
        """One batch is encoded while the next one's texts are fetched."""


class Done:
    """What one part did, and where. Travels back to the run, which adds it up."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[int, float]] = {}
        """Stage to amount and seconds of work."""
        self.counts: Counter[str] = Counter()
        self.place = f"{platform.node()}, process {os.getpid()}"

    @contextmanager
    def stage(self, name: str, amount: int = 0) -> Iterator[None]:
        """Add the time that the body takes to a stage, and its amount once it is done."""
        began = time.monotonic()
        yield
        before, seconds = self.stages.get(name, (0, 0.0))
        self.stages[name] = before + amount, seconds + time.monotonic() - began


class _Open:
    """The tools that this process holds, by run."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tools: dict[str, Tools] = {}
        self.in_hand: Counter[str] = Counter()
        """Parts that are being worked at."""


_open = _Open()


class Work:
    """Which run a part belongs to. Not a dataclass: Prefect looks into those when they are passed to a task."""

    def __init__(self, run_id: str, settings: Settings, build: str, dim: int, model: str) -> None:
        """`settings` have every URL set; `model` is the identity of the run's encoder."""
        self.run_id = run_id
        self.settings = settings
        self.build = build
        self.dim = dim
        self.model = model

    @contextmanager
    def shared(self, tools: Tools) -> Iterator[None]:
        """Let the parts that are done in this process use these tools."""
        with _open.lock:
            _open.tools[self.run_id] = tools
        try:
            yield
        finally:
            with _open.lock:
                del _open.tools[self.run_id]

    @contextmanager
    def tools(self) -> Iterator[Tools]:
        """Lend the tools of this process for the run.

        Raises RunError where the run has ended meanwhile, or this process has another model than the run.
        """
        with _open.lock:
            tools = _open.tools.get(self.run_id)
            if tools is None:
                _close_idle()
                tools = _open.tools[self.run_id] = self._connect()
            _open.in_hand[self.run_id] += 1
        try:
            holder = tools.stores.state.running()
            if holder != self.run_id:
                # It failed or was killed, and the next run may be at work on the same users.
                raise RunError(f"run {self.run_id} has ended, and what is left of its work is not done")
            yield tools
        finally:
            with _open.lock:
                _open.in_hand[self.run_id] -= 1

    def _connect(self) -> Tools:
        here = load_settings()
        settings = self.settings.model_copy(
            # What belongs to a machine is that machine's word.
            update={
                name: getattr(here, name)
                for name in ("home", "precision", "encode_batch_tokens")
                if name in here.model_fields_set or name == "home"
            }
        )
        encoder = LazyEncoder(settings, dim=self.dim)
        if encoder.weights != self.model.rpartition("/")[0]:
            raise RunError(
                f"RECS_MODEL={settings.model!r} is {encoder.weights} on {platform.node()}, but the run embeds with "
                f"{self.model.rpartition('/')[0]}: put the same model there"
            )
        stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
        try:
            return Tools(stores, stores.vectors.open(self.build), settings, encoder, model=self.model)
        except BaseException:
            stores.close()
            raise


def parts_in_hand(state_url: str) -> int:
    """Return how many parts of runs over this state store are being worked at in this process."""
    with _open.lock:
        return sum(
            count
            for run_id, count in _open.in_hand.items()
            if run_id in _open.tools and _open.tools[run_id].settings.state_url == state_url
        )


def _close_idle() -> None:
    """Close what earlier runs have left open; several installations may share the processes."""
    for run_id in [run_id for run_id in _open.tools if not _open.in_hand[run_id]]:
        _open.tools.pop(run_id).stores.close()
        del _open.in_hand[run_id]
