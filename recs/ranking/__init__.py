"""The scoring core: arrays in, arrays out. No driver, no settings, no clock.

A score is the sum over components of weight x value. `components` computes raw values, `fusion` weighs and adds them,
`filters` says what must not be offered and why, `co_engagement` fits the item-to-item model of the batch flow.
"""

from recs.ranking.co_engagement import ease_links, ease_weights
from recs.ranking.components import COMPONENTS, DEFAULT_WEIGHTS, Component
from recs.ranking.filters import suppression_reason
from recs.ranking.fusion import contributions, normalise, rank_order, scores

__all__ = [
    "COMPONENTS",
    "DEFAULT_WEIGHTS",
    "Component",
    "contributions",
    "ease_links",
    "ease_weights",
    "normalise",
    "rank_order",
    "scores",
    "suppression_reason",
]
