"""What a generation pins: metrics, co-engagement, the mean user, the constants that values are divided by."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from scipy import sparse

from recs.batch.fits import kept_fits
from recs.batch.vectors import CENTRE_USERS, mean_user
from recs.bootstrap import Stores
from recs.errors import RunError
from recs.model import TAKEN, Generation
from recs.ranking import COMPONENTS, DEFAULT_WEIGHTS, ease_links
from recs.retrieval.catalogue import load_catalogue
from recs.retrieval.scoring import Scorer
from recs.sampling import sample
from recs.settings import Settings
from recs.stores.ports import SPACES, VectorIndex

#: Users on whom the constants are measured, of those that the mean is taken over.
_SCALE_USERS = 64
_THREADS = 4


def load_aggregates(stores: Stores, settings: Settings, number: int) -> int:
    """Let the SQL engine compute a generation's campaign metrics; returns how many campaigns have any."""
    return stores.metrics.aggregate(
        number,
        newest_at=stores.metrics.newest_at(),
        half_life_days=settings.recency_half_life_days,
        excluded_users=sorted(stores.state.profiling_opt_outs()),
    )


def load_co_engagement(stores: Stores, settings: Settings, number: int) -> int:
    """Fit the item-to-item model and store its links in the graph; returns how many there are."""
    campaign_ids = sorted(stores.graph.campaigns())
    column = {campaign_id: i for i, campaign_id in enumerate(campaign_ids)}
    rows: list[int] = []
    columns: list[int] = []
    user, row = None, -1
    for edge in stores.metrics.user_campaigns(sorted(stores.state.profiling_opt_outs())):
        if edge.user_id != user:
            user, row = edge.user_id, row + 1
        if edge.action in TAKEN and edge.campaign_id in column:
            rows.append(row)
            columns.append(column[edge.campaign_id])
    shape = (row + 1, len(campaign_ids))
    engagement = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    engagement.data[:] = 1.0  # liked and converted on is one engagement
    links = ease_links(engagement, campaign_ids, links_per_campaign=settings.co_engagement_links)
    stores.graph.put_co_engagement(number, links)
    return len(links)


def sample_users(stores: Stores, size: int) -> list[str]:
    """Return a sample of users that depends on nothing but their ids, opted-out ones not in it."""
    excluded = stores.state.profiling_opt_outs()
    users = (user_id for user_id in stores.graph.user_ids() if user_id not in excluded)
    return sample(users, size)


def make_generation(
    stores: Stores, index: VectorIndex, settings: Settings, *, number: int, run_id: str, model: str, dim: int
) -> Generation:
    """Return the generation that is about to be published; its metrics and links are in place already."""
    # Serving reads vectors without waiting for the latest; from here on it finds those of this generation.
    for space in SPACES:
        index.count(space)
    users = sample_users(stores, CENTRE_USERS)
    kept = kept_fits(stores.state)
    generation = Generation(
        number=number,
        build=index.build,
        model=model,
        run_id=run_id,
        published_at=datetime.now(UTC),
        newest_at=stores.metrics.newest_at(),
        weights={**DEFAULT_WEIGHTS, **kept.weights("users"), **(settings.weights or {})},
        text_weights=kept.weights("texts"),
        fit=kept.told(),
        scales=dict.fromkeys(COMPONENTS, 1.0),
        centre=mean_user(index, users, dim),
        users=stores.graph.counts()["users"],
    )
    return replace(generation, scales=measure_scales(stores, settings, generation, users[:_SCALE_USERS]))


def measure_scales(
    stores: Stores, settings: Settings, generation: Generation, user_ids: Sequence[str]
) -> dict[str, float]:
    """Return each component's standard deviation over these users and all campaigns, by the serving code path.

    A component that nothing is known of for a user counts as what its users have on the others; one that never
    varies gets 1. Rounded to 6 significant digits.
    """
    catalogue = load_catalogue(stores, generation)
    values: list[np.ndarray[tuple[int, int], np.dtype[np.float64]]] = []
    with ThreadPoolExecutor(_THREADS) as asking, ThreadPoolExecutor(_THREADS) as executor:
        scorer = Scorer(stores, settings, generation, catalogue, executor, now=generation.published_at)
        for signals in asking.map(scorer.signals, user_ids):
            if signals.degraded:
                raise RunError(f"constants cannot be measured, no answer from: {', '.join(sorted(signals.degraded))}")
            values.append(signals.raw)
    scales: dict[str, float] = {}
    for row, name in enumerate(COMPONENTS):
        known = np.concatenate([v[row] for v in values]) if values else np.empty(0)
        known = known[np.isfinite(known)]
        deviation = float(known.std()) if known.size else 0.0
        scales[name] = float(f"{deviation:.6g}") if deviation > 1e-9 else 1.0
    return scales
