"""A method's predictions on a task's test set, and the result computed from them.

A method is a row of a table. Routed experts and baselines differ in how they answer and in nothing after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from staf import __version__
from staf.data.example import Example
from staf.data.splits import refuse_test, seeded_rng
from staf.data.task import Task
from staf.evaluate.answer import Answerer, PartialPredictions, Predictions, predictions_of
from staf.evaluate.calibrate import LabelCalibrator
from staf.evaluate.compare import compare_with_baselines
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.experts.train import data_fingerprint
from staf.lm.base import Base
from staf.lm.scoring import OnDone
from staf.metrics import compute_metrics, item_quality, selective_curve
from staf.routing.merge import Mixture
from staf.routing.router import one_hot
from staf.routing.store import Router
from staf.runs import Run

ROUTERLESS = ("original", "single", "average")
"""Methods of the base and the experts that need no router."""
ROUTERS = {"cma": "few_shot", "gradient": "normal", "zero_shot": "zero_shot", "best_expert": "best_expert"}
"""The row of a router by its method."""


@dataclass(frozen=True)
class Method:
    """How a task is answered, and the cost of getting there."""

    name: str
    """of the row: original, single, average, few_shot, normal, lora ..."""
    weights: Tensor | None
    """(G, K) of the experts, or None where no expert takes part"""
    granularity: str = "task"
    setting: str = "-"
    seed: int = 0
    tunable_parameters: int = 0
    adaptation_examples: int = 0
    adaptation_seconds: float = 0.0
    adaptation_memory_bytes: int = 0
    record: dict[str, Any] = field(default_factory=dict)
    """what else the result keeps: stop_reason, settings, details"""

    @classmethod
    def of_baseline(
        cls, name: str, record: dict[str, Any], settings: dict[str, Any], setting: str, *, weights: Tensor | None = None
    ) -> Method:
        """The row of a baseline, from its record (tunable_parameters, adaptation_examples, _seconds, _memory_bytes)."""
        keys = ("tunable_parameters", "adaptation_examples", "adaptation_seconds", "adaptation_memory_bytes")
        return cls(
            name, weights, setting=setting, seed=settings["seed"], record={"settings": settings, "details": record},
            **{key: record[key] for key in keys},
        )  # fmt: skip


def router_method(router: Router, setting: str | None = None) -> Method:
    """The row of a router: few_shot, normal, zero_shot, best_expert, with a suffix for its weights.

    The name, which is also the folder of its runs, says how it was searched for; the setting says how many examples it had.

    Args:
        setting: of the row; None takes few-shot where the router had a draw of the adaptation examples.
    """
    found, chosen = router.record, router.recipe
    name = ROUTERS[chosen.method] + ("" if chosen.weighting == "softmax" else f"_{chosen.weighting}")
    zero_shot = chosen.method == "zero_shot"
    return Method(
        name + ("_scaled" if chosen.learned_scale else ""), router.weights, chosen.granularity,
        "zero-shot" if zero_shot else setting or setting_of(chosen.shots), chosen.seed, found["tunable_parameters"],
        found["examples"], found["seconds"], found.get("peak_memory_bytes", 0),
        {"stop_reason": found["stop_reason"], "settings": chosen.model_dump()},
    )  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """What a method answered."""

    method: Method
    predictions: Predictions
    seconds: float = 0.0
    """of predicting"""
    base: Base | None = None
    """that answered; None where no language model took part"""


def setting_of(shots: int | None) -> str:
    """The setting of a table's row: few-shot from a draw, normal from all adaptation examples."""
    return "normal" if shots is None else "few-shot"


