"""A baseline's predictions on a task: learned or shown from adaptation examples, scored as every method is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from staf.baselines.answering import tuned_base
from staf.baselines.in_context import reserved_for, with_shots
from staf.baselines.rows import BASELINES
from staf.baselines.settings import BaselineSettings
from staf.baselines.tuning import Choice, OnTrial, Tuning
from staf.data.example import Example
from staf.data.splits import few_shot, refuse_test
from staf.data.task import Task
from staf.evaluate import Answerer, predictions_of
from staf.evaluate.predictions import Predictions
from staf.evaluate.settings import EvaluationSettings
from staf.lm.base import Base
from staf.lm.scoring import OnDone
from staf.runs import PeakMemory


def baseline_predictions(
    base: Base,
    task: Task,
    adaptation: Sequence[Example],
    test: Sequence[Example],
    settings: BaselineSettings,
    evaluation: EvaluationSettings,
    on_done: OnDone | None = None,
    on_trial: OnTrial | None = None,
    *,
    calibration: Sequence[Example] = (),
    choice: Choice | None = None,
    records: Sequence[Example] = (),
) -> tuple[Predictions, dict[str, Any]]:
    """Label scores of test examples under a baseline, in the order given, and how it came about.

    Args:
        base: is not changed; trained baselines load the plain model from its folder once more for each trial.
        adaptation: examples of the adaptation split, of which `settings.shots` are drawn by the seed.
        calibration: of the adaptation split, the same for every method; where several labels may be right.
        choice: of learning rate and epochs by a search that was done before; None searches.
        records: further examples of the task; one that is drawn as well counts once.

    Returns:
        the predictions, and a record with method, seed, settings, tunable_parameters, adaptation_examples, adaptation_seconds,
        adaptation_memory_bytes and those of `Tuning.search` or `Shown.record`.

    Raises:
        ConfigError: there are too few examples. MissingData: too few calibration examples.
        TestLeak: a test example is among those to learn from.
        MissingData: the baseline needs peft, which is not installed.
        TrainingFailed: no learning rate gave a loss that is a number.
    """
    drawn = _learned_from(adaptation, records, settings)
    started, memory = time.perf_counter(), PeakMemory()
    if BASELINES[settings.method].wrap is None:
        evaluation = evaluation.model_copy(update={"max_length": settings.max_prompt_tokens or base.context_length})
        reserved = reserved_for(task.output_type, evaluation)
        shown = with_shots(test, drawn, base.tokenizer, evaluation.max_length, reserved)
        how: dict[str, Any] = {**shown.record, "tunable_parameters": 0}
        spent = {"adaptation_seconds": time.perf_counter() - started, "adaptation_memory_bytes": memory.bytes}
        answerer, test = Answerer(base, evaluation, on_done), shown.examples
        calibration = with_shots(calibration, drawn, base.tokenizer, evaluation.max_length, reserved).examples
    else:
        tuning = Tuning(base, drawn, settings, evaluation.max_length, evaluation.token_budget)
        tuned = tuning.learn(tuning.choose(on_trial) if choice is None else choice)
        how = tuned.record
        spent = {"adaptation_seconds": time.perf_counter() - started, "adaptation_memory_bytes": memory.bytes}
        answerer = Answerer(tuned_base(base, tuned.model), evaluation, on_done)
    record = {
        "method": settings.method,
        "title": BASELINES[settings.method].title,
        "seed": settings.seed,
        "settings": settings.model_dump(),
        "adaptation_examples": len(drawn),
        **spent,
        **how,
    }
    return predictions_of(task.output_type, answerer, test, calibration), record


def _learned_from(adaptation: Sequence[Example], records: Sequence[Example], settings: BaselineSettings) -> list[Example]:
    """The draw of adaptation examples, and the records that are not among them."""
    refuse_test([*adaptation, *records])
    drawn = few_shot(adaptation, len(adaptation) if settings.shots is None else settings.shots, settings.seed)
    return list({example.id: example for example in (*drawn, *records)}.values())
