"""What PostgreSQL needs beside the engine: bounds on how long its driver waits."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import event
from sqlalchemy.engine import Engine

RV = TypeVar("RV")

#: How much longer than the server's own statement timeout the client waits, so that the server's word comes first.
_GRACE_SECONDS = 0.5


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that gives up on a server which accepts a statement and then stays silent.

    A statement timeout is the server's doing: a server that is frozen or cut off does not apply it, and the driver by
    itself would wait for ever.
    """

    answer_seconds: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        bound = self.answer_seconds if timeout is None else timeout
        try:
            return super().wait(gen, interval, bound)
        except psycopg.errors._WaitTimeout as exc:
            # An answer that comes late would be read as that of the next statement.
            self.close()
            raise psycopg.OperationalError(f"no answer within {bound:g} s") from exc


def set_up(engine: Engine, timeout_seconds: float) -> None:
    """Bound connecting, statements and silence on every new connection of an engine."""
    milliseconds = max(1, round(timeout_seconds * 1000))

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, args: list[Any], options: dict[str, Any]) -> BoundedConnection:
        options.setdefault("connect_timeout", math.ceil(timeout_seconds))
        options.setdefault("application_name", "likeminded")
        options["options"] = f"{options.get('options', '')} -c statement_timeout={milliseconds} -c TimeZone=UTC"
        connection = BoundedConnection.connect(*args, **options)
        connection.answer_seconds = timeout_seconds + _GRACE_SECONDS
        return connection
