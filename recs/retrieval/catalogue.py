"""The campaign catalogue as serving needs it: a snapshot per generation and revision, kept in the process.

Catalogues are small (tens to thousands of campaigns) and change only with a publish or a live change, both of which
the head tells. Holding one whole lets every request rank every campaign without asking for them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recs.bootstrap import Stores
from recs.errors import StoreUnavailableError
from recs.model import CampaignMetrics, Generation, Head
from recs.stores.ports import CampaignNode


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All campaigns, sorted by id; arrays are aligned with `nodes`."""

    nodes: tuple[CampaignNode, ...]
    ids: tuple[str, ...]
    position: dict[str, int]
    targets: dict[str, tuple[int, ...]]
    """Intent to the campaigns that target it."""
    vectors: NDArray[np.float32]
    """(n_campaigns, dim); NaN where a campaign has no text."""
    prior: NDArray[np.float64]
    """(n_campaigns,); NaN throughout where the metrics store did not answer, 0 for a campaign without engagement."""
    metrics: dict[str, CampaignMetrics]
    degraded: frozenset[str]

    def __len__(self) -> int:
        return len(self.nodes)


def load_catalogue(stores: Stores, generation: Generation) -> Catalogue:
    """Return the catalogue; raises StoreUnavailableError only where the graph does not answer."""
    by_id = stores.graph.campaigns()
    ids = tuple(sorted(by_id))
    nodes = tuple(by_id[campaign_id] for campaign_id in ids)
    position = {campaign_id: i for i, campaign_id in enumerate(ids)}
    targets: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        for intent in node.intents:
            targets.setdefault(intent, []).append(i)

    degraded = set()
    vectors = np.full((len(ids), max(1, len(generation.centre))), np.nan, dtype=np.float32)
    try:
        for campaign_id, vector in stores.vectors.open(generation.build, lagging=True).get("campaigns", ids).items():
            vectors[position[campaign_id]] = vector
    except StoreUnavailableError as exc:
        degraded.add(exc.store)
    prior = np.zeros(len(ids))
    metrics: dict[str, CampaignMetrics] = {}
    try:
        metrics = stores.metrics.campaign_metrics(generation.number, ids)
        for campaign_id, row in metrics.items():
            prior[position[campaign_id]] = row.prior
    except StoreUnavailableError as exc:
        degraded.add(exc.store)
        prior[:] = np.nan
    return Catalogue(
        nodes=nodes,
        ids=ids,
        position=position,
        targets={intent: tuple(positions) for intent, positions in targets.items()},
        vectors=vectors,
        prior=prior,
        metrics=metrics,
        degraded=frozenset(degraded),
    )


class CatalogueKeeper:
    """Holds the snapshot of the head that was asked for last. One thread loads, the others wait for it."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._lock = threading.Lock()
        self._held: tuple[Head, Catalogue] | None = None

    def at(self, head: Head, generation: Generation) -> Catalogue:
        """Return the catalogue as of a head. One that is incomplete because a store was down is not kept."""
        held = self._held
        if held is not None and held[0] == head:
            return held[1]
        with self._lock:
            if self._held is not None and self._held[0] == head:
                return self._held[1]
            catalogue = load_catalogue(self._stores, generation)
            if not catalogue.degraded:
                self._held = (head, catalogue)
            return catalogue
