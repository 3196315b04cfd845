"""The layout of the graph: its version is the node `(:Layout {id: 'recs', version})`, which nothing leads to."""

from __future__ import annotations

from recs.stores._bolt import Bolt
from recs.stores.layouts import Layout


def _found(bolt: Bolt) -> int | None:
    versions = bolt.read("MATCH (l:Layout {id: 'recs'}) RETURN collect([l.version])")
    if versions:
        return max(int(version) for (version,) in versions)
    ((users, campaigns),) = bolt.run("RETURN COUNT { (:User) } AS users, COUNT { (:Campaign) } AS campaigns")
    return 1 if users or campaigns else None


def _keep(bolt: Bolt, version: int) -> None:
    bolt.run("MERGE (l:Layout {id: 'recs'}) SET l.version = $version", version=version)


LAYOUT: Layout[Bolt] = Layout("graph", "RECS_NEO4J_URL", _found, _keep, version=1)
