"""One Prefect task per stage. Each wraps functions of `recs` that are tested without Prefect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from pipeline.report import artifact_markdown
from pipeline.run import Batch, Run
from recs.batch import aggregates, relationships, vectors
from recs.batch import publish as publishing
from recs.batch import raw as raw_loading
from recs.errors import RunError, StoreUnavailableError
from recs.ingest.catalogue import read_campaigns, read_preferences
from recs.ingest.extract import extract as extract_records
from recs.ingest.mapping import ColumnMapping
from recs.model import Campaign, Generation, Preferences


def _store_was_away(_task: Any, _run: Any, state: Any) -> bool:
    """Retry only what may succeed later: a store that could not be reached."""
    try:
        state.result()
    except StoreUnavailableError:
        return True
    except Exception:  # noqa: BLE001  (Prefect asks whether to retry; any other error is reported by the task itself)
        return False
    return False


def _stage(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Make a task of a function that touches the network."""
    return task(
        name=name,
        retries=3,
        retry_delay_seconds=[1, 4, 10],
        retry_condition_fn=_store_was_away,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


@task(name="extract", cache_policy=NO_CACHE, persist_result=False)
def extract(
    run: Run, conversations: Sequence[str], campaigns: Sequence[str], preferences: Sequence[str]
) -> tuple[list[Campaign], list[Preferences]]:
    """Read the catalogue and the preferences; what is bad in them goes to the quarantine."""
    limit = run.settings.max_record_bytes
    with run.stage("extract", len(conversations) + len(campaigns) + len(preferences)):
        found: dict[str, Campaign] = {}
        allowed: dict[str, Preferences] = {}
        for path in campaigns:
            read, rejects = read_campaigns(Path(path), max_record_bytes=limit)
            found.update((c.campaign_id, c) for c in read)
            for reject in rejects:
                run.quarantine.add(reject, run.run_id)
            run.count(campaigns_read=len(read), campaigns_rejected=len(rejects))
        for path in preferences:
            stated, rejects = read_preferences(Path(path), max_record_bytes=limit)
            allowed.update((p.user_id, p) for p in stated)
            for reject in rejects:
                run.quarantine.add(reject, run.run_id)
            run.count(preferences_read=len(stated), preferences_rejected=len(rejects))
    run.finished("extract")
    return list(found.values()), list(allowed.values())


@task(name="validate", cache_policy=NO_CACHE, persist_result=False)
def validate(run: Run, conversations: Sequence[str], mapping: ColumnMapping | None, known_campaigns: set[str]) -> int:
    """Spool every conversation that may be loaded; the rest goes to the quarantine. Returns how many are spooled.

    Raises RunError where the share of rejects says that this is not the file that was meant.
    """
    sizes = [Path(path).stat().st_size for path in conversations]
    run.display.total("validate", sum(sizes))
    seen = 0

    def progress(done: int, _total: int) -> None:
        nonlocal seen
        run.display.advance("validate", done - seen)
        seen = done

    with run.stage("validate"):
        counts = extract_records(
            [Path(path) for path in conversations],
            run.staging,
            run.quarantine,
            run_id=run.run_id,
            known_campaigns=known_campaigns,
            mapping=mapping,
            max_record_bytes=run.settings.max_record_bytes,
            progress=progress,
        )
    run.inputs += [{"path": i.path, "sha256": i.sha256, "bytes": i.bytes, "rows": i.records} for i in counts.inputs]
    run.reject_codes.update(counts.reject_codes)
    run.count(
        read=counts.read,
        blank=counts.blank,
        rejected=counts.rejected,
        rejected_engagements=counts.rejected_engagements,
        repaired=sum(counts.repaired.values()),
    )
    run.finished("validate")
    share = counts.rejected / counts.read if counts.read else 0.0
    if share > run.settings.max_reject_share:
        raise RunError(
            f"{counts.rejected:,} of {counts.read:,} records were rejected ({share:.0%}), more than "
            f"RECS_MAX_REJECT_SHARE={run.settings.max_reject_share} allows; nothing was loaded. "
            "`recs quarantine list` shows why"
        )
    return counts.read - counts.rejected


@_stage("load catalogue")
def load_catalogue(run: Run, campaigns: list[Campaign], preferences: list[Preferences]) -> None:
    """Upsert campaigns and consent."""
    with run.stage("load raw"):
        changed = raw_loading.load_campaigns(run.stores, campaigns)
        run.count(campaigns_changed=len(changed), preferences_changed=run.stores.state.put_preferences(preferences))


@_stage("load campaign vectors")
def load_campaign_vectors(run: Run) -> None:
    """Embed the campaigns whose vectors are missing or whose words changed; the index knows the texts of the rest."""
    with run.stage("embed"):
        catalogue = run.stores.documents.campaigns()
        for start in range(0, len(catalogue), run.settings.batch_size):
            vectors.load_campaign_vectors(run.embedder, run.index, catalogue[start : start + run.settings.batch_size])


@_stage("load raw")
def load_raw(run: Run, batch: Batch) -> list[str]:
    """Store new and changed conversations as they came; returns their ids."""
    with run.stage("load raw", len(batch.records)):
        counts = raw_loading.load_raw(run.stores, batch.records, run_id=run.run_id)
    run.count(loaded=counts.loaded, updated=counts.updated, duplicate=counts.duplicate)
    return list(counts.written)


@_stage("embed")
def embed(run: Run, number: int, conversation_ids: list[str]) -> None:
    """Encode the user's own messages of these conversations."""
    with run.embedding, run.stage("embed", len(conversation_ids)):
        run.embedded[number] = vectors.embed_conversations(run.stores, run.embedder, conversation_ids)


@_stage("load vectors")
def load_vectors(run: Run, number: int) -> None:
    """Put the vectors of a batch of conversations into the index."""
    with run.stage("load vectors", len(run.embedded[number].conversations)):
        vectors.load_embedded(run.index, run.embedded[number])
    # Only once they are stored: a retry needs them.
    del run.embedded[number]


@_stage("load user vectors")
def load_user_vectors(run: Run, user_ids: list[str]) -> None:
    """Compute these users' vectors anew."""
    with run.stage("load vectors", len(user_ids)):
        half_life = run.settings.recency_half_life_days
        vectors.load_user_vectors(run.stores, run.index, user_ids, half_life_days=half_life)


@_stage("load relationships")
def load_relationships(run: Run, user_ids: list[str]) -> None:
    """Bring the edges that leave these users up to date."""
    with run.stage("load relationships", len(user_ids)):
        run.count(edges=relationships.load_relationships(run.stores, user_ids))


@_stage("load facts")
def load_facts(run: Run, conversation_ids: list[str]) -> None:
    """Bring the engagement facts of these conversations up to date."""
    with run.stage("load aggregates", len(conversation_ids)):
        run.count(facts=relationships.load_facts(run.stores, conversation_ids))


@_stage("load aggregates")
def load_aggregates(run: Run, number: int, model: str, dim: int) -> Generation:
    """Compute what the generation pins: metrics in SQL, co-engagement links in the graph, constants."""
    with run.stage("load aggregates"):
        run.index.flush()
        metrics = aggregates.load_aggregates(run.stores, run.settings, number)
        links = aggregates.load_co_engagement(run.stores, run.settings, number)
        generation = aggregates.make_generation(
            run.stores, run.index, run.settings, number=number, run_id=run.run_id, model=model, dim=dim
        )
    run.count(campaigns_with_metrics=metrics, co_engagement_links=links)
    run.finished("load aggregates")
    return generation


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish(run: Run, generation: Generation, marks_seen: int) -> None:
    """Move readers to the new generation."""
    with run.stage("publish", 1):
        publishing.publish(run.stores, generation, marks_seen=marks_seen)
    run.finished("publish")


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
def report(run: Run, outcome: str, generation: int | None, error: str | None = None) -> None:
    """Write the run's lineage to the state store and its counts, rejects and timings to Prefect."""
    with run.stage("report", 1):
        run.count(embedded=0)
        create_markdown_artifact(artifact_markdown(run, outcome, generation), key="load-conversations-report")
        if run.reject_codes:
            rows = [{"code": code, "records": count} for code, count in run.reject_codes.most_common()]
            create_table_artifact(rows, key="load-conversations-rejects", description=f"Rejects of run {run.run_id}")
        run.stores.state.put_run(run.record(outcome, generation=generation, error=error))
    run.finished("report")
