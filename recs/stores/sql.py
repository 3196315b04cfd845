"""Engines for the two SQL stores: a pool of connections with bounded waits, and driver errors turned into ours.

SQLite files run in WAL mode: readers never wait for a writer, and a writer waits `timeout_seconds` for another. A
query over a local file has no time limit of its own; only locks are waited for. Any other SQLAlchemy URL works as
far as its driver is installed; PostgreSQL gets a connect timeout (the driver's least is 2 s), a statement timeout and
a bound on a server that has stopped answering. BigQuery's driver has neither timeouts nor transactions.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Dialect, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as SQLTimeoutError
from sqlalchemy.types import TypeDecorator, TypeEngine

from recs.errors import StoreError, StoreUnavailableError

T = TypeVar("T")

#: Keys per IN list. SQLite takes 32,766 parameters in a statement, other engines fewer.
CHUNK = 500

#: Rows fetched at a time while a scan is under way.
SCAN_ROWS = 2_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)

#: SQLite errors that pass: another holds the lock, the disk is away or full. The rest would come again.
_SQLITE_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_PROTOCOL")

#: "OperationalError" is what PEP 249 calls errors of the database's operation, as against those of the statement. The
#: others are BigQuery's, whose driver calls every error a DatabaseError of one of these.
_PASSING_KINDS = {"OperationalError", "ServerError", "TooManyRequests", "RetryError", "TransportError"}

#: What to install for a URL, by its backend.
_EXTRAS = {"postgresql": "postgres", "bigquery": "warehouses", "snowflake": "warehouses"}

#: BigQuery has one floating-point type, and SQLAlchemy calls it by another name there.
DOUBLE: TypeEngine[Any] = sa.Double().with_variant(sa.Float(), "bigquery")

_POOL_SIZE = 8
_POOL_OVERFLOW = 56


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC, to the microsecond.

    timestamptz on PostgreSQL and a plain UTC timestamp elsewhere; on SQLite, which has no such type, text of fixed
    width that sorts as time does and is read back in one step.
    """

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.Text())
        if dialect.name == "bigquery":
            return sa.DateTime()  # what its dialect makes of that cannot be named in a CREATE or a parameter
        return dialect.type_descriptor(sa.DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        utc = _zoned(value).astimezone(UTC)
        if dialect.name == "sqlite":
            return utc.isoformat(" ", "microseconds")
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        # Instead of process_result_value, which costs two more calls per value: scans read millions.
        return _utc_from_text if dialect.name == "sqlite" else _utc


def _utc_from_text(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _utc(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class AnyText(TypeDecorator[str]):
    """Text of any characters that compares by code point, whatever the database's locale says.

    SQLite and the warehouses do so by themselves. PostgreSQL needs its "C" collation, and cannot hold U+0000: it gets
    U+0001 U+0001 instead, and U+0001 becomes U+0001 U+0002, which keeps the order.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(sa.Text(collation="C") if dialect.name == "postgresql" else sa.Text())

    # Processors as a whole, so that there are none where nothing is to be done.

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None] | None:
        return _escape_nul if dialect.name == "postgresql" else None

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], str | None] | None:
        return _unescape_nul if dialect.name == "postgresql" else None


def _escape_nul(value: str | None) -> str | None:
    if value is None or ("\0" not in value and "\1" not in value):
        return value
    return value.replace("\1", "\1\2").replace("\0", "\1\1")


def _unescape_nul(value: str | None) -> str | None:
    if value is None or "\1" not in value:
        return value
    return value.replace("\1\1", "\0").replace("\1\2", "\1")


def days(at: datetime) -> float:
    """Return days since 1970, as a double: ages can be taken from it in any SQL dialect."""
    return (_zoned(at) - _EPOCH) / _DAY


def _zoned(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"a time without a zone cannot be stored: {at.isoformat()}")
    return at


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield the items in lists of at most `size`."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def upsert(connection: Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, or overwrite those with the same primary key; rows must not repeat a key."""
    if rows:
        connection.execute(upsert_statement(table, connection.dialect.name, list(rows[0])), list(rows))


def upsert_statement(table: sa.Table, dialect: str, columns: Sequence[str]) -> sa.Executable:
    """Return the upsert of these columns, in the words of SQLite or PostgreSQL."""
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    keys = [c.name for c in table.primary_key.columns]
    values = {name: insert.excluded[name] for name in columns if name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=values)


def insert_missing(table: sa.Table, dialect: str) -> sa.Executable:
    """Return the insert that leaves a row alone whose primary key is there already."""
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    return insert.on_conflict_do_nothing()


class Database:
    """A pool of connections for one store role; every driver error leaves it as one of ours.

    `durable` asks SQLite to reach the disk on every commit, so that what was acknowledged survives a power cut; without
    it a commit survives the process, and a power cut may take the latest ones.
    """

    def __init__(self, role: str, url: str, *, timeout_seconds: float, durable: bool) -> None:
        self.role = role
        self.timeout_seconds = timeout_seconds
        try:
            self.url = sa.make_url(url)
        except ArgumentError as exc:
            raise StoreError(role, "its URL cannot be read; expected something like sqlite:///file.db") from exc
        if self.url.drivername in ("postgresql", "postgres"):
            # SQLAlchemy's default driver for the short name differs between its versions.
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.is_postgresql = self.url.get_backend_name() == "postgresql"
        self._writers = threading.Lock()
        # Passwords, keys and tokens may stand in the query too.
        self.shown_url = self.url.set(query={}).render_as_string(hide_password=True)
        try:
            self._engine = self._make_engine(durable)
        except (NoSuchModuleError, ModuleNotFoundError) as exc:
            extra = _EXTRAS.get(self.url.get_backend_name())
            install = f": pip install likeminded[{extra}]" if extra else ""
            raise StoreError(role, f"no driver for {self.shown_url} is installed ({exc}){install}") from exc
        self._driver_error = self._engine.dialect.loaded_dbapi.Error
        self._errors: tuple[type[Exception], ...] = (
            SQLAlchemyError,
            self._driver_error,
            *_further_errors(self.url.get_backend_name()),
        )
        # SQLite takes a write lock at BEGIN: a transaction that reads first and writes later would fail at once,
        # without waiting, where another wrote in between.
        write, scan = {"recs_begin": "BEGIN IMMEDIATE"}, {"recs_begin": "BEGIN", "stream_results": True}
        if self.is_postgresql:
            # Its connections commit by themselves, so that a read is one round trip; these two need transactions.
            write["isolation_level"] = scan["isolation_level"] = "READ COMMITTED"
        self._writing = self._engine.execution_options(**write)
        self._scanning = self._engine.execution_options(max_row_buffer=SCAN_ROWS, **scan)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Lend a connection without a transaction: each statement sees what is committed when it starts."""
        with self.errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Lend a connection in a transaction that may write; it commits at the end, or rolls back on an error."""
        with self.errors(), self._turn(), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let this process's writers queue, except on PostgreSQL, which queues them itself.

        SQLite makes writers poll at growing intervals, and DuckDB fails all but the first of them.
        """
        if self.is_postgresql:
            yield
            return
        if not self._writers.acquire(timeout=self.timeout_seconds):
            raise StoreUnavailableError(self.role, f"{self.shown_url}: other writers held it too long")
        try:
            yield
        finally:
            self._writers.release()

    def fetch_one(self, sql: str) -> Sequence[Any]:
        """Return the first row of a query in plain SQL, by the shortest way: the driver's, on a pooled connection.

        A quarter of the time of `read` on SQLite, for what every request asks.
        """
        with self.errors():
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute(sql)
                row = cursor.fetchone()
            except self._driver_error as exc:
                broken = self._engine.dialect.is_disconnect(exc, connection.driver_connection, None)
                connection.invalidate()
                if broken:  # and so are those that wait beside it
                    self._engine.dispose()
                raise
            finally:
                connection.close()
        if row is None:
            raise StoreError(self.role, f"{self.shown_url}: a row that is always there is missing ({sql})")
        return cast(Sequence[Any], row)

    def insert(self, connection: Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows that are not there."""
        if self.url.get_backend_name() != "bigquery":
            connection.execute(table.insert(), list(rows))
            return
        # Its driver starts a job for every row of a list, so the rows go into the statement: at most 10,000 values.
        for some in chunks(rows):
            connection.execute(table.insert().values(some))

    def among(self, column: sa.Column[str], name: str) -> sa.ColumnElement[bool]:
        """Return "the column is one of the list given as parameter `name`"."""
        if self.is_postgresql:
            # One parameter instead of hundreds: less than half the time, and one plan for lists of any length.
            return column == sa.any_(sa.bindparam(name, type_=postgresql.ARRAY(AnyText)))
        return column.in_(sa.bindparam(name, expanding=True))

    def scan(self, statement: sa.Select[Any]) -> Iterator[Sequence[Any]]:
        """Yield the rows of one statement, a bounded number in memory at a time."""
        with self.errors(), self._scanning.connect() as connection, connection.execute(statement) as result:
            for rows in result.partitions(SCAN_ROWS):
                yield from rows

    def product(self) -> str:
        """Return what answers, with its version."""
        with self.read() as connection:
            if self.is_sqlite:
                # Reads the file, so a file that is no database is found here.
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
                return f"SQLite {sqlite3.sqlite_version}"
            connection.exec_driver_sql("SELECT 1").scalar()
            if not self.is_postgresql:
                return connection.dialect.name  # some dialects built on PostgreSQL's report a version of that
            version = ".".join(str(part) for part in connection.dialect.server_version_info or ())
            return f"PostgreSQL {version}".strip()

    def close(self) -> None:
        """Close the idle connections; a second call finds none."""
        self._engine.dispose()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the driver raises into StoreUnavailableError or StoreError."""
        try:
            yield
        except self._errors as exc:
            kind = StoreUnavailableError if _may_pass(exc) else StoreError
            raise kind(self.role, f"{self.shown_url}: {_first_line(exc)}") from exc
        except (UnicodeError, OverflowError) as exc:
            # sqlite3 raises these itself, for half a surrogate pair or an integer beyond 64 bits.
            raise StoreError(self.role, f"{self.shown_url} cannot hold a value: {exc}") from exc

    def _make_engine(self, durable: bool) -> Engine:
        options: dict[str, Any] = {
            "pool_size": _POOL_SIZE,
            "max_overflow": _POOL_OVERFLOW,
            "pool_timeout": self.timeout_seconds,
            "pool_use_lifo": True,
            # Parameters are personal data: they must not show up in errors and logs.
            "hide_parameters": True,
        }
        if self.is_sqlite:
            _make_folder(self.role, self.url)
            engine = sa.create_engine(self.url, connect_args={"timeout": self.timeout_seconds}, **options)
            _set_up_sqlite(engine, self.timeout_seconds, durable)
            return engine
        if self.is_postgresql:
            options["isolation_level"] = "AUTOCOMMIT"
        if self.url.get_backend_name() == "bigquery":
            return self._make_bigquery_engine(options)
        engine = sa.create_engine(self.url, **options)
        if self.is_postgresql:
            from recs.stores import postgres  # its driver is an extra

            postgres.set_up(engine, self.timeout_seconds)
        return engine

    def _make_bigquery_engine(self, options: dict[str, Any]) -> Engine:
        try:
            return sa.create_engine(self.url, **options)
        except (NoSuchModuleError, ModuleNotFoundError):
            raise
        except Exception as exc:
            # It looks for credentials at once, and says in many ways that it finds none that can be used.
            raise StoreError(self.role, f"{self.shown_url} cannot be opened: {_first_line(exc)}") from exc


def _make_folder(role: str, url: URL) -> None:
    if not url.database or url.database == ":memory:":
        raise StoreError(role, f"{url} is a database in memory, which other processes cannot see; name a file")
    if url.database.startswith("file:"):
        return
    folder = Path(url.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(role, f"the folder {folder} of {url} cannot be made: {exc.strerror}") from exc


def _set_up_sqlite(engine: Engine, timeout_seconds: float, durable: bool) -> None:
    @event.listens_for(engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
        # The driver would begin transactions by its own rules; ours begin below.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {round(timeout_seconds * 1000)}")
        _use_wal(connection, timeout_seconds)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys = ON")
        _add_missing_functions(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get("recs_begin")
        if statement is not None:
            connection.exec_driver_sql(statement)


def _use_wal(connection: sqlite3.Connection, timeout_seconds: float) -> None:
    """Switch the file to WAL, which it then stays in. SQLite does not wait for locks here, so this does."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise sqlite3.NotSupportedError("the file system does not support SQLite's WAL mode")
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorname.split("_")[1] not in ("BUSY", "LOCKED") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _add_missing_functions(connection: sqlite3.Connection) -> None:
    """Give SQLite exp and ln where it was built without its mathematical functions."""
    try:
        connection.execute("SELECT exp(0.0), ln(1.0)")
    except sqlite3.OperationalError:
        connection.create_function("exp", 1, lambda x: None if x is None else math.exp(x), deterministic=True)
        connection.create_function("ln", 1, lambda x: None if x is None or x <= 0 else math.log(x), deterministic=True)


def _may_pass(exc: Exception) -> bool:
    """Say whether the same call may succeed later."""
    if isinstance(exc, DBAPIError) and exc.connection_invalidated:
        return True
    cause = _driver_cause(exc)
    name = getattr(cause, "sqlite_errorname", None)
    if name is not None:
        return str(name).startswith(_SQLITE_PASSING)
    # SQLAlchemy's own TimeoutError says that no connection came free in time.
    kinds = [c.__name__ for e in (cause, *cause.args) for c in type(e).__mro__]
    return isinstance(exc, SQLTimeoutError) or not _PASSING_KINDS.isdisjoint(kinds)


def _further_errors(backend: str) -> tuple[type[Exception], ...]:
    """Return what a driver lets through that is no error of its own."""
    if backend != "bigquery":
        return ()
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    return GoogleAPIError, GoogleAuthError


def _driver_cause(exc: Exception) -> BaseException:
    return exc.orig if isinstance(exc, StatementError) and exc.orig is not None else exc


def _first_line(exc: Exception) -> str:
    """Return the driver's own first line; further lines quote statements and values."""
    cause = _driver_cause(exc)
    text = str(cause).strip() or type(cause).__name__
    return text.splitlines()[0]
