"""Runs Alembic's revisions from within the program: no alembic.ini, no env.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa
from alembic.ddl import impl
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.runtime.migration import RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from recs.errors import SchemaVersionError
from recs.stores.migrations import HEADS, Schema, found_version, version_table
from recs.stores.sql import Database

#: PostgreSQL's advisory locks are numbers; these stand for "migrating" and are arbitrary.
_LOCKS: Mapping[Schema, int] = {"state": 7_310_001, "metrics": 7_310_002}

_SETTINGS: Mapping[Schema, str] = {"state": "RECS_STATE_URL", "metrics": "RECS_SQL_URL"}


def upgrade(database: Database, schema: Schema) -> None:
    """Run the revisions that a database lacks, in one transaction; processes take turns."""
    with database.write() as connection:  # on SQLite this alone keeps others out
        if database.is_postgresql:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCKS[schema]})
        _run(database, connection, schema)


def scripts(schema: Schema) -> ScriptDirectory:
    """Return a store's revisions."""
    folder = Path(__file__).parent
    return ScriptDirectory(folder, version_locations=[folder / schema])


def _run(database: Database, connection: Connection, schema: Schema) -> None:
    known = scripts(schema)
    found = found_version(connection, schema)
    if found is not None and found not in {script.revision for script in known.walk_revisions()}:
        raise SchemaVersionError(
            schema,
            f"{database.shown_url} has schema version {found}, this package knows versions up to {HEADS[schema]}: "
            f"install the newer version that wrote it, or point {_SETTINGS[schema]} elsewhere",
        )
    _teach_alembic(connection.dialect.name)

    def steps(revision: str | tuple[str, ...], _context: MigrationContext) -> list[RevisionStep]:
        return list(known._upgrade_revs("head", revision))  # type: ignore[arg-type]

    context = MigrationContext.configure(
        connection,
        opts={"version_table": version_table(schema), "fn": steps, "script": known, "transactional_ddl": True},
    )
    with Operations.context(context):
        context.run_migrations()


def _teach_alembic(dialect: str) -> None:
    """Let Alembic run plain CREATE statements on a dialect that it has never heard of, such as DuckDB."""
    if dialect not in impl._impls:
        type(f"{dialect.title()}Impl", (impl.DefaultImpl,), {"__dialect__": dialect})
