"""Scoring what our methods are compared with, by name: baselines, LoraHub, classifiers, and another system's predictions."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from staf.baselines import BASELINES, baseline_predictions
from staf.baselines.classifiers import CLASSIFIERS, classify
from staf.baselines.classifiers.settings import ClassifierSettings
from staf.baselines.external import read_predictions
from staf.baselines.lorahub import EVALUATIONS, lorahub
from staf.baselines.settings import BaselineSettings
from staf.data.example import Example
from staf.data.selection import label_set, task_examples
from staf.data.task import Task, narrowed
from staf.errors import ConfigError
from staf.evaluate import Method, predict, setting_of
from staf.evaluate.settings import EvaluationSettings
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import ExpertSet
from staf.io import sha256_of
from staf.lm.scoring import OnDone
from staf.routing.merge import Mixture
from staf.routing.router import one_hot
from staf.stages.adaptation import adaptation_examples
from staf.stages.context import Context
from staf.stages.evaluation import ROUTERLESS, ROUTERS, Answered, Scored, calibration_set, examples_digest, scored_run
from staf.stages.training import training_examples
from staf.stages.tuning import tune_learning_rate


def baseline_stage(
    context: Context,
    task: Task,
    settings: BaselineSettings,
    evaluation: EvaluationSettings,
    setting: str | None = None,
    search_seed: int | None = None,
    records: Sequence[Example] = (),
) -> Scored:
    """Score a baseline of `staf.baselines.BASELINES` on the test set of a task.

    Args:
        search_seed: the seed whose draw chooses the learning rate for all; None lets every seed search by itself.
        records: further examples of the task to learn from, such as `training_records`, once the rate is chosen without them.
    """
    adaptation = task_examples(task, "adaptation", context.store)
    searching = settings if search_seed is None else settings.model_copy(update={"seed": search_seed})

    def predicted(examples: Sequence[Example], on_done: OnDone) -> Answered:
        choice, seconds = tune_learning_rate(context, task, searching, evaluation)
        started, calibration = time.perf_counter(), calibration_set(context, task, evaluation)
        found, record = baseline_predictions(
            context.base, task, adaptation, examples, settings, evaluation, on_done,
            calibration=calibration, choice=choice, records=records,
        )  # fmt: skip
        method = Method(
            settings.method, None, setting=setting or setting_of(settings.shots), seed=settings.seed,
            tunable_parameters=record["tunable_parameters"], adaptation_examples=record["adaptation_examples"],
            adaptation_seconds=seconds + record["adaptation_seconds"],
            adaptation_memory_bytes=record["adaptation_memory_bytes"],
            record={"settings": settings.model_dump(), "details": record},
        )  # fmt: skip
        return method, found, time.perf_counter() - started - record["adaptation_seconds"]

    further = (examples_digest(records),) if records else ()
    depends_on = ("baseline", settings.digest(), searching.digest(), examples_digest(adaptation), *further)
    return scored_run(context, task, evaluation, settings.method, settings.seed, depends_on, predicted)


def lorahub_stage(
    context: Context, task: Task, experts: ExpertSet, settings: BaselineSettings, evaluation: EvaluationSettings,
    setting: str | None = None,
) -> Scored:  # fmt: skip
    """Score LoraHub's rule over experts, its weights found with `settings.shots` examples."""
    adaptation = adaptation_examples(context, task, settings.shots, settings.seed)

    def predicted(examples: Sequence[Example], on_done: OnDone) -> Answered:
        calibration = calibration_set(context, task, evaluation)
        context.detach_experts()
        with context.progress.bar(f"LoraHub on {task.name}", EVALUATIONS) as bar:
            expert, record = lorahub(
                context.base, experts, adaptation, seed=settings.seed, max_length=evaluation.max_length,
                on_done=lambda done, loss: bar.advance(1, f"loss {loss:.3f}"),
            )  # fmt: skip
        method = Method(
            "lorahub", one_hot(0, 1), setting=setting or setting_of(settings.shots), seed=settings.seed,
            tunable_parameters=record["tunable_parameters"], adaptation_examples=record["adaptation_examples"],
            adaptation_seconds=record["seconds"], adaptation_memory_bytes=record["peak_memory_bytes"],
            record={"settings": settings.model_dump(), "details": record},
        )  # fmt: skip
        started, mixture = time.perf_counter(), Mixture(context.base, ExpertSet((expert,)))
        found = predict(
            context.base, mixture, method, examples, evaluation, on_done, output_type=task.output_type, calibration=calibration
        )
        return replace(method, weights=None), found, time.perf_counter() - started

    depends_on = ("lorahub", experts.fingerprint, settings.digest(), examples_digest(adaptation))
    return scored_run(context, task, evaluation, "lorahub", settings.seed, depends_on, predicted, experts)


