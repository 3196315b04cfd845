"""How far a mean over test users can be trusted, and whether two methods differ. Seeded: the same every time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
PERMUTATIONS = 10_000
_CHUNK = 500


class Interval(NamedTuple):
    """A mean with its interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: NDArray[np.float64], *, seed: int, resamples: int = RESAMPLES, level: float = 0.95) -> Interval:
    """Return the mean of values (n,) with its percentile interval over resampled users; NaN throughout where n is 0.

    It is an interval for the mean over users like these, not for a single user. The same seed and n give the same
    resamples, so methods are compared over the same ones.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    if not len(values):
        return Interval(np.nan, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [
            values[rng.integers(0, len(values), size=(min(_CHUNK, resamples - start), len(values)))].mean(axis=1)
            for start in range(0, resamples, _CHUNK)
        ]
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_p(
    first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int, permutations: int = PERMUTATIONS
) -> float:
    """Return the two-sided p of a paired randomisation test on the mean difference of two methods, each (n,).

    Under the hypothesis of no difference each user's two values might as well be swapped. The smallest p that can come
    out is 1 / (permutations + 1). Methods with equal values throughout get 1.

    Source: M. Smucker, J. Allan, B. Carterette, A comparison of statistical significance tests for information
    retrieval evaluation, CIKM 2007.
    """
    difference = first - second
    observed = abs(difference.mean()) if len(difference) else 0.0
    if observed == 0:
        return 1.0
    rng = np.random.default_rng(seed)
    as_far = 0
    for start in range(0, permutations, _CHUNK):
        size = (min(_CHUNK, permutations - start), len(difference))
        signs = rng.integers(0, 2, size=size, dtype=np.int8) * 2 - 1
        # Sums of the same numbers in another order differ in their last bits.
        as_far += int((np.abs(signs @ difference / len(difference)) >= observed * (1 - 1e-9)).sum())
    return (as_far + 1) / (permutations + 1)
