"""Weighing, adding and ordering. Components are rows, campaigns columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Contributions are whole multiples of this. Sums of such numbers are exact in float64 as long as they stay below
#: 2**22, in whichever order they are added, so the parts shown add up to the score to the last bit.
GRAIN = 2.0**-30
_LARGEST = 2.0**18

Values = NDArray[np.float64]


def normalise(raw: Values, scales: Sequence[float]) -> Values:
    """Return raw values (n_components, n_items) divided by each component's constant.

    A constant of 0 (a component that never varied when the constants were measured) leaves its row as it is.
    NaN stays NaN.
    """
    divisors = np.asarray(scales, dtype=np.float64)
    return np.asarray(raw / np.where(divisors == 0, 1.0, divisors)[:, None])


def contributions(values: Values, weights: Sequence[float]) -> Values:
    """Return weight x value, float64 (n_components, n_items), to within 2**-31, as whole multiples of 2**-30.

    NaN, "the component knows nothing of the campaign", contributes 0. Raises ValueError for a weight that is not
    finite or a value beyond +-2**18.
    """
    column = np.asarray(weights, dtype=np.float64)[:, None]
    if not np.isfinite(column).all():
        raise ValueError(f"weights must be finite numbers, not {list(weights)}")
    product = np.nan_to_num(column * values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if product.size and not np.abs(product).max() <= _LARGEST:
        raise ValueError(f"weight x value of {np.abs(product).max()} exceeds {_LARGEST}: rescale the component")
    return np.asarray(np.round(product / GRAIN) * GRAIN)


def scores(parts: Values) -> Values:
    """Return the exact sum of the contributions of each campaign, (n_components, n_items) to (n_items,)."""
    return np.asarray(parts.sum(axis=0, dtype=np.float64))


def rank_order(score: Values, ids: Sequence[str]) -> NDArray[np.intp]:
    """Return the positions of the campaigns from best to worst; ties fall by id, NaN comes last."""
    by_id = np.empty(len(ids), dtype=np.intp)
    by_id[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return np.lexsort((by_id, -score))
