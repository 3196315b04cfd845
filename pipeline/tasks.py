"""One Prefect task per stage. Each wraps functions of `recs` that are tested without Prefect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from pipeline.report import artifact_markdown
from pipeline.run import Batch, Catalogue, Run
from recs.batch import aggregates, intents, relationships, vectors
from recs.batch import publish as publishing
from recs.batch import raw as raw_loading
from recs.batch.work import Done, Work
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


@_stage("compare raw")
def compare_raw(run: Run, batch: Batch) -> None:
    """Find what of a batch is new or changed, and count it."""
    with run.stage("load raw"):
        batch.found = raw_loading.compare_raw(run.stores, batch.records, run_id=run.run_id)
    run.display.advance("load raw", len(batch.records) - len(batch.found.conversation_ids))
    run.count(loaded=batch.found.loaded, updated=batch.found.updated, duplicate=batch.found.duplicate)


# From here to `load_facts`, tasks that may be done in any process: they take a Work and return what they did.


@_stage("load raw")
def load_raw(work: Work, found: raw_loading.RawChanges) -> Done:
    """Store new and changed conversations as they came."""
    done = Done()
    with work.tools() as tools, done.stage("load raw", len(found.conversation_ids)):
        raw_loading.store_raw(tools.stores, found)
    return done


@_stage("embed")
def embed(work: Work, conversation_ids: list[str]) -> Done:
    """Encode the user's own messages of these conversations, and put the vectors into the index.

    One task, because the vectors would otherwise pass through Prefect, and between machines. The next batch is
    encoded while this one is loaded.
    """
    done = Done()
    with work.tools() as tools:
        with tools.embedding, done.stage("embed", len(conversation_ids)):
            batch = vectors.embed_conversations(tools.stores, tools.embedder, conversation_ids)
        with done.stage("load vectors", len(batch.conversations)):
            vectors.load_embedded(tools.index, batch)
    return done


@_stage("embed campaigns")
def embed_campaigns(work: Work, campaigns: Catalogue) -> Done:
    """Embed campaigns whose vectors are missing or whose words changed; the index knows the texts of the rest."""
    done = Done()
    with work.tools() as tools, tools.embedding, done.stage("embed"):
        vectors.load_campaign_vectors(tools.embedder, tools.index, campaigns.campaigns)
    return done


@_stage("load user vectors")
def load_user_vectors(work: Work, user_ids: list[str]) -> Done:
    """Compute these users' vectors anew."""
    done = Done()
    with work.tools() as tools, done.stage("load vectors", len(user_ids)):
        half_life = tools.settings.recency_half_life_days
        vectors.load_user_vectors(tools.stores, tools.index, user_ids, half_life_days=half_life)
    return done


@_stage("load relationships")
def load_relationships(work: Work, user_ids: list[str]) -> Done:
    """Bring the edges that leave these users up to date."""
    done = Done()
    with work.tools() as tools, done.stage("load relationships", len(user_ids)):
        done.counts["edges"] = relationships.load_relationships(tools.stores, user_ids, tools.predictor)
    return done


@_stage("load facts")
def load_facts(work: Work, conversation_ids: list[str]) -> Done:
    """Bring the engagement facts of these conversations up to date."""
    done = Done()
    with work.tools() as tools, done.stage("load aggregates", len(conversation_ids)):
        done.counts["facts"] = relationships.load_facts(tools.stores, conversation_ids)
    return done


@_stage("fit intents")
def fit_intents(run: Run) -> None:
    """Fit the classifier of intents where there is none for the run's model and enough conversations are labelled.

    The users of conversations without a label are pending from then on.
    """
    with run.stage("fit intents"):
        fitted = intents.fit_intents(
            run.stores, run.index, model=run.work.model, out_of_scope=run.settings.out_of_scope_intents
        )
    if fitted is not None:
        run.count(intents_learned=len(fitted.labels))
        run.display.advance("fit intents", len(fitted.labels))
    run.finished("fit intents")


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
        create_markdown_artifact(artifact_markdown(run, outcome, generation), key="load-conversations-report")
        if run.reject_codes:
            rows = [{"code": code, "records": count} for code, count in run.reject_codes.most_common()]
            create_table_artifact(rows, key="load-conversations-rejects", description=f"Rejects of run {run.run_id}")
        run.stores.state.put_run(run.record(outcome, generation=generation, error=error))
    run.finished("report")
