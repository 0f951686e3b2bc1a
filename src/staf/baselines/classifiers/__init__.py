"""Text classifiers beside the language model, as in Table 5 of STAF-LLM: fitted on a task's examples that are not test.

`classify` fits a row of `CLASSIFIERS` and answers the test items; `read_predictions` takes in those of a system that we do not
run. Both give what `staf.metrics` reads.
"""

from staf.baselines.classifiers.rows import CLASSIFIERS, classify
from staf.baselines.external import read_predictions

__all__ = ["CLASSIFIERS", "classify", "read_predictions"]
