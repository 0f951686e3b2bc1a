"""What our methods are compared with: each baseline is a row of a table, tuned and scored as the others are."""

from staf.baselines.classifiers import CLASSIFIERS, classify
from staf.baselines.external import read_predictions
from staf.baselines.methods import BASELINES, METHODS, NEED_EXPERTS, baseline_predictions, check_external_name

__all__ = [
    "BASELINES",
    "CLASSIFIERS",
    "METHODS",
    "NEED_EXPERTS",
    "baseline_predictions",
    "check_external_name",
    "classify",
    "read_predictions",
]
