"""What several seeds say together: mean, deviation, and where the mean of all seeds would lie.

This is the spread of training and of the draw of examples; the bootstrap interval of one run is that of the test items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Spread:
    """A metric over seeds."""

    mean: float
    deviation: float | None
    """standard deviation of a seed, with n - 1; None for one seed"""
    low: float | None
    high: float | None
    """95 % t-interval of the mean; None for one seed"""
    seeds: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def over_seeds(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and 95 % t-interval of one metric's values, one per seed.

    Raises:
        ValueError: no value is given, or one is not a finite number.
    """
    from scipy.stats import t

    finite = int(np.isfinite(values).sum())
    if not finite or finite < len(values):
        raise ValueError(f"a spread over seeds needs finite values, at least one; found {finite} finite ones of {len(values)}")
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return Spread(mean, None, None, None, 1)
    deviation = float(np.std(values, ddof=1))
    reach = float(t.ppf(0.975, count - 1)) * deviation / count**0.5
    return Spread(mean, deviation, mean - reach, mean + reach, count)
