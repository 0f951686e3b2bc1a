"""What our methods are compared with: each baseline is a row of a table, all are tuned and scored the same way."""

from staf.baselines.predictions import baseline_predictions
from staf.baselines.rows import BASELINES, Baseline

__all__ = ["BASELINES", "Baseline", "baseline_predictions"]
