"""One metric of runs, compared and measured as the tables do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from staf.metrics.by_output_type import metric_of_runs
from staf.metrics.stats import Comparison, Metric, compare_seeds, measure_seeds

Run = Sequence[dict[str, Any]]


def compare_methods(
    output_type: str, metric: str, *both: Sequence[Run], fixed_labels: bool = False, resamples: int = 2000
) -> Comparison | None:
    seeds = metric_of_runs(output_type, metric, *both, fixed_labels=fixed_labels)
    return compare_seeds(seeds[0], seeds[1], resamples)


def measure_over_seeds(
    output_type: str, metric: str, runs: Sequence[Run], *, fixed_labels: bool = False, resamples: int = 2000
) -> Metric | None:
    (seeds,) = metric_of_runs(output_type, metric, runs, fixed_labels=fixed_labels)
    return measure_seeds(seeds, resamples)
