"""The SQL that the stores send, as each dialect words it, and the types that cross the dialects."""

from __future__ import annotations

import base64
import io
import json
import re
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import sqlglot
from alembic.migration import MigrationContext
from alembic.operations import Operations
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.api_core import exceptions as google_errors
from google.cloud.bigquery import dbapi
from hypothesis import given
from hypothesis import strategies as st
from snowflake.sqlalchemy.snowdialect import SnowflakeDialect
from sqlalchemy.dialects import oracle, postgresql, sqlite
from sqlalchemy.engine import Dialect, default
from sqlalchemy_bigquery import BigQueryDialect
from sqlalchemy_bigquery.base import unnest

from recs.errors import StoreError, StoreUnavailableError
from recs.model import EngagementFact
from recs.stores import sql
from recs.stores.metrics import EXCLUDED, FACTS, METRICS, SqlMetrics, aggregate_statement
from recs.stores.migrations import version_table
from recs.stores.migrations.upgrade import _teach_alembic, scripts
from recs.stores.sql import AnyText, UtcDateTime, chunks, days, upsert_statement
from recs.stores.state_schema import METADATA, PREFERENCES

AT = datetime(2026, 3, 1, 10, tzinfo=UTC)
SQLITE, POSTGRESQL = sqlite.dialect(), postgresql.dialect()
# It registers this for every dialect and does not say whether it can be cached, of which SQLAlchemy warns where it
# looks at PostgreSQL's keys.
unnest.inherit_cache = True
BIGQUERY = BigQueryDialect(dbapi=BigQueryDialect.import_dbapi())
SNOWFLAKE = SnowflakeDialect(dbapi=SnowflakeDialect.import_dbapi())


def compiled(statement: Any, dialect: Dialect) -> str:
    return " ".join(str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})).split())


@pytest.mark.parametrize("newest_at", [AT, None])
@pytest.mark.parametrize(
    "dialect",
    [SQLITE, POSTGRESQL, BIGQUERY, SNOWFLAKE, oracle.dialect(), default.DefaultDialect()],
    ids=lambda d: d.name,
)
def test_the_aggregation_is_one_plain_statement_everywhere(dialect: Dialect, newest_at: datetime | None) -> None:
    statement = compiled(aggregate_statement(3, newest_at=newest_at, half_life_days=30.0), dialect)
    assert statement.replace("`", "").startswith("INSERT INTO campaign_metrics (generation, campaign_id,")
    assert statement.count("SELECT") == 3  # per campaign, per user, and who is left out
    # Words that not every engine has.
    for word in ("FILTER", "WITH ", "OVER", "LATERAL", "ON CONFLICT", "RETURNING", "INTERVAL", "extract", "power("):
        assert word.upper() not in statement.upper()


def test_sums_of_the_aggregation_stay_integers() -> None:
    # A sum of bigints is a numeric on PostgreSQL.
    statement = compiled(aggregate_statement(3, newest_at=AT, half_life_days=30.0), POSTGRESQL)
    for name in ("views", "clicks", "likes", "converts", "mentions", "dislikes"):
        assert f"CAST(sum(per_user.{name}) AS BIGINT)" in statement


def test_upserts_in_the_words_of_each_dialect() -> None:
    columns = ["user_id", "profiling", "body", "updated_at"]
    for dialect in (SQLITE, POSTGRESQL):
        text = " ".join(str(upsert_statement(PREFERENCES, dialect.name, columns).compile(dialect=dialect)).split())
        assert "ON CONFLICT (user_id) DO UPDATE SET profiling = excluded.profiling, body = excluded.body" in text
        assert "user_id = excluded.user_id" not in text


