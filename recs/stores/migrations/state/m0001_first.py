"""Head, generations, runs, pending work, preferences, shown answers and the right to run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from recs.stores.sql import AnyText, UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    head = op.create_table(
        "head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("dirty", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "generations",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("build", AnyText, nullable=False),
        sa.Column("model", AnyText, nullable=False),
        sa.Column("run_id", AnyText, nullable=False),
        sa.Column("published_at", UtcDateTime, nullable=False),
        sa.Column("newest_at", UtcDateTime),
        sa.Column("weights", sa.Text, nullable=False),
        sa.Column("scales", sa.Text, nullable=False),
        sa.Column("centre", sa.LargeBinary, nullable=False),
        sa.Column("users", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "runs",
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
    )
    op.create_index("ix_runs_started_at", "runs", ["started_at"])
    op.create_table(
        "pending",
        sa.Column("conversation_id", AnyText, primary_key=True),
        sa.Column("user_id", AnyText, nullable=False),
        sa.Column("since", UtcDateTime, nullable=False),
    )
    op.create_index("ix_pending_user", "pending", ["user_id"])
    op.create_table(
        "preferences",
        sa.Column("user_id", AnyText, primary_key=True),
        sa.Column("profiling", sa.Boolean, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
    )
    op.create_index("ix_preferences_profiling", "preferences", ["profiling"])
    op.create_table(
        "shown",
        sa.Column("recommendation_id", AnyText, primary_key=True),
        sa.Column("user_id", AnyText),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
    )
    op.create_index("ix_shown_user", "shown", ["user_id"])
    run_lock = op.create_table(
        "run_lock",
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
    # Both tables hold this one row for ever, so that there always is a row to lock.
    op.bulk_insert(head, [{"id": 1, "generation": 0, "revision": 0, "dirty": 0}])
    op.bulk_insert(run_lock, [{"id": 1}])
