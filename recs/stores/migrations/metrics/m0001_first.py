"""Engagement facts and the metrics aggregated from them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from recs.stores.sql import DOUBLE, AnyText, UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    # Warehouses do not enforce keys and have no indexes, and DuckDB refuses to delete and insert one key in one
    # transaction: there the store's own delete-then-insert keeps rows single.
    keyed = op.get_bind().dialect.name in ("sqlite", "postgresql")
    op.create_table(
        "engagement_facts",
        sa.Column("conversation_id", AnyText, nullable=False),
        sa.Column("campaign_id", AnyText, nullable=False),
        sa.Column("action", AnyText, nullable=False),
        sa.Column("user_id", AnyText, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("at", UtcDateTime, quote=True),
        sa.Column("at_day", DOUBLE),
        sa.Column("value", DOUBLE),
        sa.Column("currency", AnyText),
        *([sa.PrimaryKeyConstraint("conversation_id", "campaign_id", "action")] if keyed else []),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "campaign_metrics",
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("campaign_id", AnyText, nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in (
                "users",
                "positive_users",
                "views",
                "clicks",
                "likes",
                "converts",
                "mentions",
                "dislikes",
            )
        ),
        sa.Column("prior", DOUBLE, nullable=False),
        sa.Column("last_at", UtcDateTime),
        *([sa.PrimaryKeyConstraint("generation", "campaign_id")] if keyed else []),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "excluded_users",
        sa.Column("user_id", AnyText, nullable=False),
        *([sa.PrimaryKeyConstraint("user_id")] if keyed else []),
        sqlite_with_rowid=False,
    )
    if keyed:
        op.create_index("ix_engagement_facts_user", "engagement_facts", ["user_id", "campaign_id", "action"])
        op.create_index("ix_engagement_facts_campaign", "engagement_facts", ["campaign_id", "user_id"])
