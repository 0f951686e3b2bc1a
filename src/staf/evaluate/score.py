"""Predictions under a method, and the result that is computed from them alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from staf import __version__
from staf.data.example import Example
from staf.data.splits import dice, refuse_test
from staf.data.task import Task
from staf.evaluate.answer import Answerer
from staf.evaluate.method import Method
from staf.evaluate.predictions import Predictions, predictions_of
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.experts.train import data_fingerprint
from staf.lm.base import Base
from staf.lm.scoring import OnDone
from staf.metrics import compare_methods, compute_metrics, item_quality, selective_curve
from staf.routing.merge import Mixture
from staf.routing.router import one_hot
from staf.runs import Run


def sample(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """At most `limit` examples, drawn by the hash of the ids: the same draw for every method and run."""
    ordered = sorted(examples, key=lambda example: example.id)
    if limit is None or limit >= len(ordered):
        return ordered
    return sorted(dice("test sample").sample(ordered, limit), key=lambda example: example.id)


def predict(
    base: Base,
    mixture: Mixture | None,
    method: Method,
    examples: Sequence[Example],
    settings: EvaluationSettings,
    on_done: OnDone | None = None,
    *,
    output_type: str = "multiple_choice",
    calibration: Sequence[Example] = (),
) -> Predictions:
    """Predictions for examples under the routed base, in the order given, as `predictions_of` makes them."""
    if mixture is not None and method.weights is not None:
        mixture.set_weights(method.weights, method.granularity)
    try:
        return predictions_of(output_type, Answerer(base, settings, on_done), examples, calibration)
    finally:
        base.lora.set_rank_scale({})


def finish(
    run: Run,
    task: Task,
    method: Method,
    predictions: Predictions,
    examples: Sequence[Example],
    settings: EvaluationSettings,
    *,
    identity: dict[str, str],
    seconds: float,
    memory_bytes: int,
    experts: ExpertSet | None = None,
    baselines: dict[str, Run] | None = None,
) -> dict[str, Any]:
    """Metrics of predictions, and the run that keeps both.

    Args:
        identity: of the base. seconds, memory_bytes: of predicting.
        baselines: finished runs on the same examples to compare with, by name.
    """
    result = {
        "stage": "evaluate",
        "task": task.name,
        "task_title": task.title,
        "labels": list(examples[0].labels) if task.fixed_labels else None,
        "unseen": task.unseen,
        "output_type": task.output_type,
        "method": method.name,
        "setting": method.setting,
        "seed": method.seed,
        "metrics": compute_metrics(task.output_type, predictions, fixed_labels=task.fixed_labels, resamples=settings.resamples),
        "selective": selective_curve(task.output_type, predictions, resamples=settings.resamples),
        "primary_metric": task.metric,
        "comparisons": _comparisons(task, predictions, baselines or {}, settings.resamples),
        "tunable_parameters": method.tunable_parameters,
        "adaptation_examples": method.adaptation_examples,
        "seconds": seconds + method.adaptation_seconds,
        "seconds_of_predicting": seconds,
        "peak_memory_bytes": max(memory_bytes, method.adaptation_memory_bytes),
        **_weights_of(experts, method),
        "stop_reason": method.record.get("stop_reason"),
        "details": method.record.get("details"),
        "base": identity,
        "data_fingerprint": data_fingerprint(examples),
        "experts_fingerprint": None if experts is None else experts.fingerprint,
        "settings": {"evaluation": settings.model_dump(), "router": method.record.get("settings")},
        "versions": {"staf": __version__, "torch": torch.__version__},
    }
    run.finish({"method": method.name, "evaluation": settings.model_dump()}, result, predictions)
    return result


def _comparisons(task: Task, predictions: Predictions, baselines: dict[str, Run], resamples: int) -> dict[str, dict[str, Any]]:
    """Paired comparisons by the task's own metric with each baseline for which that is defined."""
    found = {
        name: compare_methods(
            task.output_type, task.metric, predictions, run.predictions(), fixed_labels=task.fixed_labels, resamples=resamples
        )
        for name, run in baselines.items()
    }
    return {name: comparison.as_dict() for name, comparison in found.items() if comparison is not None}


def _weights_of(experts: ExpertSet | None, method: Method) -> dict[str, Any]:
    if experts is None or method.weights is None:
        return {"weights": None, "weight_total": None}
    mean = method.weights.mean(0)
    return {"weights": dict(zip(experts.names, mean.tolist(), strict=True)), "weight_total": float(mean.sum())}


def best_single(
    base: Base,
    mixture: Mixture,
    task: Task,
    examples: Sequence[Example],
    settings: EvaluationSettings,
    on_done: Callable[[int], None] | None = None,
    *,
    calibration: Sequence[Example] = (),
) -> tuple[str, dict[str, float]]:
    """The expert that answers adaptation examples best (never test ones), and what every expert scores there.

    By the task's own metric; where it has none on these examples (AUC of one class), and between equals, by the mean quality of
    an answer.

    Raises:
        TestLeak: a test example is among those given.
    """
    refuse_test(examples)
    found, qualities = dict[str, float | None](), dict[str, float]()
    for index, name in enumerate(mixture.experts.names):
        method = Method(name, one_hot(index, len(mixture.experts.names)))
        own = predict(base, mixture, method, examples, settings, on_done, output_type=task.output_type, calibration=calibration)
        metric = compute_metrics(task.output_type, own, fixed_labels=task.fixed_labels, resamples=1)[task.metric]
        found[name] = None if metric is None else metric["value"]
        qualities[name] = float(item_quality(task.output_type, own).mean())
    scores = {name: score for name, score in found.items() if score is not None}
    scores = scores if len(scores) == len(found) else qualities
    return max(scores, key=lambda name: (scores[name], qualities[name])), scores
