"""Scoring a method that is given by its name, by a router's folder, or by a file of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from staf.baselines.classifiers import CLASSIFIERS
from staf.baselines.methods import BASELINES, METHODS
from staf.baselines.settings import BaselineSettings, ClassifierSettings
from staf.config import parse
from staf.data.task import Task
from staf.errors import ConfigError, UnknownName
from staf.evaluate.score import PROBED, Method, router_method
from staf.evaluate.settings import CHAT_METHODS, EvaluationSettings
from staf.experts.store import ExpertSet, load_experts
from staf.metrics import methods
from staf.stages.context import Context
from staf.stages.evaluation import (
    Scored,
    baseline_stage,
    checked_router,
    classifier_stage,
    evaluate_stage,
    external_stage,
    lorahub_stage,
    named_method,
)
from staf.stages.probing import ProbeSettings, base_probe_stage

RENAMED = {"logistic": "tfidf"}
"""Former names of methods."""


def evaluate_named(
    context: Context, task: Task, settings: EvaluationSettings, name: str = "original", *,
    experts: Path | ExpertSet | None = None, router: Path | None = None, expert: str | None = None, shots: int | None = None,
    method_args: Mapping[str, Any] | None = None, predictions: Path | None = None,
) -> Scored:  # fmt: skip
    """Score on the test set of a task a router, the predictions of another system, or a method of `METHODS` by its name.

    Args:
        name: with `predictions` the name of the other system. expert: of single; None takes the best on adaptation examples.
        shots: of baselines and classifiers: adaptation examples drawn; None takes all.
        method_args: further settings of a baseline or classifier, such as seed.

    Raises:
        UnknownName: no such method. ConfigError: experts are needed and not given, or settings that the method does not have.
    """
    if predictions is not None:
        return external_stage(context, task, name, predictions, settings)
    if settings.prompt_format == "chat" and (router is not None or name not in CHAT_METHODS):
        context.progress.log(f"prompt_format = chat is for {' and '.join(CHAT_METHODS)}; other rows keep the plain prompts.")
    if name in RENAMED:
        raise ConfigError(f"the method '{name}' is now '{RENAMED[name]}': give --method {RENAMED[name]}.")
    if router is None and name not in METHODS:
        raise UnknownName.among("method", name, METHODS)
    if experts is None and router is None and methods.METHODS[name].get("experts"):
        raise ConfigError("single, average and lorahub need the experts: add --experts and the folder of the experts.")
    if router is not None and not isinstance(experts, ExpertSet):
        found, loaded = checked_router(context, router, experts, task.name)
        return evaluate_stage(context, task, loaded, router_method(found), settings)
    where, given = f"staf evaluate --method {name}", dict(method_args or {})
    if name in CLASSIFIERS:
        return classifier_stage(context, task, name, shots, parse(ClassifierSettings, given, where), settings)
    values = {"shots": shots, **given, "method": "lora" if name == "lorahub" else name}
    if name == PROBED:
        return base_probe_stage(context, task, parse(ProbeSettings, {"shots": shots, **given}, where), settings)
    if name in BASELINES:
        return baseline_stage(context, task, parse(BaselineSettings, values, where), settings)
    if experts is None:
        return evaluate_stage(context, task, None, Method("original", None), settings)
    loaded = experts if isinstance(experts, ExpertSet) else load_experts(experts)
    if name == "lorahub":
        return lorahub_stage(context, task, loaded, parse(BaselineSettings, values, where), settings)
    return evaluate_stage(context, task, loaded, named_method(context, task, loaded, name, settings, expert), settings)
