"""A baseline's predictions on a task: learned or shown from adaptation examples, scored as every method is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from staf.baselines.plain import plain_scores
from staf.baselines.rows import BASELINES
from staf.baselines.shots import with_shots
from staf.baselines.tuning import OnTrial, Tuning
from staf.config import BaselineSettings, EvaluationSettings
from staf.data.example import Example
from staf.data.splits import few_shot, refuse_test
from staf.errors import ConfigError
from staf.evaluate import Method, as_predictions, predict
from staf.lm.base import Base
from staf.lm.scoring import OnDone
from staf.runs import PeakMemory
from staf.tasks.rows import Task

Predictions = list[dict[str, Any]]
"""{"id", "gold", "scores"} of each example, as `staf.evaluate.predict` gives them"""


def baseline_predictions(
    base: Base,
    task: Task,
    adaptation: Sequence[Example],
    test: Sequence[Example],
    settings: BaselineSettings,
    evaluation: EvaluationSettings,
    on_done: OnDone | None = None,
    on_trial: OnTrial | None = None,
) -> tuple[Predictions, dict[str, Any]]:
    """Label scores of test examples under a baseline, in the order given, and how it came about.

    Args:
        base: is not changed; trained baselines load the plain model from its folder once more for each trial.
        adaptation: examples of the adaptation split, of which `settings.shots` are drawn by the seed.

    Returns:
        the predictions, and a record with method, seed, settings, tunable_parameters, adaptation_examples, adaptation_seconds,
        adaptation_memory_bytes and those of `Tuning.search` or `Shown.record`.

    Raises:
        ConfigError: the task's answers are not one of a list of labels, or there are too few examples.
        TestLeak: a test example is among those to learn from.
        MissingData: the baseline needs peft, which is not installed.
        TrainingFailed: no learning rate gave a loss that is a number.
    """
    if task.form != "choice":
        raise ConfigError(
            f"baseline {settings.method}: task '{task.name}' has answers of the form '{task.form}'; baselines are for tasks "
            "whose answer is one of a list of labels. See: staf evaluate --task list"
        )
    refuse_test(adaptation)
    drawn = few_shot(adaptation, len(adaptation) if settings.shots is None else settings.shots, settings.seed)
    started, memory = time.perf_counter(), PeakMemory()
    predictions: Predictions
    if BASELINES[settings.method].wrap is None:
        shown = with_shots(test, drawn, base.tokenizer, evaluation.max_tokens)
        how: dict[str, Any] = {**shown.record, "tunable_parameters": 0}
        spent = {"adaptation_seconds": time.perf_counter() - started, "adaptation_memory_bytes": memory.bytes}
        predictions = predict(base, None, Method(settings.method, None), shown.examples, evaluation, on_done)
    else:
        tuned = Tuning(base, drawn, settings, evaluation.max_tokens, evaluation.token_budget).search(on_trial)
        how = tuned.record
        spent = {"adaptation_seconds": time.perf_counter() - started, "adaptation_memory_bytes": memory.bytes}
        predictions = _predict_plain(tuned.model, base, test, evaluation, on_done)
    record = {
        "method": settings.method,
        "title": BASELINES[settings.method].title,
        "seed": settings.seed,
        "settings": settings.model_dump(),
        "adaptation_examples": len(drawn),
        **spent,
        **how,
    }
    return predictions, record


def _predict_plain(
    model: Any, base: Base, test: Sequence[Example], evaluation: EvaluationSettings, on_done: OnDone | None
) -> Predictions:
    scores = plain_scores(
        model, base, test, max_tokens=evaluation.max_tokens, token_budget=evaluation.token_budget,
        length_normalised=evaluation.length_normalised, on_done=on_done,
    )  # fmt: skip
    return as_predictions(test, scores)
