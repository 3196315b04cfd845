"""What a write to the campaign graph does inside its transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, LiteralString

from neo4j import Transaction

from recs.model import TAKEN, Campaign, UserEdges
from recs.stores._bolt import from_utc, in_utc


def put_campaigns(tx: Transaction, *, campaigns: Sequence[Campaign]) -> None:
    """Upsert campaign nodes and replace their TARGETS edges."""
    rows = [_campaign_row(c) for c in campaigns]
    tx.run(
        """
        UNWIND $rows AS row MERGE (c:Campaign {id: row.id})
        SET c.name = row.name, c.status = row.status, c.channel = row.channel, c.starts_at = datetime(row.starts_at),
            c.ends_at = datetime(row.ends_at), c.categories = row.categories
        """,
        rows=rows,
    ).consume()
    tx.run(
        """
        UNWIND $rows AS row MATCH (c:Campaign {id: row.id})-[t:TARGETS]->(i:Intent)
        WHERE NOT i.name IN row.intents DELETE t
        """,
        rows=rows,
    ).consume()
    tx.run(
        """
        UNWIND $rows AS row UNWIND row.intents AS name MATCH (c:Campaign {id: row.id})
        MERGE (i:Intent {name: name}) MERGE (c)-[:TARGETS]->(i)
        """,
        rows=rows,
    ).consume()


def put_users(tx: Transaction, *, users: Sequence[UserEdges]) -> None:
    """Upsert users, each of them once among `users`, and replace all edges that leave them."""
    ids = [user.user_id for user in users]
    # Setting something takes the lock that makes two writers of one user follow each other.
    counts = [[user.user_id, len({e.campaign_id for e in user.engagements if e.action in TAKEN})] for user in users]
    tx.run("UNWIND $rows AS row MERGE (u:User {id: row[0]}) SET u.taken = row[1]", rows=counts).consume()
    engagements = [
        (user.user_id, e.campaign_id, e.action, e.count, in_utc(e.last_at)) for user in users for e in user.engagements
    ]
    _replace(tx, ids, _ENGAGEMENTS, engagements, lambda count, at: (count, in_utc(from_utc(at))))
    intents = [
        (user.user_id, name, "", user.intents.get(name, 0), user.predicted.get(name, 0))
        for user in users
        for name in user.known_intents()
    ]
    _replace(tx, ids, _INTENTS, intents, lambda count, predicted: (count, predicted))


_ENGAGEMENTS: tuple[LiteralString, LiteralString, LiteralString, LiteralString] = (
    """
    UNWIND $ids AS id MATCH (u:User {id: id})-[e:ENGAGED_WITH]->(c:Campaign)
    RETURN collect([u.id, c.id, e.action, e.count, toString(e.last_at)])
    """,
    """
    UNWIND $rows AS row MATCH (u:User {id: row[0]})-[e:ENGAGED_WITH]->(c:Campaign {id: row[1]})
    WHERE e.action = row[2] DELETE e
    """,
    """
    UNWIND $rows AS row MATCH (u:User {id: row[0]})-[e:ENGAGED_WITH]->(c:Campaign {id: row[1]})
    WHERE e.action = row[2] SET e.count = row[3], e.last_at = datetime(row[4])
    """,
    """
    UNWIND $rows AS row MATCH (u:User {id: row[0]}) MATCH (c:Campaign {id: row[1]})
    CREATE (u)-[:ENGAGED_WITH {action: row[2], count: row[3], last_at: datetime(row[4])}]->(c)
    """,
)
_INTENTS: tuple[LiteralString, LiteralString, LiteralString, LiteralString] = (
    """
    UNWIND $ids AS id MATCH (u:User {id: id})-[h:HAS_INTENT]->(i:Intent)
    RETURN collect([u.id, i.name, '', h.count, coalesce(h.predicted, 0)])
    """,
    "UNWIND $rows AS row MATCH (u:User {id: row[0]})-[h:HAS_INTENT]->(i:Intent {name: row[1]}) DELETE h",
    """
    UNWIND $rows AS row MATCH (u:User {id: row[0]})-[h:HAS_INTENT]->(i:Intent {name: row[1]})
    SET h.count = row[3], h.predicted = row[4]
    """,
    """
    UNWIND $rows AS row MATCH (u:User {id: row[0]}) MERGE (i:Intent {name: row[1]})
    CREATE (u)-[:HAS_INTENT {count: row[3], predicted: row[4]}]->(i)
    """,
)


def _replace(
    tx: Transaction,
    ids: list[str],
    queries: tuple[LiteralString, LiteralString, LiteralString, LiteralString],
    rows: Iterable[tuple[Any, ...]],
    kept: Callable[[Any, Any], tuple[Any, Any]],
) -> None:
    """Make `rows` (user, target, action, and the two things that an edge keeps) all edges of one kind that leave the
    users; `kept` makes of what the server tells of an edge what a row has."""
    read, delete, update, create = queries
    ((found,),) = tx.run(read, ids=ids).values()
    there = {(user, target, action): kept(*values) for user, target, action, *values in found}
    wanted = {row[:3]: row[3:] for row in rows}
    changes = (
        (delete, [edge for edge in there if edge not in wanted]),
        (update, [edge + value for edge, value in wanted.items() if edge in there and there[edge] != value]),
        (create, [edge + value for edge, value in wanted.items() if edge not in there]),
    )
    for query, changed in changes:
        if changed:
            tx.run(query, rows=[list(row) for row in changed]).consume()


def _campaign_row(campaign: Campaign) -> dict[str, Any]:
    return {
        "id": campaign.campaign_id,
        "name": campaign.name,
        "status": campaign.status,
        "channel": campaign.channel,
        "starts_at": in_utc(campaign.starts_at),
        "ends_at": in_utc(campaign.ends_at),
        "categories": list(campaign.categories),
        "intents": sorted(set(campaign.intents)),
    }
