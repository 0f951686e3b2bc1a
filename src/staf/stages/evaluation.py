"""Scoring routed experts as a step on folders: a finished run is read, else predicted, measured and kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from staf.data.example import Example
from staf.data.selection import refuse_leak, task_examples
from staf.data.task import Task
from staf.errors import UnknownName
from staf.evaluate import Method, best_single, finish, method_of_router, predict, sample
from staf.evaluate.predictions import Predictions
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet, load_experts
from staf.experts.train import data_fingerprint
from staf.lm.scoring import OnDone
from staf.routing.merge import Mixture
from staf.routing.router import one_hot, uniform
from staf.routing.store import Router, load_router
from staf.runs import PeakMemory, Run, digest_of
from staf.stages.context import Context

Scored = tuple[dict[str, Any], Run]
Answered = tuple[Method, Predictions, float]
"""the row, with what it took to learn, the predictions, and the seconds of predicting"""
ROUTERLESS = ("original", "single", "average")
ROUTERS = {"cma": "few_shot", "gradient": "normal", "zero_shot": "zero_shot", "best_expert": "best_expert"}
"""The row of a router by how it was searched for."""


def scored_run(
    context: Context,
    task: Task,
    settings: EvaluationSettings,
    name: str,
    seed: int,
    depends_on: Sequence[str],
    predicted: Callable[[Sequence[Example], OnDone], Answered],
    experts: ExpertSet | None = None,
    baselines: dict[str, Run] | None = None,
) -> Scored:
    """The result of a method on a task's test set: read where the run is finished, else made.

    Args:
        name, seed: of the method, where its run lies. depends_on: fingerprints of what its predictions depend on besides base,
            settings, and test and calibration examples.
        predicted: answers the test items.
        experts: that took part. baselines: finished runs on the same items to compare with.

    Raises:
        TestLeak: an expert was trained on something that a test item is about.
    """
    examples = sample(task_examples(task, "test", context.store), settings.limit)
    calibration = calibration_set(context, task, settings)
    read = (examples_digest(examples), examples_digest(calibration))
    digest = context.named(context.identity["fingerprint"], *depends_on, settings.digest(), *read)
    run = Run.at(context.runs, "evaluate", task.name, name, seed, digest)
    finished = run.result()
    if finished is not None:
        return finished, run
    if experts is not None:
        refuse_leak(task, examples, experts.dedup_keys)
    memory = PeakMemory()
    with context.progress.bar(f"score {task.name}: {name}", len(examples) + len(calibration)) as bar:
        method, predictions, seconds = predicted(examples, lambda done: bar.advance(done))
    result = finish(
        run, task, method, predictions, examples, settings, identity=context.identity, experts=experts, baselines=baselines,
        seconds=seconds, memory_bytes=memory.bytes,
    )  # fmt: skip
    return result, run


def evaluate_stage(
    context: Context,
    task: Task,
    experts: ExpertSet | None,
    method: Method,
    settings: EvaluationSettings,
    baselines: dict[str, Run] | None = None,
) -> Scored:
    """Score weights of experts, or the original model, on the test set of a task."""

    def predicted(examples: Sequence[Example], on_done: OnDone) -> Answered:
        mixture, calibration = None if experts is None else context.mixture(experts), calibration_set(context, task, settings)
        base, started = context.base, time.perf_counter()
        found = predict(
            base, mixture, method, examples, settings, on_done, output_type=task.output_type, calibration=calibration
        )
        return method, found, time.perf_counter() - started

    weights = "" if method.weights is None else hashlib.sha256(method.weights.numpy().tobytes()).hexdigest()
    depends_on = ("" if experts is None else experts.fingerprint, weights)
    return scored_run(context, task, settings, method.name, method.seed, depends_on, predicted, experts, baselines)


def calibration_set(context: Context, task: Task, settings: EvaluationSettings) -> list[Example]:
    """Adaptation examples that say what a label's score means, the same for every method; none where one label is right."""
    if task.output_type != "multi_label":
        return []
    return sample(task_examples(task, "adaptation", context.store), settings.calibration_examples)