def classifier_stage(
    context: Context, task: Task, name: str, shots: int | None, settings: ClassifierSettings, evaluation: EvaluationSettings,
    setting: str | None = None, records: Sequence[Example] = (),
) -> Scored:  # fmt: skip
    """Score a classifier of `staf.baselines.classifiers.CLASSIFIERS`, fitted on the adaptation set or a draw of `shots`.

    Args:
        records: further examples of the task to fit on, such as `training_records`; one that is among the others counts once.
    """
    drawn = adaptation_examples(context, task, shots, settings.seed)
    adaptation = list({example.id: example for example in (*drawn, *records)}.values())

    def predicted(examples: Sequence[Example], _: OnDone) -> Answered:
        found, record = classify(name, adaptation, examples, examples[0].labels, settings)
        method = Method(
            name, None, setting=setting or setting_of(shots), seed=settings.seed,
            tunable_parameters=record["tunable_parameters"],
            adaptation_examples=record["adaptation_examples"], adaptation_seconds=record["seconds"],
            adaptation_memory_bytes=record["peak_memory_bytes"],
            record={"settings": settings.model_dump(mode="json"), "details": record},
        )  # fmt: skip
        return method, found, 0.0  # fitting and answering are one step; its seconds are those of adaptation

    depends_on = ("classifier", name, settings.digest(), examples_digest(adaptation))
    return scored_run(context, task, evaluation, name, settings.seed, depends_on, predicted)


def training_records(context: Context, task: Task, settings: Mapping[str, ExpertRecipe]) -> list[Example]:
    """What the experts of a task's own data sets see of the task in training, asked as the task asks.

    Args:
        settings: of these experts, by data set: they see no more than their steps take.
    """
    store, found = context.store, list[Example]()
    for name, own in settings.items():
        seen = {example.id for example in training_examples(context, name, own)}
        found += [e for e in store.examples(name, task.task_type, store.training_split, task.output_type) if e.id in seen]
    return found if task.top_labels is None else narrowed(found, label_set(task, store))


def external_stage(context: Context, task: Task, name: str, file: Path, evaluation: EvaluationSettings) -> Scored:
    """Score another system's predictions on the test set of a task (`staf.baselines.external` has the format).

    Raises:
        ConfigError: its name is that of one of our own methods, or no name of a folder. MissingData, BadData: as
            `read_predictions`.
    """
    check_external_name(name)

    def predicted(examples: Sequence[Example], _: OnDone) -> Answered:
        found = read_predictions(file, examples)
        return Method(name, None, setting="external", record={"settings": {"file": file.name}}), found, 0.0

    return scored_run(context, task, evaluation, name, 0, ("external", sha256_of(file)), predicted)


def check_external_name(name: str) -> None:
    """See that a system's name is not one of ours, in small or capital letters, and that its runs can lie in a folder of it.

    Raises:
        ConfigError: it is, or it holds anything but letters, digits, '_', '-' and '.', with a letter or digit first.
    """
    plain = name.lower()
    routers = any(plain == router or plain.startswith(f"{router}_") for router in ROUTERS.values())
    if routers or plain in {"", *BASELINES, *CLASSIFIERS, "lorahub", *ROUTERLESS}:
        raise ConfigError(f"predictions of another system need a name of their own, found '{name}': give --method G-BERT, say.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(
            f"'{name}' cannot name another system, as its runs lie in a folder of that name: letters, digits, '_', '-' and '.' "
            "are expected, with a letter or digit first. Give --method G-BERT, say."
        )
