"""The layout of the graph: its version is the node `(:Layout {id: 'recs', version})`, which nothing leads to."""

from __future__ import annotations

from recs.stores._bolt import Bolt
from recs.stores.layouts import Layout

_USERS_PER_WRITE = 2_000


def _found(bolt: Bolt) -> int | None:
    versions = bolt.read("MATCH (l:Layout {id: 'recs'}) RETURN collect([l.version])")
    if versions:
        return max(int(version) for (version,) in versions)
    ((users, campaigns),) = bolt.run("RETURN COUNT { (:User) } AS users, COUNT { (:Campaign) } AS campaigns")
    return 1 if users or campaigns else None


def _keep(bolt: Bolt, version: int) -> None:
    bolt.run("MERGE (l:Layout {id: 'recs'}) SET l.version = $version", version=version)


def _count_taken(bolt: Bolt) -> None:
    """Version 2: users know how many campaigns they took."""
    while True:
        ((counted,),) = bolt.run(
            """
            MATCH (u:User) WHERE u.taken IS NULL WITH u LIMIT $limit
            OPTIONAL MATCH (u)-[e:ENGAGED_WITH]->(c:Campaign) WHERE e.action IN ['like', 'convert']
            WITH u, count(DISTINCT c) AS taken SET u.taken = taken RETURN count(*)
            """,
            limit=_USERS_PER_WRITE,
        )
        if counted < _USERS_PER_WRITE:
            return


LAYOUT: Layout[Bolt] = Layout("graph", "RECS_NEO4J_URL", _found, _keep, version=2, steps={1: _count_taken})
