"""Users, campaigns and intents in Neo4j, in Cypher that ArcadeDB answers alike.

    (:User {id, taken})-[:ENGAGED_WITH {action, count, last_at}]->(:Campaign {id, name, status, ...})
    (:User)-[:HAS_INTENT {count, predicted}]->(:Intent {name})<-[:TARGETS]-(:Campaign)
    (:Campaign)-[:CO_ENGAGED {weight, generation}]->(:Campaign)

`taken` is the number of campaigns that the user liked or converted on: how much weight one in common has.
What a caller gets sorted is sorted here; where a limit cuts, the server sorts too: both sort by code point.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, LiteralString, TypeVar

from neo4j import Transaction

from recs.model import Campaign, CoEngagement, EngagementEdge, UserEdges
from recs.stores._bolt import Bolt, Row, from_utc
from recs.stores._graph_writes import put_campaigns, put_users
from recs.stores.layouts import Layout, VersionGuard
from recs.stores.layouts.graph import LAYOUT
from recs.stores.ports import CampaignNode, Check, Sharing

_T = TypeVar("_T")

_CONSTRAINTS: tuple[LiteralString, ...] = (
    "CREATE CONSTRAINT recs_user_id IF NOT EXISTS FOR (n:User) REQUIRE n.id IS UNIQUE",
    "CREATE CONSTRAINT recs_campaign_id IF NOT EXISTS FOR (n:Campaign) REQUIRE n.id IS UNIQUE",
    "CREATE CONSTRAINT recs_intent_name IF NOT EXISTS FOR (n:Intent) REQUIRE n.name IS UNIQUE",
)
_COUNTS: LiteralString = """
    RETURN COUNT { (:User) } AS users,
           COUNT { (:Campaign) } AS campaigns,
           COUNT { MATCH (i:Intent) WHERE EXISTS { (i)--() } } AS intents,
           COUNT { ()-[:ENGAGED_WITH]->() } AS engagements,
           COUNT { ()-[:HAS_INTENT]->() } AS has_intent,
           COUNT { ()-[:TARGETS]->() } AS targets,
           COUNT { ()-[:CO_ENGAGED]->() } AS co_engagements
"""
_QUICK_COUNTS: LiteralString = "RETURN COUNT { (:User) } AS users, COUNT { (:Campaign) } AS campaigns"
_COUNTED = ("users", "campaigns", "intents", "engagements", "has_intent", "targets", "co_engagements")
_LINK: LiteralString = "RETURN collect([a.id, b.id, l.weight])"
_CAMPAIGN: LiteralString = """
    WITH c, [(c)-[:TARGETS]->(i:Intent) | i.name] AS intents
    RETURN collect([c.id, c.name, c.status, c.channel, toString(c.starts_at), toString(c.ends_at), c.categories,
                    intents])
