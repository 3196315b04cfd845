"""Cypher over Bolt, by the neo4j driver: bounded in time, repeated where the server says that it may succeed.

With a neo4j:// URL the driver asks a cluster who leads, and everything goes to the leader, reads too: a follower may
lag behind what was written before a generation was published, and readers take the newest generation. Followers are
there for when the leader fails.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, LiteralString, TypeVar, cast

from neo4j import WRITE_ACCESS, Driver, GraphDatabase, Query, ResultSummary, Session, Transaction
from neo4j.exceptions import (
    ConfigurationError,
    ConnectionAcquisitionTimeoutError,
    ConstraintError,
    DriverError,
    Neo4jError,
    ServiceUnavailable,
    SessionExpired,
    TransientError,
)

from recs.errors import StoreError, StoreUnavailableError

_T = TypeVar("_T")
Row = list[Any]

_GONE = (ServiceUnavailable, SessionExpired, TransientError, ConnectionAcquisitionTimeoutError)
_AGAIN = (*_GONE, ConstraintError)
"""All writes are upserts: one that meets a constraint was overtaken by another, and finds what that one made."""
_SCHEMES = re.compile(r"(bolt|neo4j)(\+s|\+ssc)?://")
_TIMED_OUT = "Neo.ClientError.Transaction.TransactionTimedOut"


class Bolt:
    """A driver on `url`; connects at first use."""

    def __init__(
        self, url: str, *, user: str | None, password: str | None, database: str | None, timeout_seconds: float
    ) -> None:
        # Errors are raised anyway; the driver's own retries and its hints on queries are no news to a person.
        logging.getLogger("neo4j").setLevel(logging.CRITICAL)
        self.address = re.sub(r"//.*@", "//", url)
        self._database = database
        self._timeout_seconds = timeout_seconds
        if not _SCHEMES.match(url):
            raise StoreError("graph", f"not a Neo4j URL: {self.address}; bolt:// and neo4j:// are allowed")
        try:
            self._driver: Driver = GraphDatabase.driver(
                url,
                auth=None if user is None else (user, password or ""),
                connection_timeout=timeout_seconds,
                connection_write_timeout=timeout_seconds,
                connection_acquisition_timeout=timeout_seconds,
                notifications_min_severity="OFF",
                telemetry_disabled=True,
            )
        except (ConfigurationError, ValueError) as exc:
            raise StoreError("graph", f"not a Neo4j URL that can be used: {self.address}: {exc}") from exc
        _bound_reads(self._driver, timeout_seconds)
        _bound_routing(self._driver, timeout_seconds)

    def read(self, cypher: LiteralString, **parameters: Any) -> list[Row]:
        """Return the rows of one query that returns `collect([...])`, in one round trip.

        One record that holds all rows takes the driver a quarter of the time that a record per row takes.
        """
        ((rows,),) = self._run(cypher, parameters)[0]
        return cast("list[Row]", rows)

    def server(self, cypher: LiteralString) -> tuple[list[Row], str]:
        """Return the rows of one query, and what the server calls itself."""
        rows, summary = self._run(cypher, {})
        return rows, summary.server.agent

    def write(self, work: Callable[[Transaction], _T]) -> _T:
        """Return what `work` returns after its transaction is committed; `work` may run more than once."""

        def committed(session: Session) -> _T:
            with session.begin_transaction(timeout=self._timeout_seconds) as transaction:
                result = work(transaction)
                transaction.commit()
                return result

        return self._repeated(committed)

    def run(self, cypher: LiteralString, **parameters: Any) -> list[Row]:
        """Return the records of one query, in a transaction of its own."""
        return self._run(cypher, parameters)[0]

    def close(self) -> None:
        self._driver.close()

    def _run(self, cypher: LiteralString, parameters: Mapping[str, Any]) -> tuple[list[Row], ResultSummary]:
        query = Query(cypher, timeout=self._timeout_seconds)

        def rows(session: Session) -> tuple[list[Row], ResultSummary]:
            result = session.run(query, dict(parameters))
            return result.values(), result.consume()

        return self._repeated(rows)

    def _repeated(self, work: Callable[[Session], _T]) -> _T:
        """Return what `work` makes of a session; repeated while half of the time is left.

        The driver's own retries start their clock after the first attempt, so they would double the bound.
        """
        stop = time.monotonic() + self._timeout_seconds / 2
        delay = 0.02
        with self._errors():
            while True:
                try:
                    with self._driver.session(database=self._database, default_access_mode=WRITE_ACCESS) as session:
                        return work(session)
                except _AGAIN:
                    if time.monotonic() + delay > stop:
                        raise
                time.sleep(delay)
                delay *= 2

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except _GONE as exc:
            raise self._unavailable(exc) from exc
        except Neo4jError as exc:
            if (exc.code or "").startswith(_TIMED_OUT):
                raise self._unavailable(exc) from exc
            raise StoreError("graph", f"Neo4j at {self.address} refused: {exc.message}") from exc
        except DriverError as exc:
            raise StoreError("graph", f"Neo4j at {self.address}: {exc}") from exc

    def _unavailable(self, exc: Exception) -> StoreUnavailableError:
        what = f"no answer from Neo4j at {self.address} within {self._timeout_seconds:g} s ({type(exc).__name__})"
        return StoreUnavailableError("graph", what)


def in_utc(at: datetime | None) -> str | None:
    """Return what Cypher's datetime() reads; texts, because the driver takes 0.2 ms to pack or unpack a time."""
    return None if at is None else at.astimezone(UTC).isoformat()


def from_utc(text: str | None) -> datetime | None:
    """Return the time that Cypher's toString() wrote; ArcadeDB leaves out the zone, and all that we store is in UTC."""
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _bound_reads(driver: Driver, timeout_seconds: float) -> None:
    """Let every connection stop waiting for an answer in time.

    The driver bounds connecting only; how long it waits for an answer is up to the server, and one that hangs says
    nothing. It has no public setting for this, hence the private pool.
    """
    pool: Any = driver._pool
    open_connection = pool.opener

    def open_bounded(*arguments: Any) -> Any:
        connection = open_connection(*arguments)
        connection.socket.set_read_timeout(timeout_seconds)
        return connection

    pool.opener = open_bounded


def _bound_routing(driver: Driver, timeout_seconds: float) -> None:
    """Let nobody wait longer than that for other threads that ask who leads.

    The driver lets one thread ask at a time: where no server answers, eight threads would wait eight times as long.
    """
    pool: Any = driver._pool
    if not pool.is_direct_pool:
        pool.refresh_lock = _BoundedLock(timeout_seconds)


class _BoundedLock:
    def __init__(self, timeout_seconds: float) -> None:
        self._lock = threading.RLock()
        self._timeout_seconds = timeout_seconds

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._timeout_seconds):
            raise ServiceUnavailable("other threads wait for the routing table")

    def __exit__(self, *_: object) -> None:
        self._lock.release()
