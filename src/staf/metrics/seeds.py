"""What several seeds say together: mean, deviation, and where the mean of all seeds and all test items would lie.

A score has two chances: the draw of the test items, and that of the seed (training, the draw of examples). The variance of a
mean over seeds is taken as that of its test items, by the bootstrap, plus the sample variance of the seeds' scores over their
number; a difference of two methods has the seeds' part of both. Student's t with the degrees of freedom of Welch and
Satterthwaite then says what chance may do. What a seed does to single items is in both parts, so that equal methods are called
different less often than at the level where seeds hardly matter. In simulations with three seeds or more it is at most 8 % at
the level of 5 %; two seeds whose spread is far larger than that of the items are too few, and it may be 13 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from staf.metrics.bootstrap import Metric, Statistic, bounds, resample


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


@dataclass(frozen=True)
class StandardError:
    """Of a mean over seeds, or of a difference of two, whose test items are a draw too."""

    size: float
    freedom: float
    """degrees of freedom of Student's t"""

    @classmethod
    def of(cls, item_variance: float, items: int, methods: Sequence[Sequence[float]]) -> StandardError:
        """From the variance of the mean over its test items, and the scores of each method's seeds on all of these.

        A method of one seed adds nothing: its chance, if it has any, cannot be seen.
        """
        parts = [(item_variance, max(items - 1, 1))]
        parts += [(float(np.var(seeds, ddof=1)) / len(seeds), len(seeds) - 1) for seeds in methods if len(seeds) > 1]
        total = sum(variance for variance, _ in parts)
        scatter = sum(variance**2 / freedom for variance, freedom in parts)
        return cls(total**0.5, total**2 / scatter if scatter else parts[0][1])

    @property
    def reach(self) -> float:
        """Half of the 95 % interval."""
        from scipy.stats import t

        return float(t.ppf(0.975, self.freedom)) * self.size

    def p_value(self, difference: float) -> float:
        """Two-sided, of a difference that is 0 but for chance."""
        from scipy.stats import t

        if not self.size:
            return float(difference == 0)
        return 2 * float(t.sf(abs(difference) / self.size, self.freedom))


def measure_seeds(statistics: Sequence[Statistic], resamples: int) -> Metric | None:
    """Mean of one metric over seeds with its 95 % interval over test items and seeds; None where it is undefined.

    The interval is never narrower than that of the items alone, which it is for one seed.

    Args:
        statistics: of each seed, all over the same items.
    """
    mean = Statistic.averaged(statistics)
    if np.isnan(mean.value):
        return None
    values = resample([mean], resamples)[0]
    error = StandardError.of(variance_of(values), mean.items, [[statistic.value for statistic in statistics]])
    reach = error.reach if len(statistics) > 1 else 0.0
    low, high = bounds(values)
    return Metric(
        mean.value, float(np.fmin(low, mean.value - reach)), float(np.fmax(high, mean.value + reach)), mean.items,
        mean.higher_is_better,
    )  # fmt: skip


def variance_of(resampled: np.ndarray) -> float:
    """Variance of resampled values, those left out where the metric was undefined; 0 for fewer than two."""
    defined = resampled[~np.isnan(resampled)]
    return float(defined.var(ddof=1)) if len(defined) > 1 else 0.0
