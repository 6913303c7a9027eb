"""How much a mean over lines would move had other lines been drawn: the percentile bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 10_000


def bootstrap_interval(values: Sequence[float], seed: int, coverage: float = 0.95) -> tuple[float, float]:
    """Ends of the interval of the mean of values, one value a line (Efron 1979).

    Drawing lines with replacement means drawing how often each distinct value occurs, which is multinomial and
    costs nothing where a value is only right or wrong, or a difference of two such. (nan, nan) without values.
    """
    if not values:
        return float("nan"), float("nan")
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=DRAWS)  # (DRAWS, distinct)
    means = draws @ distinct / len(values)
    low, high = np.quantile(means, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)
