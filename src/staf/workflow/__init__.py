"""The stages as steps on folders: each is skipped when its result is there, and goes on where it was stopped.

The command line and the demo call these and nothing else of the stages. The base is loaded on first need, so a step that
has nothing to do costs no model.
"""

from staf.workflow.adaptation import adapt_seeds, adapt_stage, adaptation_examples, best_expert_stage, zero_shot_stage
from staf.workflow.evaluation import (
    calibration_of,
    chosen_single,
    evaluate_stage,
    named_method,
    router_and_mixture,
    router_method,
)
from staf.workflow.fusing import fuse_stage
from staf.workflow.named import Wanted, evaluate_named
from staf.workflow.peers import baseline_stage, classifier_stage, external_stage, lorahub_stage, training_records
from staf.workflow.reducing import loss_of_reduction
from staf.workflow.session import Session
from staf.workflow.training import estimate_stage, train_stage, training_examples

__all__ = [
    "Session",
    "Wanted",
    "adapt_seeds",
    "adapt_stage",
    "adaptation_examples",
    "baseline_stage",
    "best_expert_stage",
    "calibration_of",
    "chosen_single",
    "classifier_stage",
    "estimate_stage",
    "evaluate_named",
    "evaluate_stage",
    "external_stage",
    "fuse_stage",
    "lorahub_stage",
    "loss_of_reduction",
    "named_method",
    "router_and_mixture",
    "router_method",
    "train_stage",
    "training_examples",
    "training_records",
    "zero_shot_stage",
]
