"""The flow: conversations in, a published generation out."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from prefect import Flow, flow

from pipeline import tasks
from pipeline.parts import THREADS, DaskWorkers, Parts, task_runner
from pipeline.report import run_figures, summary
from pipeline.run import Batch, Catalogue, Run, StageDisplay, staging_path
from recs.batch.layout import bring_up_to_date
from recs.batch.work import Tools, Work
from recs.bootstrap import Stores, open_stores
from recs.embed import LazyEncoder
from recs.errors import RunError, StoreError
from recs.figures import write_figures
from recs.ingest.mapping import ColumnMapping
from recs.ingest.quarantine import Quarantine
from recs.ingest.staging import Staging
from recs.model import Generation
from recs.settings import Settings, load_settings

T = TypeVar("T")

#: Raw batches on their way while the next one is read.
_RAW_AHEAD = 2


@flow(name="load-conversations", persist_result=False, log_prints=False)
def load_conversations(
    conversations: list[str],
    campaigns: list[str] | None = None,
    preferences: list[str] | None = None,
    mapping: str | None = None,
    rebuild: bool = False,
    json_out: str | None = None,
) -> str:
    """Load files of conversations, campaigns and preferences, and publish what follows from them.

    Call what `flow_for` returns: it has the task runner that the settings ask for. Returns "published", or
    "unchanged" where the input said nothing new. Raises RunError where another run is going on, where too many records
    were rejected, where the model changed without `rebuild`, or where there are no Dask workers at the address given.
    """
    settings = load_settings()
    run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%S-") + uuid.uuid4().hex[:6]
    with contextlib.ExitStack() as stack:
        resolved, stores = stack.enter_context(open_stores(settings, timeout_seconds=settings.load_timeout_seconds))
        stack.enter_context(stores.state.run_lock(run_id))
        bring_up_to_date(stores)
        workers = DaskWorkers.connect(resolved)
        # Nobody else runs: what is in the folder was left by runs that were killed.
        for left in resolved.home.glob("staging/*"):
            left.unlink()
        current = stores.state.generation()
        encoder = LazyEncoder(resolved, dim=None if current is None or rebuild else len(current.centre))
        build = _build(stores, current, encoder.identity, rebuild)
        index = stores.vectors.create(build, encoder.dim)
        quarantine = Quarantine(resolved.home / "quarantine")
        stack.callback(quarantine.flush)
        work = Work(run_id, resolved, build, encoder.dim, encoder.identity)
        if workers is None:
            stack.enter_context(work.shared(Tools(stores, index, resolved, encoder, model=work.model)))
        run = Run(
            run_id,
            stores,
            resolved,
            index,
            work,
            stack.enter_context(Staging(staging_path(resolved.home, run_id))),
            quarantine,
            stack.enter_context(StageDisplay()),
        )
        texts_before = index.count("texts")
        began = time.monotonic()
        stores.state.put_run(run.record("running"))
        try:
            generation = _load(run, workers, conversations, campaigns or [], preferences or [], mapping, rebuild)
        except BaseException as exc:
            with contextlib.suppress(StoreError):  # which may be what ended the run
                _count_embedded(run, texts_before)
            outcome = "cancelled" if isinstance(exc, KeyboardInterrupt) else "failed"
            stores.state.put_run(run.record(outcome, error=f"{type(exc).__name__}: {exc}"))
            raise
        outcome = "published" if generation is not None else "unchanged"
        number = generation.number if generation else None
        _count_embedded(run, texts_before)
        tasks.report(run, outcome, number)
        seconds = time.monotonic() - began
    if json_out is not None:
        write_figures(Path(json_out), run_figures(run, seconds))
    print(summary(run, outcome, number, seconds))
    return outcome


def flow_for(settings: Settings) -> Flow[..., str]:
    """Return the flow with the task runner that the settings ask for."""
    return load_conversations.with_options(task_runner=task_runner(settings))


def _load(
    run: Run,
    workers: DaskWorkers | None,
    conversations: Sequence[str],
    campaigns: Sequence[str],
    preferences: Sequence[str],
    mapping: str | None,
    rebuild: bool,
) -> Generation | None:
    stores, size, work = run.stores, run.settings.batch_size, run.work
    catalogue, consent = tasks.extract(run, conversations, campaigns, preferences)
    known = stores.documents.campaign_ids() | {c.campaign_id for c in catalogue}
    columns = ColumnMapping.load(Path(mapping)) if mapping is not None else None
    staged = tasks.validate(run, conversations, columns, known) if conversations else 0
    tasks.load_catalogue(run, catalogue, consent)
    run.display.total("load raw", staged)

    behind = stores.state.pending()
    vectors, facts, edges = Parts(run, workers), Parts(run, workers), Parts(run, workers)
    embedding_total = 0
    for ids in _written(run, workers):
        embedding_total += len(ids)
        run.display.total("embed", embedding_total)
        if not rebuild:
            vectors.add(tasks.embed.submit(work, ids))
        facts.add(tasks.load_facts.submit(work, ids))
        facts.settle(leave=THREADS)
    run.finished("load raw")

    # What an earlier run stored but did not get to project; and everything, where the vectors are built anew.
    pending = stores.state.pending()
    left = list(behind)
    for ids in _chunks(left, size):
        facts.add(tasks.load_facts.submit(work, ids))
    again: Iterable[str] = (s.conversation.conversation_id for s in stores.documents.scan()) if rebuild else left
    for ids in _chunks(again, size):
        vectors.add(tasks.embed.submit(work, ids))
        vectors.settle(leave=THREADS)

    if pending or rebuild:
        # Edges hold predicted intents, which come from vectors.
        vectors.settle()
        tasks.fit_intents(run)
        pending = stores.state.pending()
    users = sorted(set(pending.values()))
    for chunk in _chunks(users, size):
        edges.add(tasks.load_relationships.submit(work, chunk))
    if rebuild or stores.state.is_dirty():
        for campaigns_chunk in _chunks(stores.documents.campaigns(), size):
            vectors.add(tasks.embed_campaigns.submit(work, Catalogue(campaigns_chunk)))
    edges.settle()
    if users:
        run.finished("load relationships")
    vectors.settle()
    run.finished("embed")
    talking: Iterable[str] = stores.graph.user_ids() if rebuild else users
    for chunk in _chunks(talking, size):
        vectors.add(tasks.load_user_vectors.submit(work, chunk))
        vectors.settle(leave=THREADS)
    vectors.settle()
    run.finished("load vectors")
    facts.settle()

    if not (rebuild or stores.state.is_dirty() or pending):
        return None
    head, marks = stores.state.head(), stores.state.dirty_marks()
    generation: Generation = tasks.load_aggregates(run, head.generation + 1, work.model, work.dim)
    tasks.publish(run, generation, marks)
    return generation


def _count_embedded(run: Run, texts_before: int) -> None:
    """Count the texts that the run has embedded, by what the index holds more than before.

    Of a part that was done twice, since a worker died, nobody knows what the first attempt had encoded.
    """
    run.count(embedded=max(0, run.index.count("texts") - texts_before))


def _written(run: Run, workers: DaskWorkers | None) -> Iterator[list[str]]:
    """Store raw batch after raw batch, some ahead of what is made of them; yield the ids that were written."""
    writing, ids = Parts(run, workers), deque[list[str]]()
    for records in run.staging.winners(run.settings.batch_size) if run.counts["read"] else ():
        batch = Batch(records)
        tasks.compare_raw(run, batch)
        if batch.found.conversation_ids:
            ids.append(batch.found.conversation_ids)
            writing.add(tasks.load_raw.submit(run.work, batch.found))
            writing.settle(leave=_RAW_AHEAD)
        while len(ids) > len(writing):
            yield ids.popleft()
    while ids:
        writing.settle(leave=len(ids) - 1)
        yield ids.popleft()


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
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
