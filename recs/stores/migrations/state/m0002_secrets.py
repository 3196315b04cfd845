"""Secrets of the installation: what every process over this store must agree on, wherever it runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from recs.stores.sql import AnyText, UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", AnyText, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("made_at", UtcDateTime, nullable=False),
    )
