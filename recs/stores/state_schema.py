"""Tables of the state store, and how its records become rows and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import sqlalchemy as sa

from recs.model import Generation, Preferences
from recs.stores.ports import RunRecord
from recs.stores.sql import AnyText, UtcDateTime

METADATA = sa.MetaData()

#: One row, id 1. `dirty` counts the marks set since the last publish.
HEAD = sa.Table(
    "head",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("dirty", sa.BigInteger, nullable=False),
)

GENERATIONS = sa.Table(
    "generations",
    METADATA,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("build", AnyText, nullable=False),
    sa.Column("model", AnyText, nullable=False),
    sa.Column("run_id", AnyText, nullable=False),
    sa.Column("published_at", UtcDateTime, nullable=False),
    sa.Column("newest_at", UtcDateTime),
    sa.Column("weights", sa.Text, nullable=False),
    sa.Column("scales", sa.Text, nullable=False),
    # Little-endian float64: some hundred numbers that are only ever read together.
    sa.Column("centre", sa.LargeBinary, nullable=False),
    sa.Column("users", sa.BigInteger, nullable=False),
    sa.Column("text_weights", sa.Text),
    sa.Column("fit", sa.Text),
)

RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("run_id", AnyText, primary_key=True),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("inputs", sa.Text, nullable=False),
    sa.Column("counts", sa.Text, nullable=False),
    sa.Column("timings", sa.Text, nullable=False),
    sa.Column("versions", sa.Text, nullable=False),
    sa.Column("generation", sa.BigInteger),
    sa.Column("error", AnyText),
    sa.Index("ix_runs_started_at", "started_at"),
)

PENDING = sa.Table(
    "pending",
    METADATA,
    sa.Column("conversation_id", AnyText, primary_key=True),
    sa.Column("user_id", AnyText, nullable=False),
    sa.Column("since", UtcDateTime, nullable=False),
    sa.Index("ix_pending_user", "user_id"),
)

PREFERENCES = sa.Table(
    "preferences",
    METADATA,
    sa.Column("user_id", AnyText, primary_key=True),
    sa.Column("profiling", sa.Boolean, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Index("ix_preferences_profiling", "profiling"),
)

SHOWN = sa.Table(
    "shown",
    METADATA,
    sa.Column("recommendation_id", AnyText, primary_key=True),
    sa.Column("user_id", AnyText),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Index("ix_shown_user", "user_id"),
)

SECRETS = sa.Table(
    "secrets",
    METADATA,
    sa.Column("name", AnyText, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Column("made_at", UtcDateTime, nullable=False),
)

#: What is learned from the data and kept beside it, each under its name.
ARTIFACTS = sa.Table(
    "artifacts",
    METADATA,
    sa.Column("name", AnyText, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("made_at", UtcDateTime, nullable=False),
)

#: One row, id 1; its run_id is NULL while nobody runs. `recs.stores.run_lock` explains the columns.
RUN_LOCK = sa.Table(
    "run_lock",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("run_id", AnyText),
    sa.Column("token", AnyText),
    sa.Column("host", AnyText),
    sa.Column("machine", AnyText),
    sa.Column("pid", sa.BigInteger),
    sa.Column("process_mark", AnyText),
    sa.Column("since", UtcDateTime),
    sa.Column("heartbeat", sa.Double),
    sa.Column("heartbeat_monotonic", sa.Double),
)


def to_json(value: Any) -> str:
    """Return JSON that is the same text for the same content."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def generation_row(generation: Generation) -> dict[str, Any]:
    return {
        "number": generation.number,
        "build": generation.build,
        "model": generation.model,
        "run_id": generation.run_id,
        "published_at": generation.published_at,
        "newest_at": generation.newest_at,
        "weights": to_json(dict(generation.weights)),
        "scales": to_json(dict(generation.scales)),
        "centre": np.asarray(generation.centre, dtype="<f8").tobytes(),
        "users": generation.users,
        "text_weights": to_json(dict(generation.text_weights)),
        "fit": to_json(dict(generation.fit)),
    }


def read_generation(row: sa.Row[Any]) -> Generation:
    values = dict(row._mapping)
    values["weights"] = json.loads(values["weights"])
    values["scales"] = json.loads(values["scales"])
    for name in ("text_weights", "fit"):
        values[name] = json.loads(values[name]) if values[name] else {}
    values["centre"] = tuple(np.frombuffer(values["centre"], dtype="<f8").tolist())
    return Generation(**values)


def run_row(run: RunRecord) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "outcome": run.outcome,
        "inputs": to_json([dict(part) for part in run.inputs]),
        "counts": to_json(dict(run.counts)),
        "timings": to_json(dict(run.timings)),
        "versions": to_json(dict(run.versions)),
        "generation": run.generation,
        "error": run.error,
    }


def read_run(row: sa.Row[Any]) -> RunRecord:
    values = dict(row._mapping)
    for name in ("inputs", "counts", "timings", "versions"):
        values[name] = json.loads(values[name])
    values["inputs"] = tuple(values["inputs"])
    return RunRecord(**values)


def preferences_body(preferences: Preferences) -> str:
    return to_json(preferences.model_dump(mode="json"))


def read_preferences(body: str) -> Preferences:
    return Preferences.model_validate_json(body)
