"""The stages as steps on folders: each is skipped if its result exists, and resumes after an interruption.

The command line and the experiments call only these. The base is loaded on first use, so a step that has nothing to do loads
no model.
"""

from staf.evaluate.score import router_method
from staf.stages.adaptation import (
    adapt_folders,
    adapt_stage,
    adaptation_examples,
    best_expert_stage,
    reduction_loss,
    zero_shot_stage,
)
from staf.stages.context import Context, RunContext
from staf.stages.evaluation import (
    EvaluationRequest,
    baseline_stage,
    calibration_set,
    classifier_stage,
    evaluate_request,
    evaluate_stage,
    external_stage,
    lorahub_stage,
    named_method,
    router_and_mixture,
    select_single_expert,
    training_records,
)
from staf.stages.merging import merge_stage
from staf.stages.training import TrainingJob, estimate_stage, train_experts, train_on_ray, train_stage, training_examples

__all__ = [
    "Context",
    "EvaluationRequest",
    "RunContext",
    "TrainingJob",
    "adapt_folders",
    "adapt_stage",
    "adaptation_examples",
    "baseline_stage",
    "best_expert_stage",
    "calibration_set",
    "classifier_stage",
    "estimate_stage",
    "evaluate_request",
    "evaluate_stage",
    "external_stage",
    "lorahub_stage",
    "merge_stage",
    "named_method",
    "reduction_loss",
    "router_and_mixture",
    "router_method",
    "select_single_expert",
    "train_experts",
    "train_on_ray",
    "train_stage",
    "training_examples",
    "training_records",
    "zero_shot_stage",
]