@pytest.mark.parametrize("table", [*METADATA.sorted_tables, FACTS, METRICS], ids=lambda t: t.name)
def test_ids_sort_by_code_point_on_postgresql(table: sa.Table) -> None:
    text = str(sa.schema.CreateTable(table).compile(dialect=POSTGRESQL))
    for column in table.columns:
        if column.name.endswith("_id"):
            assert re.search(rf'\b{column.name} (TEXT|VARCHAR) COLLATE "C"', text)
        if isinstance(column.type, UtcDateTime):
            assert f"{sa.sql.compiler.IdentifierPreparer(POSTGRESQL).format_column(column)} TIMESTAMP WITH TIME" in text


@pytest.mark.parametrize(
    "dialect", [SQLITE, POSTGRESQL, BIGQUERY, SNOWFLAKE, default.DefaultDialect()], ids=lambda d: d.name
)
@given(
    at=st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)),  # noqa: DTZ001
    minutes=st.integers(-23 * 60, 23 * 60),
)
def test_times_round_trip(dialect: Dialect, at: datetime, minutes: int) -> None:
    at = at.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    stored = UtcDateTime().process_bind_param(at, dialect)
    found = UtcDateTime().result_processor(dialect, None)(stored)
    assert found == at
    assert found is not None
    assert found.utcoffset() == timedelta(0)


@given(st.lists(st.datetimes(timezones=st.just(UTC)), min_size=2))
def test_times_sort_as_text_on_sqlite(times: list[datetime]) -> None:
    texts = [UtcDateTime().process_bind_param(at, SQLITE) for at in times]
    assert sorted(texts) == [UtcDateTime().process_bind_param(at, SQLITE) for at in sorted(times)]


@given(st.lists(st.text(alphabet="\0\1\2ab\U0001f600")))
def test_any_text_round_trips_and_sorts_on_postgresql(texts: list[str]) -> None:
    store, load = AnyText().bind_processor(POSTGRESQL), AnyText().result_processor(POSTGRESQL, None)
    assert store
    assert load
    stored = [store(text) for text in texts]
    assert all("\0" not in text for text in stored if text is not None)
    assert [load(text) for text in stored] == texts
    assert [load(text) for text in sorted(stored)] == sorted(texts)  # type: ignore[type-var]
    assert store(None) is load(None) is None


def test_days_keep_microseconds_apart() -> None:
    assert days(datetime(1970, 1, 2, 12, tzinfo=UTC)) == 1.5
    assert days(AT + timedelta(microseconds=1)) > days(AT)


def test_chunks() -> None:
    assert list(chunks([], 2)) == []
    assert list(chunks([1, 2, 3], 2)) == [[1, 2], [3]]


def test_sqlite_without_mathematical_functions_gets_them() -> None:
    class Bare(sqlite3.Connection):
        added = False

        def execute(self, *args: Any) -> sqlite3.Cursor:
            if not self.added and "exp" in args[0]:
                raise sqlite3.OperationalError("no such function: exp")
            return super().execute(*args)

        def create_function(self, *args: Any, **options: Any) -> None:
            self.added = True
            super().create_function(*args, **options)

    connection = sqlite3.connect(":memory:", factory=Bare)
    sql._add_missing_functions(connection)
    assert connection.added
    row = connection.execute("SELECT exp(1.0), ln(exp(2.0)), exp(NULL), ln(0.0), ln(NULL)").fetchone()
    assert row == (pytest.approx(2.718281828459045), pytest.approx(2.0), None, None, None)
    connection.close()


def test_a_failing_statement_shows_neither_values_nor_passwords(sql_url: str) -> None:
    store = SqlMetrics(sql_url)
    with pytest.raises(StoreError) as caught, store._db.write() as connection:
        connection.execute(METRICS.insert(), {"generation": 1, "campaign_id": "s3cret"})
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in str(caught.value.__cause__).partition("DETAIL")[0]
    store.close()


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> list[sa.ClauseElement]:
    """Every statement that the metrics store sends, as it is before a dialect words it."""
    store = SqlMetrics(f"sqlite:///{tmp_path_factory.mktemp('sent')}/store.db")
    statements: list[sa.ClauseElement] = []

    @sa.event.listens_for(store._db._engine, "before_execute")
    def keep(_connection: object, statement: sa.ClauseElement, *_: object) -> None:
        statements.append(statement)

    store.replace_facts(["c1"], [EngagementFact("c1", "k", "like", "u", 1, AT, 9.5, "EUR")])
    store.newest_at()
    for newest_at in (AT, None):
        store.aggregate(1, newest_at=newest_at, half_life_days=30.0, excluded_users=["v"])
    store.campaign_metrics(1, ["k"])
    store.popular(1, 5)
    store.views_since("u", AT)
    list(store.user_campaigns())
    list(store.scan_facts())
    store.counts()
    store.keep_generations([1, 2])
    store.delete_user("u")
    store.close()
    return statements


