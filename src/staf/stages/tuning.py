"""The learning-rate search of a baseline as a step on folders: done once, then read."""

from __future__ import annotations

import time
from dataclasses import asdict

from staf.baselines import BASELINES
from staf.baselines.settings import BaselineSettings
from staf.baselines.tuning import Choice, Tuning
from staf.data.task import Task
from staf.evaluate.settings import EvaluationSettings
from staf.runs import Run
from staf.stages.adaptation import adaptation_examples
from staf.stages.context import Context
from staf.stages.evaluation import examples_digest


def tune_learning_rate(
    context: Context, task: Task, settings: BaselineSettings, evaluation: EvaluationSettings
) -> tuple[Choice | None, float]:
    """What the search of a trained baseline chose, and its seconds; None where nothing is trained.

    Raises:
        TrainingFailed: no learning rate gave a loss that is a number.
    """
    if BASELINES[settings.method].wrap is None:
        return None, 0.0
    examples = adaptation_examples(context, task, settings.shots, settings.seed)
    digest = context.named(context.identity["fingerprint"], settings.digest(), evaluation.digest(), examples_digest(examples))
    run = Run.at(context.runs, "tune", task.name, settings.method, settings.seed, digest)
    found = run.result()
    if found is None:
        tuning = Tuning(context.base, examples, settings, evaluation.max_length, evaluation.token_budget)
        started = time.perf_counter()
        context.progress.log(f"{settings.method} on {task.name}: trying learning rates")
        choice = tuning.choose()
        found = {
            "stage": "tune", "task": task.name, "method": settings.method, "seed": settings.seed, "metrics": {},
            "choice": asdict(choice), "seconds": time.perf_counter() - started, "settings": settings.model_dump(),
        }  # fmt: skip
        run.finish(settings.model_dump(), found)
    return Choice(**found["choice"]), found["seconds"]
