"""Every baseline by name, and the predictions of those that use the language model."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from staf.baselines.in_context import reserved_for, with_shots
from staf.baselines.peft import Choice, Tuning, tuned_base
from staf.baselines.settings import BaselineSettings
from staf.data.example import Example
from staf.data.splits import refuse_test
from staf.data.task import Task
from staf.errors import ConfigError
from staf.evaluate.answer import Answerer, OnDone, PartialPredictions, Predictions, predictions_of
from staf.evaluate.calibrate import draw
from staf.evaluate.settings import EvaluationSettings
from staf.lm.base import Base
from staf.metrics.methods import titles
from staf.runs import PeakMemory

BASELINES = titles("trained", "shown")
"""Titles of the baselines of `BaselineSettings.method`."""
METHODS = tuple(titles("fixed", "probed", "composed", "trained", "shown", "classifier"))
"""What `staf evaluate --method` takes."""


def baseline_predictions(
    base: Base, task: Task, adaptation: Sequence[Example], test: Sequence[Example], settings: BaselineSettings,
    evaluation: EvaluationSettings, on_done: OnDone | None = None, *, calibration: Sequence[Example] = (),
    choice: Choice | None = None, records: Sequence[Example] = (), partial: PartialPredictions | None = None,
    on_epoch: OnDone | None = None,
) -> tuple[Predictions, dict[str, Any]]:  # fmt: skip
    """Predictions of test examples by a baseline of `BASELINES`, in the order given, and the record of how.

    Args:
        base: is not changed; trained baselines load the plain model from its folder once more for each trial. Its prompt
            format is that of in-context learning.
        adaptation: examples of the adaptation split, of which `settings.shots` are drawn by the seed; what the draw puts
            aside is not learned from.
        calibration: for multi_label tasks, of what is put aside.
        choice: learning rate and epochs of an earlier search; None searches.
        records: further examples of the task; one that is drawn as well counts once.
        partial: what an interrupted run answered. on_epoch: as `Tuning`.

    Raises:
        ConfigError: there are too few examples. TestLeak: a test example is among those to learn from.
        MissingData: too few calibration examples, or peft is not installed.
        TrainingFailed: no learning rate gave a finite loss.
    """
    refuse_test([*adaptation, *records])
    learned, aside = draw(adaptation, settings.shots or len(adaptation), settings.seed)
    kept_out = {example.id for example in aside}
    learned = list({example.id: example for example in (*learned, *records) if example.id not in kept_out}.values())
    started, memory, cut = time.perf_counter(), PeakMemory(), tuple[bool, ...]()
    if settings.method == "in_context":
        own, limit = evaluation.max_length, settings.max_prompt_tokens or base.context_length
        evaluation, reserved = evaluation.model_copy(update={"max_length": limit}), reserved_for(task.output_type, evaluation)
        how_many, written = settings.shown, base.prompt_format
        shown, calibrating = (
            with_shots(x, learned, base.tokenizer, limit, reserved, own_length=own, shown=how_many, prompt_format=written)
            for x in (test, calibration)
        )
        answering, test, calibration, how, cut = base, shown.examples, calibrating.examples, shown.record, shown.cut
    else:
        tuning = Tuning(base, learned, settings, evaluation.max_length, evaluation.token_budget, on_epoch)
        model, how = tuning.learn(choice or tuning.choose())
        answering = tuned_base(base, model)
    record = {
        "method": settings.method, "title": BASELINES[settings.method], "seed": settings.seed,
        "settings": settings.model_dump(), "tunable_parameters": 0, "adaptation_examples": len(learned),
        "adaptation_seconds": time.perf_counter() - started, "adaptation_memory_bytes": memory.bytes, **how,
    }  # fmt: skip
    answerer = Answerer(answering, evaluation, on_done)
    predictions = predictions_of(task.output_type, answerer, test, calibration, partial=partial)
    return [row | {"truncated": own} for row, own in zip(predictions, cut, strict=True)] if cut else predictions, record


def check_external_name(name: str) -> None:
    """Check that a system's name is none of ours in any case, and that its runs can be in a folder of it.

    Raises:
        ConfigError: it is, or it holds anything but letters, digits, '_', '-' and '.', with a letter or digit first.
    """
    plain = name.lower()
    if plain in {"", *METHODS} or any(plain == router or plain.startswith(f"{router}_") for router in titles("router")):
        raise ConfigError(f"predictions of another system need a name of their own, found '{name}': give --method G-BERT, say.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(
            f"'{name}' cannot name another system, as its runs are in a folder of that name: letters, digits, '_', '-' and '.' "
            "are expected, with a letter or digit first. Give --method G-BERT, say."
        )