_TYPES = {
    "bigquery": {"STRING", "INT64", "FLOAT64", "DATETIME"},
    "snowflake": {"TEXT", "BIGINT", "DOUBLE", "datetime"},
}


def worded(statement: Any, dialect: Dialect) -> tuple[str, set[str]]:
    """Return the text with a plain value in the place of every parameter, and the types that these are sent with."""
    text = str(statement.compile(dialect=dialect))
    parameters = re.findall(r"%\((\w+)(?::(\w+))?\)s", text)
    text = re.sub(r"UNNEST\(%\([\w:]+\)s\)", "UNNEST(['x'])", text)
    text = re.sub(r"%\([\w:]+\)s", "1", text)
    return re.sub(r"__\[POSTCOMPILE_\w+\]", "'x'", text), {kind for _, kind in parameters if kind}


@pytest.mark.parametrize("dialect", [BIGQUERY, SNOWFLAKE], ids=lambda d: d.name)
def test_all_that_the_metrics_store_sends_is_sql_of_the_warehouses(
    dialect: Dialect, sent: list[sa.ClauseElement]
) -> None:
    kinds = set()
    for statement in [*sent, FACTS.insert().values([_fact("a"), _fact("b")])]:
        text, types = worded(statement, dialect)
        (parsed,) = sqlglot.parse(text, read=dialect.name, error_level=sqlglot.ErrorLevel.RAISE)
        assert parsed is not None
        kinds.add(parsed.key)
        assert types <= _TYPES["bigquery"], text
        for cast in parsed.find_all(sqlglot.exp.Cast):
            assert cast.to.sql(dialect.name).upper() in {"INT64", "FLOAT64", "BIGINT", "DOUBLE"}
        assert not re.search("ON CONFLICT|RETURNING|FILTER|::", text)
        if parsed.key == "delete":
            assert parsed.args["where"], "BigQuery takes no DELETE without one"
        # Of the columns, the reserved words are quoted; `at` is one here, and DuckDB's.
        assert {c.this.quoted for c in parsed.find_all(sqlglot.exp.Column) if c.name == "at"} <= {True}
    assert kinds == {"insert", "select", "delete"}


@pytest.mark.parametrize("dialect", [BIGQUERY, SNOWFLAKE], ids=lambda d: d.name)
def test_the_tables_are_made_in_the_warehouses_words(dialect: Dialect) -> None:
    text = _migration(dialect)
    statements = [s for s in sqlglot.parse(text, read=dialect.name, error_level=sqlglot.ErrorLevel.RAISE) if s]
    assert [s.key for s in statements] == ["create"] * 4 + ["insert"]
    created = {s.this.this.name: s for s in statements if s.key == "create"}
    assert set(created) == {"recs_metrics_version", "engagement_facts", "campaign_metrics", "excluded_users"}
    for table in (FACTS, METRICS, EXCLUDED):
        columns = {c.name: c for c in created[table.name].find_all(sqlglot.exp.ColumnDef)}
        assert set(columns) == {c.name for c in table.columns}
        assert not list(created[table.name].find_all(sqlglot.exp.PrimaryKey, sqlglot.exp.PrimaryKeyColumnConstraint))
    if dialect is BIGQUERY:
        assert "PRIMARY KEY" not in text, "BigQuery takes none that it would have to enforce"
    assert "INDEX" not in text
    told = set(re.findall(r"^ +\S+ ([A-Za-z0-9]+)[ ,\n]", text, re.MULTILINE))
    assert told <= _TYPES[dialect.name] | {"recs_metrics_version_pkc"}


