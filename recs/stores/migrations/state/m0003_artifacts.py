"""What is learned from the data and kept: the classifier of intents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from recs.stores.sql import AnyText, UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column("name", AnyText, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("made_at", UtcDateTime, nullable=False),
    )
