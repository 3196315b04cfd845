"""Engagement facts and campaign metrics over any SQLAlchemy URL. The SQL engine itself does the aggregation.

On BigQuery there are no transactions, so that what is one here is several statements there. Readers are not misled by
a generation's half-written metrics, because its number is published only afterwards, in the state store. Of the facts
serving reads the views alone, for the frequency cap, and may miss those that are being replaced. A call that is cut
off is repeated as a whole. Where two replace the same facts at once, the facts of both may stay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from recs.model import CampaignMetrics, EngagementEdge, EngagementFact
from recs.stores.migrations import bring_up_to_date
from recs.stores.ports import Check
from recs.stores.sql import DOUBLE, AnyText, Database, UtcDateTime, chunks, days

METADATA = sa.MetaData()

FACTS = sa.Table(
    "engagement_facts",
    METADATA,
    sa.Column("conversation_id", AnyText, primary_key=True),
    sa.Column("campaign_id", AnyText, primary_key=True),
    sa.Column("action", AnyText, primary_key=True),
    sa.Column("user_id", AnyText, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    # Quoted: DuckDB reserves the word, and SQLAlchemy does not know.
    sa.Column("at", UtcDateTime, quote=True),
    # The same time in days since 1970: every dialect can subtract doubles, no two agree on subtracting times.
    sa.Column("at_day", DOUBLE),
    sa.Column("value", DOUBLE),
    sa.Column("currency", AnyText),
    sa.Index("ix_engagement_facts_user", "user_id", "campaign_id", "action"),
    sa.Index("ix_engagement_facts_campaign", "campaign_id", "user_id"),
)

METRICS = sa.Table(
    "campaign_metrics",
    METADATA,
    sa.Column("generation", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("campaign_id", AnyText, primary_key=True),
    sa.Column("users", sa.BigInteger, nullable=False),
    sa.Column("positive_users", sa.BigInteger, nullable=False),
    sa.Column("views", sa.BigInteger, nullable=False),
    sa.Column("clicks", sa.BigInteger, nullable=False),
    sa.Column("likes", sa.BigInteger, nullable=False),
    sa.Column("converts", sa.BigInteger, nullable=False),
    sa.Column("mentions", sa.BigInteger, nullable=False),
    sa.Column("dislikes", sa.BigInteger, nullable=False),
    sa.Column("prior", DOUBLE, nullable=False),
    sa.Column("last_at", UtcDateTime),
)

#: Filled and emptied inside the transaction that aggregates: nobody else ever sees a row in it.
EXCLUDED = sa.Table("excluded_users", METADATA, sa.Column("user_id", AnyText, primary_key=True))

#: In the order of the fields of EngagementFact and CampaignMetrics.
_FACT_COLUMNS = [FACTS.c[field.name] for field in fields(EngagementFact)]
_METRIC_COLUMNS = [METRICS.c[field.name] for field in fields(CampaignMetrics)]

# What serving asks on every request is built once: SQLAlchemy then finds it compiled.
_POPULAR = (
    sa.select(*_METRIC_COLUMNS)
    .where(METRICS.c.generation == sa.bindparam("generation"))
    .order_by(METRICS.c.prior.desc(), METRICS.c.campaign_id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_VIEWS_SINCE = (
    sa.select(FACTS.c.campaign_id, sa.cast(sa.func.sum(FACTS.c["count"]), sa.BigInteger))
    .where(FACTS.c.user_id == sa.bindparam("user_id"), FACTS.c.action == "view", FACTS.c.at >= sa.bindparam("since"))
    .group_by(FACTS.c.campaign_id)
)

#: BigQuery takes no DELETE without a WHERE.
_EMPTY_EXCLUDED = sa.delete(EXCLUDED).where(sa.true())

#: Exponents beyond this leave the range of a double, which PostgreSQL takes for an error.
_MAX_EXPONENT = 700.0

#: Writers of facts take turns on PostgreSQL, as they do on SQLite. The number is arbitrary.
_FACTS_LOCK = 7_310_003


def aggregate_statement(generation: int, *, newest_at: datetime | None, half_life_days: float) -> sa.Insert:
    """Return the one INSERT ... SELECT that computes a generation's metrics; users in `excluded_users` are left out."""
    facts = FACTS.c
    positive = facts.action.in_(["like", "convert"])

    def times(action: str) -> sa.ColumnElement[int]:
        return sa.func.sum(sa.case((facts.action == action, facts["count"]), else_=0))

    per_user = (
        sa.select(
            facts.campaign_id,
            times("view").label("views"),
            times("click").label("clicks"),
            times("like").label("likes"),
            times("convert").label("converts"),
            times("mention").label("mentions"),
            times("dislike").label("dislikes"),
            sa.func.max(sa.case((positive, 1), else_=0)).label("positive"),
            sa.func.max(sa.case((positive, facts.at_day))).label("positive_day"),
            sa.func.max(facts.at).label("last_at"),
        )
        .where(~sa.exists().where(EXCLUDED.c.user_id == facts.user_id))
        .group_by(facts.campaign_id, facts.user_id)
        .subquery("per_user")
    )
    user = per_user.c
    # Typed: PostgreSQL cannot guess what a bare parameter in an expression is.
    newest: sa.ColumnElement[float | None] = (
        sa.cast(sa.null(), DOUBLE) if newest_at is None else sa.literal(days(newest_at), DOUBLE)
    )
    exponent = (user.positive_day - newest) * sa.literal(math.log(2) / half_life_days, DOUBLE)
    weight = sa.case(
        (user.positive == 0, 0.0),
        (exponent.is_(None), 1.0),
        (exponent < sa.literal(-_MAX_EXPONENT, DOUBLE), 0.0),
        (exponent > sa.literal(_MAX_EXPONENT, DOUBLE), math.exp(_MAX_EXPONENT)),
        else_=sa.func.exp(exponent),
    )

    def total(column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        return sa.cast(sa.func.sum(column), sa.BigInteger)

    select = sa.select(
        sa.cast(sa.literal(generation, sa.BigInteger), sa.BigInteger),
        user.campaign_id,
        sa.func.count(),
        total(user.positive),
        total(user.views),
        total(user.clicks),
        total(user.likes),
        total(user.converts),
        total(user.mentions),
        total(user.dislikes),
        sa.func.ln(1.0 + sa.func.sum(weight)),
        sa.func.max(user.last_at),
    ).group_by(user.campaign_id)
    return METRICS.insert().from_select([c.name for c in METRICS.columns], select)


class SqlMetrics:
    """The analytics store (`MetricsStore`) at an SQLAlchemy URL."""

    role = "metrics"

    def __init__(self, url: str, *, timeout_seconds: float = 2.0) -> None:
        self._db = Database(self.role, url, timeout_seconds=timeout_seconds, durable=False)
        try:
            bring_up_to_date(self._db, "metrics")
        except BaseException:
            self._db.close()
            raise
        self._metrics_of = sa.select(*_METRIC_COLUMNS).where(
            METRICS.c.generation == sa.bindparam("generation"), self._db.among(METRICS.c.campaign_id, "campaign_ids")
        )
        self._drop_facts = FACTS.delete().where(self._db.among(FACTS.c.conversation_id, "conversation_ids"))

    def check(self) -> Check:
        started = time.perf_counter()
        product = self._db.product()
        return Check(self.role, product, (time.perf_counter() - started) * 1000)

    def close(self) -> None:
        self._db.close()

    def replace_facts(self, conversation_ids: Sequence[str], facts: Sequence[EngagementFact]) -> None:
        if not conversation_ids and not facts:
            return
        # A fact's own conversation is replaced too, and of two facts with one key the last stands: so no call can
        # leave the same fact twice, also where the engine enforces no keys.
        conversations = dict.fromkeys([*conversation_ids, *(f.conversation_id for f in facts)])
        rows = {(f.conversation_id, f.campaign_id, f.action): _fact_row(f) for f in facts}
        with self._db.write() as connection:
            self._take_turns(connection)
            for some in chunks(list(conversations)):
                connection.execute(self._drop_facts, {"conversation_ids": some})
            if rows:
                self._db.insert(connection, FACTS, list(rows.values()))

    def delete_user(self, user_id: str) -> int:
        with self._db.write() as connection:
            self._take_turns(connection)
            return _deleted(connection, FACTS, FACTS.c.user_id == user_id)

    def newest_at(self) -> datetime | None:
        with self._db.read() as connection:
            newest: datetime | None = connection.execute(sa.select(sa.func.max(FACTS.c.at))).scalar()
        return newest

    def aggregate(
        self,
        generation: int,
        *,
        newest_at: datetime | None,
        half_life_days: float,
        excluded_users: Sequence[str] = (),
    ) -> int:
        if not half_life_days > 0:
            raise ValueError(f"half_life_days is {half_life_days}, must be above 0")
        statement = aggregate_statement(generation, newest_at=newest_at, half_life_days=half_life_days)
        with self._db.write() as connection:
            connection.execute(sa.delete(METRICS).where(METRICS.c.generation == generation))
            connection.execute(_EMPTY_EXCLUDED)
            if excluded_users:
                self._db.insert(connection, EXCLUDED, [{"user_id": u} for u in dict.fromkeys(excluded_users)])
            connection.execute(statement)
            connection.execute(_EMPTY_EXCLUDED)
            made = sa.select(sa.func.count()).select_from(METRICS).where(METRICS.c.generation == generation)
            return int(connection.execute(made).scalar_one())

    def campaign_metrics(self, generation: int, campaign_ids: Sequence[str]) -> dict[str, CampaignMetrics]:
        found: dict[str, CampaignMetrics] = {}
        if not campaign_ids:
            return found
        with self._db.read() as connection:
            for some in chunks(campaign_ids):
                rows = connection.execute(self._metrics_of, {"generation": generation, "campaign_ids": some}).all()
                found.update((row[0], CampaignMetrics(*row)) for row in rows)
        return found

    def popular(self, generation: int, limit: int) -> list[CampaignMetrics]:
        if limit <= 0:
            return []
        with self._db.read() as connection:
            rows = connection.execute(_POPULAR, {"generation": generation, "limit": limit}).all()
        return [CampaignMetrics(*row) for row in rows]

    def user_campaigns(self, excluded_users: Sequence[str] = ()) -> Iterator[EngagementEdge]:
        facts = FACTS.c
        keys = (facts.user_id, facts.campaign_id, facts.action)
        count = sa.cast(sa.func.sum(facts["count"]), sa.BigInteger)
        select = sa.select(*keys, count, sa.func.max(facts.at)).group_by(*keys).order_by(*keys)
        excluded = frozenset(excluded_users)
        for row in self._db.scan(select):
            if row[0] not in excluded:
                yield EngagementEdge(*row)

    def views_since(self, user_id: str, since: datetime) -> dict[str, int]:
        with self._db.read() as connection:
            rows = connection.execute(_VIEWS_SINCE, {"user_id": user_id, "since": since}).all()
        return {row[0]: row[1] for row in rows}

    def keep_generations(self, generations: Sequence[int]) -> None:
        with self._db.write() as connection:
            connection.execute(sa.delete(METRICS).where(METRICS.c.generation.not_in(list(generations))))

    def scan_facts(self) -> Iterator[EngagementFact]:
        facts = FACTS.c
        select = sa.select(*_FACT_COLUMNS).order_by(facts.conversation_id, facts.campaign_id, facts.action)
        for row in self._db.scan(select):
            yield EngagementFact(*row)

    def counts(self) -> dict[str, int]:
        facts = FACTS.c
        select = sa.select(
            sa.func.count().label("facts"),
            *(
                sa.func.count(sa.distinct(column)).label(name)
                for name, column in (
                    ("conversations", facts.conversation_id),
                    ("users", facts.user_id),
                    ("campaigns", facts.campaign_id),
                )
            ),
        ).select_from(FACTS)
        with self._db.read() as connection:
            return {name: int(n) for name, n in connection.execute(select).one()._mapping.items()}

    def _take_turns(self, connection: Connection) -> None:
        """Let one writer of facts at a time through, until its transaction ends.

        Two that replace the same conversation would each miss the rows that the other is about to insert. SQLite has
        one writer at a time anyway.
        """
        if self._db.is_postgresql:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _FACTS_LOCK})


def _fact_row(fact: EngagementFact) -> dict[str, Any]:
    return {
        "conversation_id": fact.conversation_id,
        "campaign_id": fact.campaign_id,
        "action": fact.action,
        "user_id": fact.user_id,
        "count": fact.count,
        "at": fact.at,
        "at_day": None if fact.at is None else days(fact.at),
        "value": fact.value,
        "currency": fact.currency,
    }


def _deleted(connection: Connection, table: sa.Table, which: sa.ColumnElement[bool]) -> int:
    """Delete rows and return how many there were; not every driver reports what a DELETE removed."""
    there = connection.execute(sa.select(sa.func.count()).select_from(table).where(which)).scalar_one()
    connection.execute(sa.delete(table).where(which))
    return int(there)
