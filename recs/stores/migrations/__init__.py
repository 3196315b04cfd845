"""Schemas of the two SQL stores, brought up to date when a store is opened.

One folder per store holds its Alembic revisions, and each has a version table of its own, so that both may live in
one database. A new revision goes into the folder and into `HEADS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from recs.stores.sql import Database

Schema = Literal["state", "metrics"]

#: The revision that this package reads and writes. Held here so that opening an up-to-date store, which every
#: process does, reads one row, and neither the scripts nor Alembic.
HEADS: Mapping[Schema, str] = {"state": "0004", "metrics": "0001"}


def bring_up_to_date(database: Database, schema: Schema) -> None:
    """Create or upgrade a store's tables; processes that open it at once take turns.

    Raises SchemaVersionError where the tables are of a version that this package does not know.
    """
    with database.read() as connection:
        if found_version(connection, schema) == HEADS[schema]:
            return
    # Not at the top: Alembic takes a tenth of the time that a command needs to start, and is hardly ever used.
    from recs.stores.migrations.upgrade import upgrade

    upgrade(database, schema)


def found_version(connection: Connection, schema: Schema) -> str | None:
    """Return the revision that a database is at, None where it has no such store."""
    name = version_table(schema)
    if not sa.inspect(connection).has_table(name):
        return None
    version: str | None = connection.execute(sa.select(sa.column("version_num")).select_from(sa.table(name))).scalar()
    return version


def version_table(schema: Schema) -> str:
    return f"recs_{schema}_version"