"""

_USER_PAGE: LiteralString = " WITH u.id AS id ORDER BY id LIMIT $limit RETURN collect([id])"

_CAMPAIGNS_PER_WRITE = 200
_USERS_PER_WRITE = 500
_LINKS_PER_WRITE = 2000
_USERS_PER_PAGE = 10_000
_CAMPAIGNS_PER_PAGE = 100


class Neo4jGraph:
    """The campaign graph on a server that speaks Bolt at `url`; connects at first use."""

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        database: str | None = None,
        timeout_seconds: float = 2.0,
        kept: Layout[Bolt] = LAYOUT,
    ) -> None:
        self._server = Bolt(url, user=user, password=password, database=database, timeout_seconds=timeout_seconds)
        self._guard = VersionGuard(kept, f"Neo4j at {self._server.address}")
        self._constrained = False

    @property
    def _bolt(self) -> Bolt:
        """The server, whose data is of the version that is written here."""
        self._guard.let_pass(self._server)
        return self._server

    # Campaigns

    def put_campaigns(self, campaigns: Sequence[Campaign]) -> None:
        latest = {c.campaign_id: c for c in campaigns}
        for batch in _batches(sorted(latest.items()), _CAMPAIGNS_PER_WRITE):
            self._write(partial(put_campaigns, campaigns=[c for _, c in batch]))

    def delete_campaigns(self, campaign_ids: Sequence[str]) -> None:
        for batch in _batches(sorted(set(campaign_ids)), _CAMPAIGNS_PER_WRITE):
            self._bolt.run("UNWIND $ids AS id MATCH (c:Campaign {id: id}) DETACH DELETE c", ids=list(batch))

    def set_status(self, campaign_id: str, status: str) -> bool:
        found = self._bolt.run(
            "MATCH (c:Campaign {id: $id}) SET c.status = $status RETURN c.id", id=campaign_id, status=status
        )
        return bool(found)

    def campaigns(self, campaign_ids: Sequence[str] | None = None) -> dict[str, CampaignNode]:
        if campaign_ids is None:
            rows = self._bolt.read("MATCH (c:Campaign)" + _CAMPAIGN)
        elif campaign_ids:
            rows = self._bolt.read("MATCH (c:Campaign) WHERE c.id IN $ids" + _CAMPAIGN, ids=list(set(campaign_ids)))
        else:
            rows = []
        return {row[0]: _campaign_node(row) for row in sorted(rows, key=lambda row: row[0])}

    # Users

    def put_users(self, edges: Sequence[UserEdges]) -> None:
        """Upsert users and replace all edges that leave them, whole users at a time.

        What is there already is left alone: taking an edge away is dear in ArcadeDB, and a repeated load is common.
        """
        latest = {e.user_id: e for e in edges}
        for batch in _batches(sorted(latest.items()), _USERS_PER_WRITE):
            self._write(partial(put_users, users=[user for _, user in batch]))

    def delete_users(self, user_ids: Sequence[str]) -> None:
        for batch in _batches(sorted(set(user_ids)), _USERS_PER_WRITE):
            self._bolt.run("UNWIND $ids AS id MATCH (u:User {id: id}) DETACH DELETE u", ids=list(batch))

    def user(self, user_id: str) -> UserEdges | None:
        rows = self._bolt.read(
            """
            MATCH (u:User {id: $id}) OPTIONAL MATCH (u)-[r:ENGAGED_WITH|HAS_INTENT]->(n)
            RETURN collect([type(r), n.id, r.action, r.count, toString(r.last_at), n.name, r.predicted])
            """,
            id=user_id,
        )
        if not rows:
            return None
        engagements = [_engagement(user_id, *row[1:5]) for row in rows if row[0] == "ENGAGED_WITH"]
        # Edges of a version that did not predict have no `predicted`.
        having = sorted((row[5], int(row[3]), int(row[6] or 0)) for row in rows if row[0] == "HAS_INTENT")
        return UserEdges(
            user_id,
            tuple(sorted(engagements, key=_by_user)),
            {name: labelled for name, labelled, _ in having if labelled},
            {name: predicted for name, _, predicted in having if predicted},
        )

    def engagements_of(self, user_ids: Sequence[str]) -> list[EngagementEdge]:
        if not user_ids:
            return []
        rows = self._bolt.read(
            """
            MATCH (u:User)-[e:ENGAGED_WITH]->(c:Campaign) WHERE u.id IN $ids
            RETURN collect([u.id, c.id, e.action, e.count, toString(e.last_at)])
            """,
            ids=list(set(user_ids)),
        )
        return sorted((_engagement(*row) for row in rows), key=_by_user)

    def engaged_with(self, campaign_ids: Sequence[str], limit: int) -> list[EngagementEdge]:
        if not campaign_ids or limit <= 0:
            return []
        rows = self._bolt.read(
            """
            MATCH (c:Campaign)<-[e:ENGAGED_WITH]-(u:User) WHERE c.id IN $ids
            WITH c.id AS campaign, u.id AS user, e.action AS action, e.count AS count, e.last_at AS at
            ORDER BY campaign, user, action LIMIT $limit
            RETURN collect([user, campaign, action, count, toString(at)])
            """,
            ids=list(set(campaign_ids)),
            limit=limit,
        )
        return [_engagement(*row) for row in rows]

    def sharing(self, campaign_ids: Sequence[str], limit: int) -> list[Sharing]:
        if not campaign_ids or limit <= 0:
            return []
        rows = self._bolt.read(
            """
            MATCH (c:Campaign)<-[e:ENGAGED_WITH]-(u:User) WHERE c.id IN $ids AND e.action IN ['like', 'convert']
            WITH u, count(DISTINCT c.id) AS shared
            WITH u.id AS user, shared, toFloat(u.taken) AS taken ORDER BY shared / sqrt(taken) DESC, user LIMIT $limit
            RETURN collect([user, shared, taken])
            """,
            ids=list(set(campaign_ids)),
            limit=limit,
        )
        found = [Sharing(user, int(shared), int(taken)) for user, shared, taken in rows]
        return sorted(found, key=lambda row: (-row.shared / math.sqrt(row.taken), row.user_id))

    def users_with_intents(self, intents: Sequence[str], limit: int) -> list[tuple[str, str, int]]:
        if not intents or limit <= 0:
            return []
        rows = self._bolt.read(
            """
            MATCH (u:User)-[h:HAS_INTENT]->(i:Intent) WHERE i.name IN $names
            WITH u.id AS user, i.name AS intent, h.count + coalesce(h.predicted, 0) AS count
            ORDER BY user, intent LIMIT $limit
            RETURN collect([user, intent, count])
            """,
            names=list(set(intents)),
            limit=limit,
        )
        return [(user, intent, int(count)) for user, intent, count in rows]

    def user_ids(self) -> Iterator[str]:
        page = self._bolt.read("MATCH (u:User)" + _USER_PAGE, limit=_USERS_PER_PAGE)
        while page:
            yield from (row[0] for row in page)
            if len(page) < _USERS_PER_PAGE:
                return
            after = "MATCH (u:User) WHERE u.id > $last" + _USER_PAGE
            page = self._bolt.read(after, last=page[-1][0], limit=_USERS_PER_PAGE)

    # Intents

    def targets(self, intents: Sequence[str]) -> list[tuple[str, str]]:
        if not intents:
            return []
        rows = self._bolt.read(
            "MATCH (i:Intent)<-[:TARGETS]-(c:Campaign) WHERE i.name IN $names RETURN collect([i.name, c.id])",
            names=list(set(intents)),
        )
        return sorted((intent, campaign_id) for intent, campaign_id in rows)

    def targets_of_user(self, user_id: str) -> list[tuple[str, int, str]]:
        rows = self._bolt.read(
            """
            MATCH (:User {id: $id})-[h:HAS_INTENT]->(i:Intent)<-[:TARGETS]-(c:Campaign)
            RETURN collect([i.name, h.count + coalesce(h.predicted, 0), c.id])
            """,
            id=user_id,
        )
        return sorted((intent, int(count), campaign_id) for intent, count, campaign_id in rows)

    # Co-engagement

    def co_engaged(self, user_id: str, generation: int) -> list[CoEngagement]:
        rows = self._bolt.read(
            """
            MATCH (:User {id: $id})-[e:ENGAGED_WITH]->(a:Campaign) WHERE e.action IN ['like', 'convert']
            WITH DISTINCT a MATCH (a)-[l:CO_ENGAGED]->(b:Campaign) WHERE l.generation = $generation
            """
            + _LINK,
            id=user_id,
            generation=generation,
        )
        return _links(rows)

    def co_engaged_with(self, campaign_ids: Sequence[str], generation: int) -> list[CoEngagement]:
        if not campaign_ids:
            return []
        rows = self._bolt.read(
            """
            MATCH (a:Campaign)-[l:CO_ENGAGED]->(b:Campaign) WHERE a.id IN $ids AND l.generation = $generation
            """
            + _LINK,
            ids=list(set(campaign_ids)),
            generation=generation,
        )
        return _links(rows)

    def co_engaging(self, campaign_id: str, generation: int) -> list[CoEngagement]:
        rows = self._bolt.read(
            "MATCH (a:Campaign)-[l:CO_ENGAGED]->(b:Campaign {id: $id}) WHERE l.generation = $generation " + _LINK,
            id=campaign_id,
            generation=generation,
        )
        return _links(rows)

    def put_co_engagement(self, generation: int, links: Iterable[CoEngagement]) -> None:
        """Replace a generation's links; not in one transaction, so put them before the generation is published."""
        self._ensure_constraints()
        self._drop_links("MATCH (:Campaign)-[l:CO_ENGAGED]->(:Campaign) WHERE l.generation = $generation", generation)
        remaining = iter(links)
        while batch := list(islice(remaining, _LINKS_PER_WRITE)):
            self._bolt.run(
                """
                UNWIND $rows AS row MATCH (a:Campaign {id: row.source}) MATCH (b:Campaign {id: row.target})
                CREATE (a)-[:CO_ENGAGED {weight: row.weight, generation: $generation}]->(b)
                """,
                rows=[{"source": link.source, "target": link.target, "weight": float(link.weight)} for link in batch],
                generation=generation,
            )

    def keep_co_engagement(self, generations: Sequence[int]) -> None:
        self._drop_links(
            "MATCH (:Campaign)-[l:CO_ENGAGED]->(:Campaign) WHERE NOT l.generation IN $generation", list(generations)
        )

    def scan_links(self, generation: int) -> Iterator[CoEngagement]:
        campaign_ids = sorted(row[0] for row in self._bolt.read("MATCH (c:Campaign) RETURN collect([c.id])"))
        for batch in _batches(campaign_ids, _CAMPAIGNS_PER_PAGE):
            yield from self.co_engaged_with(batch, generation)

    # The store

    def counts(self) -> dict[str, int]:
        """Return how many there are of each; an intent that nothing leads to any more is not counted."""
        return _counted(self._bolt.run(_COUNTS))

    def check(self) -> Check:
        began = time.perf_counter()
        # Not the relationships: ArcadeDB visits every one to count them.
        rows, agent = self._bolt.server(_QUICK_COUNTS)
        return Check("graph", agent, (time.perf_counter() - began) * 1000, _counted(rows))

    def bring_up_to_date(self) -> None:
        self._guard.bring_up_to_date(self._server)

    def close(self) -> None:
        self._server.close()

    def _write(self, work: Callable[[Transaction], None]) -> None:
        self._ensure_constraints()
        self._bolt.write(work)

    def _ensure_constraints(self) -> None:
        if not self._constrained:
            self._guard.begin(self._server)
            for constraint in _CONSTRAINTS:
                self._bolt.run(constraint)
            self._constrained = True

    def _drop_links(self, matched: LiteralString, generation: int | list[int]) -> None:
        while True:
            ((dropped,),) = self._bolt.run(
                matched + " WITH l LIMIT $limit DELETE l RETURN count(*)", generation=generation, limit=_LINKS_PER_WRITE
            )
            if dropped < _LINKS_PER_WRITE:
                return


def _campaign_node(row: Row) -> CampaignNode:
    campaign_id, name, status, channel, starts_at, ends_at, categories, intents = row
    return CampaignNode(
        campaign_id,
        name,
        status,
        channel,
        from_utc(starts_at),
        from_utc(ends_at),
        tuple(categories or ()),
        tuple(sorted(intents)),
    )


def _engagement(user_id: str, campaign_id: str, action: Any, count: Any, last_at: Any) -> EngagementEdge:
    return EngagementEdge(user_id, campaign_id, action, int(count), from_utc(last_at))


def _by_user(edge: EngagementEdge) -> tuple[str, str, str]:
    return (edge.user_id, edge.campaign_id, edge.action)


def _links(rows: list[Row]) -> list[CoEngagement]:
    links = [CoEngagement(source, target, float(weight)) for source, target, weight in rows]
    return sorted(links, key=lambda link: (link.source, link.target))


def _counted(rows: list[Row]) -> dict[str, int]:
    (row,) = rows
    return {name: int(count) for name, count in zip(_COUNTED, row, strict=False)}


def _batches(rows: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
