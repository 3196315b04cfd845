"""What the tasks of one run share: open stores, counters, timings and the progress display."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from recs.batch.raw import RawChanges
from recs.batch.work import Done, Work
from recs.bootstrap import Stores
from recs.figures import versions
from recs.ingest.quarantine import Quarantine
from recs.ingest.staging import StagedRecord, Staging
from recs.model import Campaign
from recs.settings import Settings
from recs.stores.ports import RunRecord, VectorIndex

STAGES = (
    "extract",
    "validate",
    "load raw",
    "embed",
    "load vectors",
    "fit intents",
    "load relationships",
    "load aggregates",
    "publish",
    "report",
)


class StageDisplay:
    """Progress per stage on standard error: bars in a terminal, one line per finished stage elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._console = Console(file=stream)
        self._progress: Progress | None = None
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description:<20}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
            )
        self._bars: dict[str, TaskID] = {}
        self._done: Counter[str] = Counter()

    def __enter__(self) -> StageDisplay:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def total(self, stage: str, total: int) -> None:
        if self._progress is not None:
            if stage not in self._bars:
                self._bars[stage] = self._progress.add_task(stage, total=total)
            else:
                self._progress.update(self._bars[stage], total=total)

    def advance(self, stage: str, count: int) -> None:
        self._done[stage] += count
        if self._progress is not None:
            if stage not in self._bars:
                self.total(stage, count)
            self._progress.advance(self._bars[stage], count)

    def finished(self, stage: str, seconds: float) -> None:
        if self._progress is None:
            self._console.print(
                f"{stage}: {self._done[stage]:,} done, {seconds:.1f} s", highlight=False, soft_wrap=True
            )


class Batch:
    """Records that go to a task together, then what they change. Prefect would look through a list for futures."""

    def __init__(self, records: Sequence[StagedRecord]) -> None:
        self.records = records
        self.found = RawChanges()


class Catalogue:
    """Campaigns that go to a task together."""

    def __init__(self, campaigns: Sequence[Campaign]) -> None:
        self.campaigns = campaigns


class Run:
    """One batch run as its own process sees it. Not a dataclass: Prefect looks into those."""

    def __init__(
        self,
        run_id: str,
        stores: Stores,
        settings: Settings,
        index: VectorIndex,
        work: Work,
        staging: Staging,
        quarantine: Quarantine,
        display: StageDisplay,
    ) -> None:
        self.run_id = run_id
        self.stores = stores
        self.settings = settings
        self.index = index
        self.work = work
        """What the parts of the run are told that may be done elsewhere."""
        self.staging = staging
        self.quarantine = quarantine
        self.display = display
        self.started_at = datetime.now(UTC)
        self.counts: Counter[str] = Counter()
        self.reject_codes: Counter[str] = Counter()
        self.inputs: list[dict[str, Any]] = []
        self.timings: dict[str, float] = {}
        self.places: set[str] = set()
        """Where parts of the run were done."""

    def count(self, **counts: int) -> None:
        """Add to the counters."""
        self.counts.update(counts)

    @contextmanager
    def stage(self, name: str, amount: int = 0) -> Iterator[None]:
        """Add the time that the body takes, in this process, to a stage, and its amount once it is done."""
        done = Done()
        with done.stage(name, amount):
            yield
        self.note(done)

    def note(self, done: Done) -> None:
        """Add up what a part did."""
        for name, (amount, seconds) in done.stages.items():
            self.timings[name] = self.timings.get(name, 0.0) + seconds
            self.display.advance(name, amount)
        self.counts.update(done.counts)
        self.places.add(done.place)

    def finished(self, name: str) -> None:
        """Note that a stage has nothing left to do."""
        self.display.finished(name, self.timings.get(name, 0.0))

    def record(self, outcome: str, *, generation: int | None = None, error: str | None = None) -> RunRecord:
        """Return the lineage of the run as it stands."""
        return RunRecord(
            run_id=self.run_id,
            started_at=self.started_at,
            finished_at=None if outcome == "running" else datetime.now(UTC),
            outcome=outcome,  # type: ignore[arg-type]  # one of the literals, by the callers below
            inputs=self.inputs,
            counts=dict(self.counts),
            timings={name: round(seconds, 3) for name, seconds in self.timings.items()},
            versions=versions(),
            generation=generation,
            error=error,
        )


def staging_path(home: Path, run_id: str) -> Path:
    """Return where a run spools what it has read."""
    return home / "staging" / f"{run_id}.db"
