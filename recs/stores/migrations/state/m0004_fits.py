"""Generations keep how their weights were learned, and weights for those of whom only words are known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("generations", sa.Column("text_weights", sa.Text))
    op.add_column("generations", sa.Column("fit", sa.Text))
