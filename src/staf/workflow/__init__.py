"""The stages as steps on folders: each is skipped when its result is there, and goes on where it was stopped.

The command line and the demo call these and nothing else of the stages. The base is loaded on first need, so a step that
has nothing to do costs no model.
"""

from staf.workflow.adaptation import adapt_seeds, adapt_stage, zero_shot_stage
from staf.workflow.evaluation import evaluate_named, evaluate_stage, fuse_stage, named_method, router_and_mixture, router_method
from staf.workflow.session import Session
from staf.workflow.training import estimate_stage, train_stage, training_examples

__all__ = [
    "Session",
    "adapt_seeds",
    "adapt_stage",
    "estimate_stage",
    "evaluate_named",
    "evaluate_stage",
    "fuse_stage",
    "named_method",
    "router_and_mixture",
    "router_method",
    "train_stage",
    "training_examples",
    "zero_shot_stage",
]