def _migration(dialect: Dialect) -> str:
    """Return what Alembic sends to an empty database; its version table is among it."""
    _teach_alembic(dialect.name)
    known, written = scripts("metrics"), io.StringIO()
    context = MigrationContext.configure(
        dialect=dialect,
        opts={
            "as_sql": True,
            "output_buffer": written,
            "version_table": version_table("metrics"),
            "fn": lambda revision, _: list(known._upgrade_revs("head", revision)),
            "script": known,
        },
    )
    with Operations.context(context):
        context.run_migrations()
    return re.sub(r"^(BEGIN|COMMIT|--.*).*$", "", written.getvalue(), flags=re.MULTILINE)


def _fact(conversation_id: str) -> dict[str, Any]:
    return {
        "conversation_id": conversation_id,
        "campaign_id": "k",
        "action": "like",
        "user_id": "u",
        "count": 1,
        "at": AT,
    }


@pytest.fixture(scope="module")
def bigquery() -> sql.Database:
    """A database that nobody has ever connected to: the driver wants credentials when it is opened."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "proj",
        "private_key": key.decode(),
        "client_email": "recs@proj.example",
        "token_uri": "http://127.0.0.1:1/token",
    }
    told = base64.b64encode(json.dumps(account).encode()).decode()
    return sql.Database("metrics", f"bigquery://proj/recs?credentials_base64={told}", timeout_seconds=1, durable=False)


def test_bigquery_gets_many_rows_in_one_statement(bigquery: sql.Database) -> None:
    statements = []

    class Recording:
        def execute(self, statement: Any, rows: None = None) -> None:
            assert rows is None, "its driver would start a job for each"
            statements.append(sqlglot.parse_one(worded(statement, BIGQUERY)[0], read="bigquery"))

    bigquery.insert(Recording(), FACTS, [_fact(str(i)) for i in range(sql.CHUNK + 1)])
    assert [len(statement.expression.expressions) for statement in statements] == [500, 1]


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (google_errors.ServiceUnavailable("s"), True),
        (dbapi.DatabaseError(google_errors.TooManyRequests("s")), True),
        (google_errors.Forbidden("s"), False),
        (dbapi.DatabaseError(google_errors.BadRequest("s")), False),
    ],
)
def test_errors_of_bigquery(bigquery: sql.Database, error: Exception, passes: bool) -> None:
    with pytest.raises(StoreError) as caught, bigquery.errors():
        raise error
    assert isinstance(caught.value, StoreUnavailableError) == passes
    assert str(caught.value).startswith("metrics: bigquery://proj/recs: ")


def test_what_a_url_keeps_secret_is_not_shown(bigquery: sql.Database) -> None:
    assert bigquery.shown_url == "bigquery://proj/recs"
    url = "snowflake://ann:s3cret@account/db/schema?warehouse=w&token=s3cret"
    database = sql.Database("metrics", url, timeout_seconds=1, durable=False)
    assert database.shown_url == "snowflake://ann:***@account/db/schema"
    database.close()


def test_bigquery_without_credentials_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(StoreError, match="bigquery://proj/recs cannot be opened"):
        sql.Database("metrics", "bigquery://proj/recs", timeout_seconds=1, durable=False)


@pytest.mark.parametrize(
    ("url", "extra"),
    [("bigquery://p/d", "warehouses"), ("snowflake://a/d", "warehouses"), ("postgresql://h/d", "postgres")],
)
def test_a_missing_driver_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch, url: str, extra: str) -> None:
    def absent(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'driver'")

    monkeypatch.setattr(sa, "create_engine", absent)
    with pytest.raises(StoreError, match=re.escape(f"pip install likeminded[{extra}]")):
        sql.Database("metrics", url, timeout_seconds=1, durable=False)
