"""The components of a score: what each one measures, before it is normalised.

Every function returns float64 (n_campaigns,), higher speaks for the campaign, 0 where there is no evidence and NaN
where the component cannot say anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recs.embed.vectors import unit

Component = Literal["similar_users", "engaged_alike", "co_engagement", "intent", "content", "engagement_prior"]
COMPONENTS: tuple[Component, ...] = (
    "similar_users",
    "engaged_alike",
    "co_engagement",
    "intent",
    "content",
    "engagement_prior",
)

#: Used until weights are fitted to a data set. Values are normalised, so a weight says how much one standard
#: deviation of a component counts.
DEFAULT_WEIGHTS: Mapping[str, float] = {
    "similar_users": 0.3,
    "engaged_alike": 0.3,
    "co_engagement": 1.0,
    "intent": 0.3,
    "content": 0.3,
    "engagement_prior": 0.1,
}

#: Similarities are raised to this before they weigh a neighbour, so that a wide pool is led by its nearest.
SIMILARITY_POWER = 3.0

Array = NDArray[np.float64]
Edges = Sequence[tuple[int, int, float]]


def centred_similarity(query: NDArray[np.floating], others: NDArray[np.floating], centre: Array) -> Array:
    """Return the cosine of `query` (dim,) with each row of `others` (n, dim), both taken from `centre` (dim,).

    All users of one company talk about much the same; taking the mean user off shows what sets them apart.
    """
    # Not a matrix product: there the last bits of one row depend on which others stand beside it, and a user must be as
    # near whoever else is found or left out.
    return np.asarray(np.einsum("ij,j->i", unit(others - centre), unit(query - centre)), dtype=np.float64)


def neighbour_weights(similarities: Array, power: float = SIMILARITY_POWER) -> Array:
    """Return how much each neighbour counts, summing to 1; users who are not alike at all (<= 0) count nothing."""
    raised = np.clip(similarities, 0.0, None) ** power
    total = raised.sum()
    return np.asarray(raised / total if total > 0 else raised)


def standing_out(values: Array) -> Array:
    """Return the values of all campaigns for one user, (n_campaigns,), divided by their own root mean square.

    What a component knows of a user grows with the user's history, and would drown the other components of those
    with a long one and vanish for those with a short one. Measured: without it the blend loses to its own
    co-engagement part where histories are short. 0 stays 0, NaN stays NaN.
    """
    size = float(np.sqrt(np.mean(values**2))) if values.size else 0.0
    return np.asarray(values / size) if size > 0 else values


def engagement_similarity(shared: Array, own: int, theirs: Array) -> Array:
    """Return the cosine in [0, 1] of one user's campaigns with those of others, (n_users,).

    `shared` is the number of campaigns in common, `own` and `theirs` how many each of them took.
    """
    return np.asarray(shared / np.sqrt(np.maximum(own * theirs, 1.0)))


def neighbours_share(weights: Array, edges: Edges, n_campaigns: int) -> Array:
    """Return the weighted share of neighbours behind each campaign, in [-1, 1].

    `edges` are (neighbour, campaign, strength in [-1, 1]) with at most one per neighbour and campaign.
    """
    shares = np.zeros(n_campaigns)
    for neighbour, campaign, strength in edges:
        shares[campaign] += weights[neighbour] * strength
    return shares


def co_engagement(links: Edges, own: Mapping[int, float], n_campaigns: int) -> Array:
    """Return the summed weight of the links that lead from the user's own campaigns to each campaign.

    `links` are (source, target, weight); `own` maps the user's campaigns to the strength of the engagement. NaN
    throughout for a user without own campaigns.
    """
    if not own:
        return np.full(n_campaigns, np.nan)
    summed = np.zeros(n_campaigns)
    for source, target, weight in links:
        summed[target] += weight * own.get(source, 0.0)
    return summed


def intent(shares: Mapping[str, float], targets: Mapping[str, Sequence[int]], n_campaigns: int) -> Array:
    """Return the share of the user's conversations, in [0, 1], whose intent a campaign targets.

    NaN throughout for a user of whom no intent is known.
    """
    if not shares:
        return np.full(n_campaigns, np.nan)
    reached = np.zeros(n_campaigns)
    for name, share in shares.items():
        for campaign in targets.get(name, ()):
            reached[campaign] += share
    return reached


def content(
    campaign_vectors: NDArray[np.float32],
    own: Mapping[int, float],
    words: NDArray[np.floating] | None,
    centre: Array,
) -> Array:
    """Return the likeness in [-1, 1] of each campaign's text to what the user took, or else to what the user said.

    `campaign_vectors` is (n_campaigns, dim) with rows of NaN for campaigns without a vector. With own campaigns of
    positive strength: the cosine with their mean, both taken from the mean campaign. Without: the cosine with the
    user's vector `words` (dim,), taken from the mean user `centre`. NaN where a campaign or the user has neither.
    """
    known = np.asarray(~np.isnan(campaign_vectors).any(axis=1))
    likeness = np.full(len(campaign_vectors), np.nan)
    if not known.any():
        return likeness
    centred = unit(campaign_vectors[known] - campaign_vectors[known].mean(axis=0))
    position = np.cumsum(known) - 1
    liked = [(int(position[c]), s) for c, s in own.items() if s > 0 and known[c]]
    if liked:
        profile = sum(s * centred[row].astype(np.float64) for row, s in liked)
    elif words is not None:
        profile = words - centre
    else:
        return likeness
    likeness[known] = centred @ unit(np.asarray(profile))
    return likeness