def sample(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """At most `limit` examples, drawn by the hash of the ids: the same draw for every method and run."""
    ordered = sorted(examples, key=lambda example: example.id)
    if limit is None or limit >= len(ordered):
        return ordered
    return sorted(seeded_rng("test sample").sample(ordered, limit), key=lambda example: example.id)


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
    calibrator: LabelCalibrator | None = None,
    partial: PartialPredictions | None = None,
) -> Predictions:
    """Predictions for examples under the routed base, in the order given; arguments as for `predictions_of`."""
    if mixture is not None and method.weights is not None:
        mixture.set_weights(method.weights, method.granularity)
    try:
        answerer = Answerer(base, settings, on_done)
        return predictions_of(output_type, answerer, examples, calibration, calibrator=calibrator, partial=partial)
    finally:
        base.lora.set_rank_scale({})


def finish(
    run: Run,
    task: Task,
    answered: Answered,
    examples: Sequence[Example],
    settings: EvaluationSettings,
    *,
    identity: dict[str, str],
    memory_bytes: int,
    compute: dict[str, Any] | None = None,
    calibration_examples: int = 0,
    experts: ExpertSet | None = None,
    baselines: dict[str, Run] | None = None,
) -> dict[str, Any]:
    """Compute the metrics of predictions and write both into the run; returns the result.

    Args:
        identity: of the base. memory_bytes: peak of predicting. compute: dtype, device and versions (`staf.compute`);
            None where no language model took part. calibration_examples: labelled examples that calibrated scores.
        baselines: finished runs on the same examples to compare with, by name.

    Raises:
        ConfigError: a baseline was computed in another dtype, and `across_dtypes` is not set.
    """
    method, predictions = answered.method, answered.predictions
    cut = [row["truncated"] for row in predictions if "truncated" in row]
    result = {
        "stage": "evaluate", "task": task.name, "task_title": task.title, "unseen": task.unseen,
        "output_type": task.output_type,
        "labels": list(examples[0].labels) if task.fixed_labels else None,
        "method": method.name, "setting": method.setting, "seed": method.seed,
        "metrics": compute_metrics(
            task.output_type, predictions, fixed_labels=task.fixed_labels, resamples=settings.resamples
        ),
        "selective": selective_curve(task.output_type, predictions, resamples=settings.resamples),
        "primary_metric": task.metric,
        "comparisons": compare_with_baselines(task, predictions, compute, baselines or {}, settings),
        "tunable_parameters": method.tunable_parameters, "adaptation_examples": method.adaptation_examples,
        "calibration_examples": calibration_examples, "truncated_prompts": fmean(cut) if cut else None,
        "seconds": answered.seconds + method.adaptation_seconds, "seconds_of_predicting": answered.seconds,
        "peak_memory_bytes": max(memory_bytes, method.adaptation_memory_bytes),
        **_weights_of(experts, method),
        "stop_reason": method.record.get("stop_reason"), "details": method.record.get("details"),
        "base": identity, "compute": compute, "data_fingerprint": data_fingerprint(examples),
        "experts_fingerprint": None if experts is None else experts.fingerprint,
        "settings": {"evaluation": settings.model_dump(), "router": method.record.get("settings")},
        "versions": {"staf": __version__, "torch": torch.__version__},
    }  # fmt: skip
    run.finish({"method": method.name, "evaluation": settings.model_dump()}, result, predictions)
    return result


def best_single(
    base: Base,
    mixture: Mixture,
    task: Task,
    examples: Sequence[Example],
    settings: EvaluationSettings,
    on_done: OnDone | None = None,
    *,
    calibration: Sequence[Example] = (),
) -> tuple[str, dict[str, float]]:
    """The expert that answers adaptation examples best (never test ones), and the score of every expert there.

    By the task's primary metric; where it is undefined on these examples (AUC of one class), and between equals, by the mean
    quality of an answer.

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


def _weights_of(experts: ExpertSet | None, method: Method) -> dict[str, Any]:
    if experts is None or method.weights is None:
        return {"weights": None, "weight_total": None}
    mean = method.weights.mean(0)
    return {"weights": dict(zip(experts.names, mean.tolist(), strict=True)), "weight_total": float(mean.sum())}
