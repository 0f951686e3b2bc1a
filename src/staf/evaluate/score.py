"""A method's result on a task's test set, computed from its predictions.

A method is a row of a table. Routed experts and baselines differ in how they answer and in nothing after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from staf import __version__
from staf.data.example import Example, prompt_of
from staf.data.paper_tables import SHOTS
from staf.data.splits import refuse_test, seeded_rng
from staf.data.task import Task
from staf.errors import ConfigError
from staf.evaluate.answer import Answerer, OnDone, Predictions, batch_calibrated, predictions_of
from staf.evaluate.probe import Probe
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.experts.train import data_fingerprint
from staf.lm.base import Base
from staf.metrics.by_output_type import compute_metrics, measures_of, metric_of_runs, selective_curve
from staf.metrics.methods import METHODS, titles
from staf.metrics.stats import compare_seeds
from staf.routing.merge import Mixture
from staf.routing.router import one_hot
from staf.routing.store import Router
from staf.runs import Run

ROUTERLESS = tuple(titles("fixed"))
"""Methods of the base and the experts that need no router."""
PROBED = "linear_probe"
"""The row of a linear probe, of the base or of a router."""
ROUTERS = {METHODS[name]["search"]: name for name in titles("router", "probed")}
"""The row of a router by its method."""
Drawn = tuple[int | None, int]
"""Shots, None for all, and seed of a draw."""
FEW: Drawn = (SHOTS, 0)


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
    drawn: Drawn = FEW
    """of which a part calibrates several labels"""
    probe: Probe | None = None
    """that answers in place of the likelihoods of labels"""
    record: dict[str, Any] = field(default_factory=dict)
    """what else the result keeps: stop_reason, settings, details"""

    @classmethod
    def of_baseline(cls, name: str, record: dict[str, Any], settings: dict[str, Any], setting: str) -> Method:
        """The row of a baseline, from its record (tunable_parameters, adaptation_examples, _seconds, _memory_bytes)."""
        keys = ("tunable_parameters", "adaptation_examples", "adaptation_seconds", "adaptation_memory_bytes")
        kept = {"settings": settings, "details": record}
        return cls(name, None, setting=setting, seed=settings["seed"], record=kept, **{key: record[key] for key in keys})


def probe_of(router: Router) -> Probe | None:
    """The linear probe of a router; raises DamagedFile where it is not that of one."""
    return None if router.probe is None else Probe.read(router.probe, router.probe_tensors)


def router_method(router: Router, setting: str | None = None) -> Method:
    """The row of a router: few_shot, normal, zero_shot, best_expert, route_then_tune, with a suffix for its weights; or
    linear_probe.

    The name, which is also the folder of its runs, says how it was searched for; the setting says how many examples it had.

    Args:
        setting: of the row; None takes few-shot where the router had a draw of the adaptation examples.
    """
    found, chosen, search = router.record, router.recipe, {}
    if "tuned" in found:
        search = {"method": "tuned", "search": chosen.method, "tune": found["tuned"]["recipe"]}
    name = ROUTERS[search.get("method", chosen.method)] + ("" if chosen.weighting == "softmax" else f"_{chosen.weighting}")
    if probe := probe_of(router):
        name, search = PROBED, {"method": "probe", "search": name, "read": probe.read_by}
    zero_shot = chosen.method == "zero_shot"
    return Method(
        name + ("_scaled" if chosen.learned_scale else ""), router.weights, chosen.granularity,
        "zero-shot" if zero_shot else setting or setting_of(chosen.shots), chosen.seed, found["tunable_parameters"],
        found["examples"], found["seconds"], found.get("peak_memory_bytes", 0),
        (chosen.shots, chosen.seed), probe, {"stop_reason": found["stop_reason"], "settings": chosen.model_dump() | search},
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
    """At most `limit` examples, the same draw for every method and run; a smaller draw is a part of a larger one."""
    ordered = sorted(examples, key=lambda example: example.id)
    if limit is None or limit >= len(ordered):
        return ordered
    return sorted(seeded_rng("test sample").sample(ordered, len(ordered))[:limit], key=lambda example: example.id)


def finish(
    run: Run, task: Task, answered: Answered, examples: Sequence[Example], settings: EvaluationSettings, *,
    identity: dict[str, str], memory_bytes: int, compute: dict[str, Any] | None, calibration_examples: int,
    experts: ExpertSet | None, baselines: Mapping[str, Run],
) -> dict[str, Any]:  # fmt: skip
    """Compute the metrics of predictions and write both into the run; returns the result.

    Args:
        identity: of the base. memory_bytes: peak of predicting. compute: dtype, device and versions (`staf.compute`);
            None where no language model took part. calibration_examples: labelled examples that calibrated scores.
        baselines: finished runs on the same examples to compare with, by name.

    Raises:
        ConfigError: a baseline was computed in another dtype, and `across_dtypes` is not set.
    """
    method = answered.method
    read = answered.base is None or method.probe is not None
    predictions = answered.predictions if read else as_scored(task, answered.predictions, examples, settings)
    cut = [row["truncated"] for row in predictions if "truncated" in row]
    weights = None if experts is None or method.weights is None else method.weights.mean(0)
    evaluation = settings.model_dump(mode="json", exclude={"prompt_format"})
    result = {
        "stage": "evaluate", "task": task.name, "task_title": task.title, "unseen": is_unseen(task, experts),
        "output_type": task.output_type,
        "labels": list(examples[0].labels) if task.fixed_labels else None,
        "method": method.name, "setting": method.setting, "seed": method.seed,
        "prompt_format": None if answered.base is None else answered.base.prompt_format.name,
        "metrics": compute_metrics(
            task.output_type, predictions, fixed_labels=task.fixed_labels, resamples=settings.resamples
        ),
        "selective": selective_curve(task.output_type, predictions, resamples=settings.resamples),
        "primary_metric": task.metric,
        "comparisons": compare_with_baselines(task, predictions, compute, baselines, settings),
        "tunable_parameters": method.tunable_parameters, "adaptation_examples": method.adaptation_examples,
        "calibration_examples": calibration_examples, "truncated_prompts": fmean(cut) if cut else None,
        "seconds": answered.seconds + method.adaptation_seconds, "seconds_of_predicting": answered.seconds,
        "peak_memory_bytes": max(memory_bytes, method.adaptation_memory_bytes),
        "weights": None if experts is None or weights is None else dict(zip(experts.names, weights.tolist(), strict=True)),
        "weight_total": None if weights is None else float(weights.sum()),
        "stop_reason": method.record.get("stop_reason"), "details": method.record.get("details"),
        "base": identity, "compute": compute, "data_fingerprint": data_fingerprint(examples),
        "experts_fingerprint": None if experts is None else experts.fingerprint,
        "settings": {"evaluation": evaluation, "router": method.record.get("settings")},
        "versions": {"staf": __version__, "torch": torch.__version__},
    }  # fmt: skip
    run.finish({"method": method.name, "evaluation": settings.model_dump()}, result, predictions)
    return result


def as_scored(
    task: Task, predictions: Predictions, examples: Sequence[Example], settings: EvaluationSettings
) -> Predictions:  # fmt: skip
    """Predictions of a language model by the scoring rule of the settings."""
    calibrated = settings.scoring == "calibrated" and task.output_type == "multiple_choice"
    return batch_calibrated(predictions, examples) if calibrated else predictions


def compare_with_baselines(
    task: Task,
    predictions: Predictions,
    compute: Mapping[str, Any] | None,
    baselines: Mapping[str, Run],
    settings: EvaluationSettings,
) -> dict[str, dict[str, Any]]:
    """Paired comparisons with finished runs on the same items, by the task's primary metric; undefined ones are left out.

    Args:
        compute: dtype and device of the predictions; None where no language model took part.

    Raises:
        ConfigError: a baseline was computed in another dtype, and `across_dtypes` is not set.
    """
    found = {}
    for name, run in baselines.items():
        one, other = (record.get("dtype") for record in (compute or {}, (run.result() or {}).get("compute") or {}))
        if one and other and one != other and not settings.across_dtypes:
            raise ConfigError(
                f"{name} was computed in {other}, this run in {one}: their difference may be that of the dtypes. Run both with "
                "the same --dtype, or set across_dtypes=true to compare all the same."
            )
        labels = task.fixed_labels
        ours, their = metric_of_runs(task.output_type, task.metric, [predictions], [run.predictions()], fixed_labels=labels)
        compared = compare_seeds(ours, their, settings.resamples)
        if compared is not None:
            found[name] = asdict(compared)
    return found


def is_unseen(task: Task, experts: ExpertSet | None) -> bool | None:
    """Whether none of the experts' records names the task's type or one of its data sets; None where that is unknown."""
    known = [] if experts is None else [(one.name, one.record.get("licences")) for one in experts.experts]
    if any(name == task.task_type or not set(task.datasets).isdisjoint(used or ()) for name, used in known):
        return False
    return True if known and all(used is not None for _, used in known) else None


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
    names, answerer = mixture.experts.names, Answerer(base, settings, on_done)
    scores, qualities = dict[str, float](), dict[str, float]()
    tokens = sum(map(len, base.tokenizer([prompt_of(e.query, e.context) for e in examples])["input_ids"]))
    for index, name in enumerate(names):
        with mixture.applied(one_hot(index, len(names)), tokens=tokens):
            own = as_scored(task, predictions_of(task.output_type, answerer, examples, calibration), examples, settings)
        found = measures_of(task.output_type, own, fixed_labels=task.fixed_labels)
        scores[name], qualities[name] = found.statistics[task.metric].value, float(found.quality.mean())
    scores = qualities if any(score != score for score in scores.values()) else scores  # NaN is undefined
    return max(names, key=lambda name: (scores[name], qualities[name])), scores
