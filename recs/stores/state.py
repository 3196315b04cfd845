"""The state store over SQLite or PostgreSQL: what must be exact."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from recs.errors import RunError, StoreError
from recs.model import Generation, Head, Preferences
from recs.stores import run_lock
from recs.stores.group_commit import GroupCommit
from recs.stores.migrations import bring_up_to_date
from recs.stores.ports import Check, RunRecord
from recs.stores.sql import Database, chunks, insert_missing, upsert
from recs.stores.state_schema import (
    ARTIFACTS,
    GENERATIONS,
    HEAD,
    PENDING,
    PREFERENCES,
    RUN_LOCK,
    RUNS,
    SECRETS,
    SHOWN,
    generation_row,
    preferences_body,
    read_generation,
    read_preferences,
    read_run,
    run_row,
)

_HEAD_SQL = "SELECT generation, revision FROM head WHERE id = 1"
_RUNNING = sa.select(RUN_LOCK.c.run_id)
_SECRET = sa.select(SECRETS.c.value).where(SECRETS.c.name == sa.bindparam("name"))
_ARTIFACT = sa.select(ARTIFACTS.c.body).where(ARTIFACTS.c.name == sa.bindparam("name"))
_ARTIFACT_DIGEST = sa.select(ARTIFACTS.c.sha256).where(ARTIFACTS.c.name == sa.bindparam("name"))
_SHOWN = sa.select(SHOWN.c.answer).where(SHOWN.c.recommendation_id == sa.bindparam("recommendation_id"))


class SqlState:
    """The state store (`StateStore`) at an SQLAlchemy URL of SQLite or PostgreSQL. Every write is durable."""

    role = "state"

    def __init__(self, url: str, *, timeout_seconds: float = 2.0) -> None:
        self._db = Database(self.role, url, timeout_seconds=timeout_seconds, durable=True)
        try:
            if not (self._db.is_sqlite or self._db.is_postgresql):
                raise StoreError(
                    self.role, f"{self._db.shown_url} is neither SQLite nor PostgreSQL, whose locks it is built on"
                )
            bring_up_to_date(self._db, "state")
        except BaseException:
            self._db.close()
            raise
        self._preferences_of = sa.select(PREFERENCES.c.user_id, PREFERENCES.c.body).where(
            self._db.among(PREFERENCES.c.user_id, "user_ids")
        )

        # Serving threads record what they show all the time, and each commit waits for the disk: they share commits.
        self._shown = GroupCommit(self.role, self._write_shown, timeout_seconds=timeout_seconds)

    def check(self) -> Check:
        started = time.perf_counter()
        product = self._db.product()
        return Check(self.role, product, (time.perf_counter() - started) * 1000)

    def close(self) -> None:
        self._db.close()

    def head(self) -> Head:
        row = self._db.fetch_one(_HEAD_SQL)
        return Head(row[0], row[1])

    def generation(self, number: int | None = None) -> Generation | None:
        wanted: Any = sa.select(HEAD.c.generation).scalar_subquery() if number is None else number
        with self._db.read() as connection:
            row = connection.execute(sa.select(GENERATIONS).where(GENERATIONS.c.number == wanted)).one_or_none()
        return None if row is None else read_generation(row)

    def publish(self, generation: Generation, *, marks_seen: int | None = None) -> None:
        """Make a generation current and clear the dirty mark, in one transaction.

        Raises StoreError where its number is not the current one plus 1, and RunError where another run has taken over
        the right to run. `marks_seen`, from `dirty_marks` before the generation was computed, keeps the marks that
        were set since: what changed meanwhile is not in it.
        """
        left = 0 if marks_seen is None else sa.case((HEAD.c.dirty > marks_seen, HEAD.c.dirty - marks_seen), else_=0)
        with self._db.write() as connection:
            # The row stays locked from here on, so a second publisher waits and then finds another number.
            moved = connection.execute(
                HEAD.update()
                .where(HEAD.c.generation == generation.number - 1)
                .values(generation=generation.number, dirty=left)
            ).rowcount
            if moved != 1:
                current = connection.execute(sa.select(HEAD.c.generation)).scalar_one()
                raise StoreError(
                    self.role, f"cannot publish generation {generation.number}: the current one is {current}"
                )
            holder = connection.execute(sa.select(RUN_LOCK.c.run_id)).scalar_one()
            if holder is not None and holder != generation.run_id:
                raise RunError(f"run {generation.run_id} cannot publish: run {holder} has taken over the right to run")
            connection.execute(GENERATIONS.insert(), generation_row(generation))

    def put_run(self, run: RunRecord) -> None:
        with self._db.write() as connection:
            upsert(connection, RUNS, [run_row(run)])

    def run(self, run_id: str) -> RunRecord | None:
        with self._db.read() as connection:
            row = connection.execute(sa.select(RUNS).where(RUNS.c.run_id == run_id)).one_or_none()
        return None if row is None else read_run(row)

    def runs(self, limit: int = 50) -> list[RunRecord]:
        select = sa.select(RUNS).order_by(RUNS.c.started_at.desc(), RUNS.c.run_id).limit(max(limit, 0))
        with self._db.read() as connection:
            return [read_run(row) for row in connection.execute(select)]

    def run_lock(self, run_id: str) -> AbstractContextManager[None]:
        return run_lock.hold(self._db, run_id)

    def running(self) -> str | None:
        with self._db.read() as connection:
            run_id: str | None = connection.execute(_RUNNING).scalar()
        return run_id

    def add_pending(self, conversation_user: Mapping[str, str]) -> None:
        if not conversation_user:
            return
        now = datetime.now(UTC)
        # One order for all writers: two that lock the same rows in different orders would wait for each other.
        rows = [{"conversation_id": c, "user_id": u, "since": now} for c, u in sorted(conversation_user.items())]
        with self._db.write() as connection:
            upsert(connection, PENDING, rows)
            _mark_dirty(connection)

    def pending(self) -> dict[str, str]:
        select = sa.select(PENDING.c.conversation_id, PENDING.c.user_id).order_by(PENDING.c.conversation_id)
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(select)}

    def clear_pending(self, conversation_ids: Sequence[str]) -> None:
        if not conversation_ids:
            return
        which = self._db.among(PENDING.c.conversation_id, "conversation_ids")
        with self._db.write() as connection:
            for some in chunks(conversation_ids):
                connection.execute(PENDING.delete().where(which), {"conversation_ids": some})

    def mark_dirty(self) -> None:
        with self._db.write() as connection:
            _mark_dirty(connection)

    def is_dirty(self) -> bool:
        return self.dirty_marks() > 0

    def dirty_marks(self) -> int:
        """Return how many dirty marks were set since the last publish; a run notes it before it computes."""
        return int(self._db.fetch_one("SELECT dirty FROM head WHERE id = 1")[0])

    def put_preferences(self, preferences: Sequence[Preferences]) -> int:
        wanted = {p.user_id: p for p in preferences}
        if not wanted:
            return 0
        now = datetime.now(UTC)
        with self._db.write() as connection:
            # Writers of preferences take turns at the head's row, so that what is compared here still holds when
            # it is written.
            connection.execute(sa.select(HEAD.c.id).with_for_update())
            found: dict[str, str] = {}
            for some in chunks(list(wanted)):
                rows = connection.execute(self._preferences_of, {"user_ids": some}).all()
                found.update((row[0], row[1]) for row in rows)
            changed = [
                {"user_id": user_id, "profiling": p.profiling, "body": body, "updated_at": now}
                for user_id, p in wanted.items()
                if (body := preferences_body(p)) != found.get(user_id)
            ]
            if changed:
                upsert(connection, PREFERENCES, changed)
                _bump_revision(connection)
                _mark_dirty(connection)
        return len(changed)

    def preferences(self, user_ids: Sequence[str]) -> dict[str, Preferences]:
        found: dict[str, Preferences] = {}
        if not user_ids:
            return found
        with self._db.read() as connection:
            for some in chunks(user_ids):
                rows = connection.execute(self._preferences_of, {"user_ids": some}).all()
                found.update((row[0], read_preferences(row[1])) for row in rows)
        return found

    def all_preferences(self) -> Iterator[Preferences]:
        for row in self._db.scan(sa.select(PREFERENCES.c.body).order_by(PREFERENCES.c.user_id)):
            yield read_preferences(row[0])

    def profiling_opt_outs(self) -> set[str]:
        select = sa.select(PREFERENCES.c.user_id).where(PREFERENCES.c.profiling == sa.false())
        with self._db.read() as connection:
            return set(connection.execute(select).scalars())

    def delete_user(self, user_id: str) -> int:
        with self._db.write() as connection:
            connection.execute(sa.select(HEAD.c.id).with_for_update())
            preferences = connection.execute(PREFERENCES.delete().where(PREFERENCES.c.user_id == user_id)).rowcount
            if preferences:
                _bump_revision(connection)
                _mark_dirty(connection)
            shown = connection.execute(SHOWN.delete().where(SHOWN.c.user_id == user_id)).rowcount
            pending = connection.execute(PENDING.delete().where(PENDING.c.user_id == user_id)).rowcount
        return preferences + shown + pending

    def bump_revision(self) -> int:
        with self._db.write() as connection:
            return _bump_revision(connection)

    def record_shown(self, recommendation_id: str, user_id: str | None, generation: int, answer_json: str) -> None:
        self._shown.put(
            {
                "recommendation_id": recommendation_id,
                "user_id": user_id,
                "generation": generation,
                "at": datetime.now(UTC),
                "answer": answer_json,
            }
        )

    def _write_shown(self, rows: Sequence[dict[str, Any]]) -> None:
        by_id = {row["recommendation_id"]: row for row in rows}
        with self._db.write() as connection:
            upsert(connection, SHOWN, list(by_id.values()))

    def shown(self, recommendation_id: str) -> str | None:
        with self._db.read() as connection:
            answer: str | None = connection.execute(_SHOWN, {"recommendation_id": recommendation_id}).scalar()
        return answer

    def put_artifact(self, name: str, body: bytes) -> None:
        row = {"name": name, "body": body, "sha256": hashlib.sha256(body).hexdigest(), "made_at": datetime.now(UTC)}
        with self._db.write() as connection:
            upsert(connection, ARTIFACTS, [row])

    def artifact(self, name: str) -> bytes | None:
        with self._db.read() as connection:
            body = connection.execute(_ARTIFACT, {"name": name}).scalar()
        return None if body is None else bytes(body)

    def artifact_digest(self, name: str) -> str | None:
        with self._db.read() as connection:
            digest: str | None = connection.execute(_ARTIFACT_DIGEST, {"name": name}).scalar()
        return digest

    def secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        with self._db.read() as connection:
            held: bytes | None = connection.execute(_SECRET, {"name": name}).scalar()
        if held is not None:
            return held
        made = make()
        with self._db.write() as connection:
            # Whoever was first meanwhile has made everybody's.
            insert = insert_missing(SECRETS, connection.dialect.name)
            connection.execute(insert, {"name": name, "value": made, "made_at": datetime.now(UTC)})
            return bytes(connection.execute(_SECRET, {"name": name}).scalar_one())


def _mark_dirty(connection: Connection) -> None:
    connection.execute(HEAD.update().values(dirty=HEAD.c.dirty + 1))


def _bump_revision(connection: Connection) -> int:
    connection.execute(HEAD.update().values(revision=HEAD.c.revision + 1))
    return int(connection.execute(sa.select(HEAD.c.revision)).scalar_one())
