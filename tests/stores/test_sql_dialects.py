"""The SQL that the stores send, as each dialect words it, and the types that cross the dialects."""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import oracle, postgresql, sqlite
from sqlalchemy.engine import Dialect, default

from recs.stores import sql
from recs.stores.metrics import FACTS, METRICS, SqlMetrics, aggregate_statement
from recs.stores.sql import AnyText, UtcDateTime, chunks, days, upsert_statement
from recs.stores.state_schema import METADATA, PREFERENCES

AT = datetime(2026, 3, 1, 10, tzinfo=UTC)
SQLITE, POSTGRESQL = sqlite.dialect(), postgresql.dialect()


def compiled(statement: Any, dialect: Dialect) -> str:
    return " ".join(str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})).split())


@pytest.mark.parametrize("newest_at", [AT, None])
@pytest.mark.parametrize(
    "dialect", [SQLITE, POSTGRESQL, oracle.dialect(), default.DefaultDialect()], ids=lambda d: d.name
)
def test_the_aggregation_is_one_plain_statement_everywhere(dialect: Dialect, newest_at: datetime | None) -> None:
    statement = compiled(aggregate_statement(3, newest_at=newest_at, half_life_days=30.0), dialect)
    assert statement.startswith("INSERT INTO campaign_metrics (generation, campaign_id,")
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


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRESQL, default.DefaultDialect()], ids=lambda d: d.name)
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
    with pytest.raises(sql.StoreError) as caught, store._db.write() as connection:
        connection.execute(METRICS.insert(), {"generation": 1, "campaign_id": "s3cret"})
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in str(caught.value.__cause__).partition("DETAIL")[0]
    store.close()
