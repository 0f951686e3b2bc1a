"""Metrics from saved predictions, with intervals and paired tests; never from a model.

`compute_metrics` picks what belongs to an output type, `compare_methods` compares two methods by one metric, `selective_curve`
gives quality against coverage; `over_seeds`, `measure_over_seeds` and `compare_over_seeds` summarise several runs,
`over_tasks` several tasks. What a prediction holds is in `staf.metrics.shapes`.
"""

from staf.metrics.bootstrap import Metric, interval
from staf.metrics.compare import Comparison, compare, over_tasks
from staf.metrics.forms import (
    compare_methods,
    compare_over_seeds,
    compute_metrics,
    item_quality,
    measure_over_seeds,
    selective_curve,
)
from staf.metrics.seeds import Spread, over_seeds
from staf.metrics.shapes import correctness, predicted

__all__ = [
    "Comparison",
    "Metric",
    "Spread",
    "compare",
    "compare_methods",
    "compare_over_seeds",
    "compute_metrics",
    "correctness",
    "interval",
    "item_quality",
    "measure_over_seeds",
    "over_seeds",
    "over_tasks",
    "predicted",
    "selective_curve",
]
