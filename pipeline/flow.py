"""The flow: conversations in, a published generation out."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from pipeline import tasks
from pipeline.report import run_figures, summary
from pipeline.run import Batch, Run, StageDisplay, staging_path
from recs.batch.vectors import Embedder
from recs.bootstrap import Stores, open_stores
from recs.embed import LazyEncoder, TextEncoder
from recs.errors import RunError
from recs.figures import write_figures
from recs.ingest.mapping import ColumnMapping
from recs.ingest.quarantine import Quarantine
from recs.ingest.staging import Staging
from recs.model import Generation
from recs.settings import load_settings

#: Tasks wait for one another in threads, which cost little.
_THREADS = 12
#: Raw batches on their way while the next one is read.
_RAW_AHEAD = 2


@flow(
    name="load-conversations",
    task_runner=ThreadPoolTaskRunner(max_workers=_THREADS),  # type: ignore[arg-type]  # its result type is Any
    persist_result=False,
    log_prints=False,
)
def load_conversations(
    conversations: list[str],
    campaigns: list[str] | None = None,
    preferences: list[str] | None = None,
    mapping: str | None = None,
    rebuild: bool = False,
    json_out: str | None = None,
) -> str:
    """Load files of conversations, campaigns and preferences, and publish what follows from them.

    Returns "published", or "unchanged" where the input said nothing new. Raises RunError where another run is going
    on, where too many records were rejected, or where the model changed without `rebuild`.
    """
    settings = load_settings()
    run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%S-") + uuid.uuid4().hex[:6]
    with contextlib.ExitStack() as stack:
        resolved, stores = stack.enter_context(open_stores(settings, timeout_seconds=settings.load_timeout_seconds))
        stack.enter_context(stores.state.run_lock(run_id))
        # Nobody else runs: what is in the folder was left by runs that were killed.
        for left in resolved.home.glob("staging/*"):
            left.unlink()
        current = stores.state.generation()
        encoder = LazyEncoder(resolved, dim=None if current is None or rebuild else len(current.centre))
        build = _build(stores, current, encoder.identity, rebuild)
        index = stores.vectors.create(build, encoder.dim)
        quarantine = Quarantine(resolved.home / "quarantine")
        stack.callback(quarantine.flush)
        run = Run(
            run_id,
            stores,
            resolved,
            index,
            Embedder(encoder, index, max_text_chars=resolved.max_text_chars),
            stack.enter_context(Staging(staging_path(resolved.home, run_id))),
            quarantine,
            stack.enter_context(StageDisplay()),
        )
        began = time.monotonic()
        stores.state.put_run(run.record("running"))
        try:
            generation = _load(run, conversations, campaigns or [], preferences or [], mapping, rebuild, encoder)
        except BaseException as exc:
            run.count(embedded=run.embedder.embedded)
            outcome = "cancelled" if isinstance(exc, KeyboardInterrupt) else "failed"
            stores.state.put_run(run.record(outcome, error=f"{type(exc).__name__}: {exc}"))
            raise
        outcome = "published" if generation is not None else "unchanged"
        number = generation.number if generation else None
        run.count(embedded=run.embedder.embedded)
        tasks.report(run, outcome, number)
        seconds = time.monotonic() - began
    if json_out is not None:
        write_figures(Path(json_out), run_figures(run, seconds))
    print(summary(run, outcome, number, seconds))
    return outcome


def _load(
    run: Run,
    conversations: Sequence[str],
    campaigns: Sequence[str],
    preferences: Sequence[str],
    mapping: str | None,
    rebuild: bool,
    encoder: TextEncoder,
) -> Generation | None:
    stores, size = run.stores, run.settings.batch_size
    catalogue, consent = tasks.extract(run, conversations, campaigns, preferences)
    known = stores.documents.campaign_ids() | {c.campaign_id for c in catalogue}
    columns = ColumnMapping.load(Path(mapping)) if mapping is not None else None
    staged = tasks.validate(run, conversations, columns, known) if conversations else 0
    tasks.load_catalogue(run, catalogue, consent)
    run.display.total("load raw", staged)

    behind = stores.state.pending()
    vectors: deque[PrefectFuture[Any]] = deque()
    facts: deque[PrefectFuture[Any]] = deque()
    numbers = count()
    embedding_total = 0
    for ids in _written(run):
        number = next(numbers)
        embedding_total += len(ids)
        run.display.total("embed", embedding_total)
        if not rebuild:
            embedding = tasks.embed.submit(run, number, ids)
            vectors.append(tasks.load_vectors.submit(run, number, wait_for=[embedding]))
        facts.append(tasks.load_facts.submit(run, ids))
        _settle(facts, leave=_THREADS)
    run.finished("load raw")

    # What an earlier run stored but did not get to project; and everything, where the vectors are built anew.
    pending = stores.state.pending()
    left = list(behind)
    for ids in _chunks(left, size):
        facts.append(tasks.load_facts.submit(run, ids))
    again: Iterable[str] = (s.conversation.conversation_id for s in stores.documents.scan()) if rebuild else left
    for ids in _chunks(again, size):
        number = next(numbers)
        embedding = tasks.embed.submit(run, number, ids)
        vectors.append(tasks.load_vectors.submit(run, number, wait_for=[embedding]))
        _settle(vectors, leave=_THREADS)

    users = sorted(set(pending.values()))
    edges = deque(tasks.load_relationships.submit(run, chunk) for chunk in _chunks(users, size))
    _settle(edges)
    if users:
        run.finished("load relationships")
    if rebuild or stores.state.is_dirty():
        tasks.load_campaign_vectors(run)
    _settle(vectors)
    run.finished("embed")
    talking: Iterable[str] = stores.graph.user_ids() if rebuild else users
    for chunk in _chunks(talking, size):
        tasks.load_user_vectors(run, chunk)
    run.finished("load vectors")
    _settle(facts)

    if not (rebuild or stores.state.is_dirty() or pending):
        return None
    head, marks = stores.state.head(), stores.state.dirty_marks()
    generation: Generation = tasks.load_aggregates(run, head.generation + 1, encoder.identity, encoder.dim)
    tasks.publish(run, generation, marks)
    return generation


def _written(run: Run) -> Iterator[list[str]]:
    """Store raw batch after raw batch, some ahead of what is made of them; yield the ids that were written."""
    waiting: deque[PrefectFuture[Any]] = deque()
    for records in run.staging.winners(run.settings.batch_size) if run.counts["read"] else ():
        waiting.append(tasks.load_raw.submit(run, Batch(records)))
        while len(waiting) > _RAW_AHEAD:
            yield from _some(waiting.popleft().result())
    while waiting:
        yield from _some(waiting.popleft().result())


def _some(ids: list[str]) -> Iterator[list[str]]:
    if ids:
        yield ids


def _settle(futures: deque[PrefectFuture[Any]], leave: int = 0) -> None:
    """Wait for the oldest futures until so many are left; an error of one of them is raised here."""
    while len(futures) > leave:
        futures.popleft().result()


def _chunks(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(ids)
    while chunk := list(islice(rest, size)):
        yield chunk


def _build(stores: Stores, current: Generation | None, model: str, rebuild: bool) -> str:
    """Return the name of the vector build that this run writes."""
    if current is not None and not rebuild:
        # Arithmetic may differ between machines; weights and dimension may not.
        if current.model.rpartition("/")[0] != model.rpartition("/")[0]:
            raise RunError(
                f"the stored vectors are of model {current.model}, but RECS_MODEL now gives {model}; "
                "`recs run ... --rebuild` computes all vectors anew beside them"
            )
        return current.build
    return f"b{stores.state.head().generation + 1}"
