"""Metrics from saved predictions, with intervals and paired tests; never from a model.

`compute_metrics` gives all metrics of an output type, `compare_methods` compares two methods by one of them, `selective_curve`
gives quality against coverage; `over_seeds`, `measure_over_seeds` and `compare_over_seeds` summarise several runs,
`over_tasks` several tasks. What a prediction holds is in `staf.metrics.schema`.
"""

from staf.metrics.by_output_type import (
    compare_methods,
    compare_over_seeds,
    compute_metrics,
    item_quality,
    measure_over_seeds,
    selective_curve,
)
from staf.metrics.schema import correctness, predicted
from staf.metrics.stats import Comparison, Metric, Spread, holm, interval, over_seeds, over_tasks

__all__ = [
    "Comparison",
    "Metric",
    "Spread",
    "compare_methods",
    "compare_over_seeds",
    "compute_metrics",
    "correctness",
    "holm",
    "interval",
    "item_quality",
    "measure_over_seeds",
    "over_seeds",
    "over_tasks",
    "predicted",
    "selective_curve",
]
