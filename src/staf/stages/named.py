"""From what a command line names to the stage that scores it: a router, a method without one, or a peer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from staf.baselines import BASELINES
from staf.baselines.classifiers import CLASSIFIERS
from staf.baselines.classifiers.settings import ClassifierSettings
from staf.baselines.settings import BaselineSettings
from staf.config import parse
from staf.data.task import Task
from staf.errors import ConfigError, UnknownName
from staf.evaluate import Method
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import load_experts
from staf.stages.context import Context
from staf.stages.evaluation import ROUTERLESS, Scored, evaluate_stage, named_method, router_and_mixture, router_method
from staf.stages.peers import baseline_stage, classifier_stage, external_stage, lorahub_stage

METHODS = (*ROUTERLESS, "lorahub", *BASELINES, *CLASSIFIERS)
"""What `--method` may name."""
NEEDS_EXPERTS = ("single", "average", "lorahub")


@dataclass(frozen=True)
class EvaluationRequest:
    """What is to be scored."""

    method: str = "original"
    """of `METHODS`; with `predictions` the name of the other system"""
    experts: Path | None = None
    router: Path | None = None
    expert: str | None = None
    """of single: which one; else the best on adaptation examples"""
    shots: int | None = None
    """of baselines and classifiers: adaptation examples drawn; None takes all"""
    learning: dict[str, Any] = field(default_factory=dict)
    """further settings of a baseline or classifier, such as seed"""
    predictions: Path | None = None
    """of another system"""


def evaluate_request(context: Context, task: Task, settings: EvaluationSettings, wanted: EvaluationRequest) -> Scored:
    """Score what is named on the test set of a task.

    Raises:
        UnknownName: no such method. ConfigError: experts are needed and not given, or settings that the method does not have.
    """
    name = wanted.method
    if wanted.predictions is not None:
        return external_stage(context, task, name, wanted.predictions, settings)
    if wanted.router is None and name not in METHODS:
        raise UnknownName.among("method", name, METHODS)
    if wanted.experts is None and (wanted.router is not None or name in NEEDS_EXPERTS):
        raise ConfigError(
            "a router, single, average and lorahub need the experts: add --experts and the folder of the experts."
        )
    if wanted.router is not None and wanted.experts is not None:
        found, mixture = router_and_mixture(context, wanted.router, wanted.experts)
        return evaluate_stage(context, task, mixture.experts, router_method(found), settings)
    learning = {**({} if wanted.shots is None else {"shots": wanted.shots}), **wanted.learning}
    if name in CLASSIFIERS:
        own = parse(ClassifierSettings, wanted.learning, f"staf evaluate --method {name}")
        return classifier_stage(context, task, name, wanted.shots, own, settings)
    if name in get_args(BaselineSettings.model_fields["method"].annotation):
        return baseline_stage(context, task, baseline_settings(name, learning), settings)
    if wanted.experts is None:
        return evaluate_stage(context, task, None, Method("original", None), settings)
    experts = load_experts(wanted.experts)
    if name == "lorahub":
        return lorahub_stage(context, task, experts, baseline_settings("lora", learning), settings)
    return evaluate_stage(context, task, experts, named_method(context, task, experts, name, settings, wanted.expert), settings)


def baseline_settings(name: str, values: dict[str, Any]) -> BaselineSettings:
    """Settings of a baseline from plain values; raises as `parse`."""
    return parse(BaselineSettings, {**values, "method": name}, f"staf evaluate --method {name}")