def selection_set(context: Context, task: Task, settings: EvaluationSettings) -> list[Example]:
    """Adaptation examples that choose the single best expert."""
    return sample(task_examples(task, "adaptation", context.store), settings.selection_limit)


def named_method(
    context: Context, task: Task, experts: ExpertSet, name: str, settings: EvaluationSettings, expert: str | None = None
) -> Method:
    """One of the methods that need no router: original, average, or single (the best on the adaptation set).

    Raises:
        UnknownName: it is none of these, or the expert named is not in the set.
    """
    count = len(experts.names)
    if name == "original":
        return Method("original", None)
    if name == "average":
        return Method("average", uniform(count))
    if name != "single":
        raise UnknownName.among("method", name, ROUTERLESS)
    if expert is not None:
        if expert not in experts.names:
            raise UnknownName.among("expert", expert, experts.names)
        chosen = one_hot(experts.names.index(expert), count)
        return Method("single", chosen, record={"settings": {"expert": expert}})
    examples, calibration = selection_set(context, task, settings), calibration_set(context, task, settings)
    started, memory = time.perf_counter(), PeakMemory()
    with context.progress.bar(f"choose the best of {count} experts", (len(examples) + len(calibration)) * count) as bar:
        best, scores = best_single(
            context.base, context.mixture(experts), task, examples, settings, lambda done: bar.advance(done),
            calibration=calibration,
        )  # fmt: skip
    return Method(
        "single", one_hot(experts.names.index(best), count), adaptation_examples=len(examples),
        adaptation_seconds=time.perf_counter() - started, adaptation_memory_bytes=memory.bytes,
        record={"settings": {"expert": best, "score_on_adaptation_examples": scores}},
    )  # fmt: skip


def select_single_expert(context: Context, task: Task, experts: ExpertSet, settings: EvaluationSettings) -> Method:
    """Single with the best expert, which is looked for once: the choice is a run of its own."""
    read = (examples_digest(selection_set(context, task, settings)), examples_digest(calibration_set(context, task, settings)))
    digest = context.named(context.identity["fingerprint"], experts.fingerprint, settings.digest(), task.metric, *read)
    run = Run.at(context.runs, "choose", task.name, "single", 0, digest)
    found = run.result()
    if found is not None:
        method = named_method(context, task, experts, "single", settings, found["expert"])
        return replace(
            method, adaptation_examples=found["examples"], adaptation_seconds=found["seconds"],
            adaptation_memory_bytes=found["peak_memory_bytes"], record={"settings": found["settings"]},
        )  # fmt: skip
    method = named_method(context, task, experts, "single", settings)
    own = method.record["settings"]
    result = {
        "stage": "choose", "task": task.name, "method": "single", "seed": 0, "metrics": {}, "expert": own["expert"],
        "examples": method.adaptation_examples, "seconds": method.adaptation_seconds,
        "peak_memory_bytes": method.adaptation_memory_bytes, "settings": own,
    }  # fmt: skip
    run.finish({"evaluation": settings.model_dump()}, result)
    return method


def router_method(router: Router, setting: str | None = None) -> Method:
    """The row of a router: few_shot, normal, zero_shot, best_expert, with a suffix for its weights.

    The name says how it was searched for, and names the folder of its runs; how many examples it had is said by its setting.
    """
    name = ROUTERS[router.recipe.method]
    name += "" if router.recipe.weighting == "softmax" else f"_{router.recipe.weighting}"
    return method_of_router(name + ("_scaled" if router.recipe.learned_scale else ""), router, setting)


def router_and_mixture(context: Context, router: Path, experts: Path) -> tuple[Router, Mixture]:
    """A router, and the experts it was made for attached to the base.

    Raises:
        BaseMismatch, ExpertMismatch: they do not belong together.
    """
    found = load_router(router)
    loaded = load_experts(experts)
    found.check(context.identity, loaded)
    return found, context.mixture(loaded)


def examples_digest(examples: Sequence[Example]) -> str:
    """Sixteen hexadecimal digits of all of some examples that a score depends on: texts, answers and labels."""
    return digest_of(data_fingerprint(examples), *("\x1e".join(example.labels) for example in examples))
