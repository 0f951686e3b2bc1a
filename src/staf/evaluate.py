"""Scoring a method on a task's test set: predictions first, then metrics from them alone.

A method is a row: how the expert weights come about. original, single, average, few_shot and normal differ in nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from staf import __version__
from staf.config import EvaluationSettings
from staf.data.example import Example
from staf.data.splits import dice, refuse_test
from staf.experts.train import data_fingerprint
from staf.lm.base import Base
from staf.lm.scoring import OnDone, score_labels
from staf.metrics import compare_methods, correctness, metrics_of, selective_curve
from staf.routing.mixture import Mixture
from staf.routing.router import only
from staf.routing.store import Router
from staf.runs import PeakMemory, Run
from staf.tasks.examples import refuse_leak
from staf.tasks.rows import Task


@dataclass(frozen=True)
class Method:
    """How a task is answered: the weights of the experts and what they cost."""

    name: str
    """of the row: original, single, average, few_shot, normal ..."""
    weights: Tensor | None
    """(G, K), or None for the original model"""
    granularity: str = "task"
    setting: str = "-"
    seed: int = 0
    tunable_parameters: int = 0
    adaptation_examples: int = 0
    adaptation_seconds: float = 0.0
    adaptation_memory_bytes: int = 0
    record: dict[str, Any] = field(default_factory=dict)
    """what else the result keeps: reason for stopping, settings"""


def method_of_router(name: str, router: Router) -> Method:
    """The row of a learned router."""
    found = router.record
    return Method(
        name,
        router.weights,
        router.settings.granularity,
        {"cma": "few-shot", "gradient": "normal", "zero_shot": "zero-shot"}[router.settings.method],
        router.settings.seed,
        found["tunable_parameters"],
        found["examples"],
        found["seconds"],
        found.get("peak_memory_bytes", 0),
        {"stopped_because": found["stopped_because"], "settings": router.settings.model_dump()},
    )


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
) -> list[dict[str, Any]]:
    """Label scores of every example under a method: {"id", "gold", "scores"}, in the order given."""
    if mixture is not None and method.weights is not None:
        mixture.set_weights(method.weights, method.granularity)
    try:
        scores = score_labels(
            base, examples, max_tokens=settings.max_tokens, token_budget=settings.token_budget,
            length_normalised=settings.length_normalised, on_done=on_done,
        )  # fmt: skip
    finally:
        base.routed.set_gain({})
    return as_predictions(examples, scores)


def as_predictions(examples: Sequence[Example], scores: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Scores (labels,) of each example as they are saved: {"id", "gold", "scores"}."""
    return [
        {"id": e.id, "gold": e.labels.index(e.answer), "scores": [round(float(x), 6) for x in s]}
        for e, s in zip(examples, scores, strict=True)
    ]


def evaluate(
    base: Base,
    mixture: Mixture | None,
    task: Task,
    method: Method,
    examples: Sequence[Example],
    settings: EvaluationSettings,
    run: Run,
    baselines: dict[str, Run] | None = None,
    on_done: OnDone | None = None,
) -> dict[str, Any]:
    """Score a method on test examples and write its run.

    Args:
        baselines: finished runs on the same examples to compare with, by name.

    Raises:
        TestLeak: an expert was trained on something that a test item is about.
    """
    if mixture is not None:
        refuse_leak(task, list(examples), mixture.experts.subjects)
    memory, started = PeakMemory(), time.perf_counter()
    predictions = predict(base, mixture, method, examples, settings, on_done)
    seconds = time.perf_counter() - started + method.adaptation_seconds
    result = {
        "stage": "evaluate",
        "task": task.name,
        "task_title": task.title,
        "unseen": task.unseen,
        "method": method.name,
        "setting": method.setting,
        "seed": method.seed,
        "metrics": metrics_of(task.form, predictions, fixed_labels=task.fixed_labels, resamples=settings.resamples),
        "selective": selective_curve(task.form, predictions, resamples=settings.resamples),
        "primary_metric": task.metric,
        "comparisons": _comparisons(task, predictions, baselines or {}, settings.resamples),
        "tunable_parameters": method.tunable_parameters,
        "adaptation_examples": method.adaptation_examples,
        "seconds": seconds,
        "peak_memory_bytes": max(memory.bytes, method.adaptation_memory_bytes),
        **_weights_of(mixture, method),
        "stopped_because": method.record.get("stopped_because"),
        "base": base.identity,
        "data_fingerprint": data_fingerprint(examples),
        "experts_fingerprint": mixture.experts.fingerprint if mixture is not None else None,
        "settings": {"evaluation": settings.model_dump(), "router": method.record.get("settings")},
        "versions": {"staf": __version__, "torch": torch.__version__},
    }
    run.finish({"method": method.name, "evaluation": settings.model_dump()}, result, predictions)
    return result


def _comparisons(
    task: Task, predictions: list[dict[str, Any]], baselines: dict[str, Run], resamples: int
) -> dict[str, dict[str, Any]]:
    """Paired comparisons by the task's own metric with each baseline for which that is defined."""
    found = {
        name: compare_methods(
            task.form, task.metric, predictions, run.predictions(), fixed_labels=task.fixed_labels, resamples=resamples
        )
        for name, run in baselines.items()
    }
    return {name: comparison.as_dict() for name, comparison in found.items() if comparison is not None}


def _weights_of(mixture: Mixture | None, method: Method) -> dict[str, Any]:
    if mixture is None or method.weights is None:
        return {"weights": None, "weight_total": None}
    mean = method.weights.mean(0)
    names = mixture.experts.names
    return {"weights": dict(zip(names, mean.tolist(), strict=True)), "weight_total": float(mean.sum())}


def best_single(
    base: Base,
    mixture: Mixture,
    examples: Sequence[Example],
    settings: EvaluationSettings,
    on_done: Callable[[int], None] | None = None,
) -> tuple[str, dict[str, float]]:
    """The expert with the best accuracy on adaptation examples (never test ones), and every expert's accuracy there.

    Raises:
        TestLeak: a test example is among those given.
    """
    refuse_test(examples)
    found = {}
    for index, name in enumerate(mixture.experts.names):
        method = Method(name, only(index, len(mixture.experts.names)))
        found[name] = float(correctness(predict(base, mixture, method, examples, settings, on_done)).mean())
    return max(found, key=lambda name: found[name]), found
