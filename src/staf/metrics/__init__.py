"""Metrics from saved predictions, with intervals and paired tests; never from a model.

`metrics_of` picks what belongs to a form of answer, `compare_methods` compares two methods by one of them, `selective_curve`
shows when not to trust; `over_seeds`, `measure_over_seeds` and `compare_over_seeds` sum up several runs, `over_tasks` several
tasks. What a prediction holds is in `staf.metrics.shapes`.
"""

from staf.metrics.bootstrap import Metric, interval
from staf.metrics.compare import Comparison, compare, over_tasks
from staf.metrics.forms import (
    compare_methods,
    compare_over_seeds,
    item_quality,
    measure_over_seeds,
    metrics_of,
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
    "correctness",
    "interval",
    "item_quality",
    "measure_over_seeds",
    "metrics_of",
    "over_seeds",
    "over_tasks",
    "predicted",
    "selective_curve",
]
