"""Scoring a method on a task's test set: a finished run is read, an interrupted one resumes, else it is made."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from staf.baselines.classifiers import SENTENCE_ENCODERS, OnStep, classify, nothing
from staf.baselines.embedding import sentence_folder
from staf.baselines.external import read_predictions
from staf.baselines.lorahub import EVALUATIONS, lorahub
from staf.baselines.methods import baseline_predictions, check_external_name
from staf.baselines.networks import encoder_folder
from staf.baselines.peft import Choice, Tuning
from staf.baselines.settings import BaselineSettings, ClassifierSettings
from staf.compute import compute_record
from staf.data.example import Example
from staf.data.selection import refuse_leak, task_examples
from staf.data.task import Task
from staf.errors import ConfigError, MissingData, UnknownName
from staf.evaluate.answer import Answerer, OnDone, PartialPredictions, predictions_of, routed
from staf.evaluate.score import FEW, ROUTERLESS, Answered, Drawn, Method, best_single, finish, sample, setting_of
from staf.evaluate.settings import CHAT_METHODS, EvaluationSettings
from staf.experts.store import ExpertSet
from staf.io import locked, sha256_of
from staf.lm.base import fingerprint_of
from staf.lm.prompts import PLAIN, PromptFormat
from staf.log import NullProgress
from staf.metrics import methods
from staf.routing.adapt import examples_digest
from staf.routing.merge import Mixture
from staf.routing.router import one_hot, uniform
from staf.routing.store import Router, load_router
from staf.runs import PeakMemory, Run
from staf.stages.adaptation import calibration_set, drawn_examples
from staf.stages.context import Context

Scored = tuple[dict[str, Any], Run]


class Items(NamedTuple):
    """What a method is to answer."""

    test: list[Example]
    calibration: list[Example]
    """labelled examples that calibrate scores; none but for multi_label tasks"""
    on_done: OnDone
    partial: PartialPredictions
    """what an interrupted run answered"""
    prompt_format: PromptFormat
    """of the prompts; plain for what was trained or routed"""


Answer = Callable[[Items], Answered]


def scored_run(
    context: Context, task: Task, settings: EvaluationSettings, name: str, seed: int, depends_on: Sequence[str], answer: Answer,
    experts: ExpertSet | None = None, baselines: dict[str, Run] | None = None, calibration: Sequence[Example] = (),
) -> Scored:  # fmt: skip
    """The result of a method on a task's test set: read where the run is finished, else made.

    Args:
        name, seed: of the method; they name its run. depends_on: fingerprints of what its predictions depend on apart from
            base, settings, test and calibration examples.
        experts: that took part. baselines: finished runs on the same items to compare with. calibration: of `calibration_set`.

    Raises:
        TestLeak: an expert was trained on something that a test item is about.
    """
    examples = sample(task_examples(task, "test", context.store), settings.limit)
    written = context.prompt_format(settings.prompt_format if name in CHAT_METHODS else "plain")
    settings = settings.in_format(written.name)
    read = (examples_digest(examples), examples_digest(calibration), *(() if written == PLAIN else (str(written),)))
    judged = (task.output_type, task.metric, str(task.fixed_labels))
    digest = context.named(*depends_on, settings.digest(), *judged, *read)
    run = Run.at(context.runs, "evaluate", task.name, name, seed, digest)
    partial = PartialPredictions(run.folder / "partial.jsonl")
    if (finished := run.result()) is not None:
        partial.path.unlink(missing_ok=True)  # left where the process ended between the two
        context.say_if_computed_otherwise(f"the result in {run.folder}", finished.get("compute"))
        return finished, run
    if experts is not None:
        refuse_leak(task, examples, experts.dedup_keys)
    with locked(run.folder, wait=True, log=context.progress.log):
        if (finished := run.result()) is not None:  # by the process that was waited for
            return finished, run
        memory = PeakMemory()
        more = f", {len(calibration)} examples to calibrate" if calibration else ""
        with context.progress.bar(f"score {task.name}: {name}{more}", len(examples) + len(calibration)) as bar:
            answered = answer(Items(examples, [*calibration], bar.advance, partial, written))
        base = answered.base
        result = finish(
            run, task, answered, examples, settings, identity=context.identity, experts=experts, baselines=baselines or {},
            memory_bytes=memory.bytes, compute=None if base is None else compute_record(base, context.compute),
            calibration_examples=0 if base is None else len(calibration),
        )  # fmt: skip
        partial.path.unlink(missing_ok=True)
    return result, run


def evaluate_stage(
    context: Context, task: Task, experts: ExpertSet | None, method: Method, settings: EvaluationSettings,
    baselines: dict[str, Run] | None = None,
) -> Scored:  # fmt: skip
    """Score weights of experts, or the base model, on the test set of a task."""

    def answer(items: Items) -> Answered:
        mixture = None if experts is None else context.mixture(experts)
        return routed_answers(context, mixture, method.weights, method, task, settings, items)

    weights = "" if method.weights is None else hashlib.sha256(method.weights.numpy().tobytes()).hexdigest()
    probe = () if method.probe is None else (method.probe.digest(),)
    depends_on = ("" if experts is None else experts.fingerprint, weights, method.granularity, *probe)
    calibration = calibration_set(context, task, settings, method.drawn)
    return scored_run(context, task, settings, method.name, method.seed, depends_on, answer, experts, baselines, calibration)


def routed_answers(
    context: Context, mixture: Mixture | None, weights: Tensor | None, method: Method, task: Task,
    settings: EvaluationSettings, items: Items,
) -> Answered:  # fmt: skip
    """What the base answers, routed by weights (G, K) of a mixture's experts or as it is, and the seconds that it took."""
    base, started = replace(context.base, prompt_format=items.prompt_format), time.perf_counter()
    answerer = Answerer(base, settings, items.on_done)
    with routed(base, mixture, weights, method.granularity):
        found = predictions_of(
            task.output_type, answerer, items.test, items.calibration, calibrator=method.probe, partial=items.partial
        )
    return Answered(method, found, time.perf_counter() - started, base)


def named_method(
    context: Context, task: Task, experts: ExpertSet, name: str, settings: EvaluationSettings, expert: str | None = None,
    drawn: Drawn = FEW,
) -> Method:  # fmt: skip
    """One of the methods that need no router: original, average, or single (the best on the adaptation set).

    Raises:
        UnknownName: it is none of these, or the expert named is not in the set.
    """
    count = len(experts.names)
    if name == "original":
        return Method("original", None, drawn=drawn)
    if name == "average":
        return Method("average", uniform(count), drawn=drawn)
    if name != "single":
        raise UnknownName.among("method", name, ROUTERLESS)
    if expert is None:
        return select_single_expert(context, task, experts, settings, drawn=drawn)
    if expert not in experts.names:
        raise UnknownName.among("expert", expert, experts.names)
    return Method("single", one_hot(experts.names.index(expert), count), drawn=drawn, record={"settings": {"expert": expert}})


def select_single_expert(
    context: Context, task: Task, experts: ExpertSet, settings: EvaluationSettings, shots: Sequence[Example] | None = None,
    drawn: Drawn = FEW,
) -> Method:  # fmt: skip
    """The expert that is best on the adaptation set of a task, or on shots of it, but for examples that calibrate; a run."""
    settings = settings.in_format("plain")
    calibration, count = calibration_set(context, task, settings, drawn), len(experts.names)
    pool = [e for e in shots or task_examples(task, "adaptation", context.store) if e not in calibration]
    examples = pool if shots else sample(pool, settings.selection_limit)
    read = (examples_digest(examples), examples_digest(calibration))
    digest = context.named(experts.fingerprint, settings.digest(), task.output_type, task.metric, *read)
    run = Run.at(context.runs, "choose", task.name, "single", 0, digest)
    if (found := run.result()) is None:
        started, memory = time.perf_counter(), PeakMemory()
        with context.progress.bar(f"choose the best of {count} experts", (len(examples) + len(calibration)) * count) as bar:
            best, scores = best_single(
                context.base, context.mixture(experts), task, examples, settings, bar.advance, calibration=calibration
            )
        found = {
            "stage": "choose", "task": task.name, "method": "single", "seed": 0, "metrics": {}, "expert": best,
            "examples": len(examples), "seconds": time.perf_counter() - started, "peak_memory_bytes": memory.bytes,
            "settings": {"expert": best, "score_on_adaptation_examples": scores},
        }  # fmt: skip
        run.finish({"evaluation": settings.model_dump()}, found)
    return Method(
        "single", one_hot(experts.names.index(found["expert"]), count), adaptation_examples=found["examples"],
        adaptation_seconds=found["seconds"], adaptation_memory_bytes=found["peak_memory_bytes"], drawn=drawn,
        record={"settings": found["settings"]},
    )  # fmt: skip


def checked_router(
    context: Context, router: Path, experts: Path | None, task: str | None = None
) -> tuple[Router, ExpertSet]:  # fmt: skip
    """A router and its experts, without loading the base.

    Args:
        experts: their folder; None is where they were when the router was made.

    Raises:
        ConfigError: it is of another task than `task`. BaseMismatch, ExpertMismatch: they do not belong together.
        MissingData: there are no experts.
    """
    found = load_router(router)
    if task is not None and task != found.task:
        wrong = f"the router in {router} is of the task '{found.task}', not of '{task}'"
        raise ConfigError(f"{wrong}. Give that task, or adapt a router to this one: staf adapt --task {task}")
    loaded = found.load_experts(experts)
    found.check(context.identity, loaded)
    context.say_if_computed_otherwise(f"the router in {router}", found.record.get("compute"))
    return found, loaded


def baseline_stage(
    context: Context, task: Task, settings: BaselineSettings, evaluation: EvaluationSettings, setting: str | None = None,
    search_seed: int | None = None, records: Sequence[Example] = (), choice: Choice | None = None,
) -> Scored:  # fmt: skip
    """Score a baseline of `staf.baselines.methods.BASELINES` on the test set of a task.

    Args:
        search_seed: the seed whose draw chooses the learning rate for all; None lets every seed search by itself.
        records: further examples of the task, such as `training_records`, that are learned from in one pass, as an expert
            does, once the rate is chosen without them.
        choice: learning rate and epochs; None searches for them.
    """
    adaptation = task_examples(task, "adaptation", context.store)
    searching = settings if search_seed is None else settings.model_copy(update={"seed": search_seed})

    def answer(items: Items) -> Answered:
        found = (choice, 0.0) if choice else tune_learning_rate(context, task, searching, evaluation)
        (chosen, seconds), base = found, replace(context.base, prompt_format=items.prompt_format)
        chosen = replace(chosen, epochs=1) if chosen and records else chosen
        started, epochs = time.perf_counter(), 0 if chosen is None else chosen.epochs
        progress = context.progress if epochs else NullProgress()
        with progress.bar(f"learn {settings.method}", epochs) as bar:
            predictions, record = baseline_predictions(
                base, task, adaptation, items.test, settings, evaluation, items.on_done, records=records,
                calibration=items.calibration, choice=chosen, partial=items.partial, on_epoch=bar.advance,
            )  # fmt: skip
        learned = record["adaptation_seconds"]
        method = Method.of_baseline(settings.method, record, settings.model_dump(), setting or setting_of(settings.shots))
        method = replace(method, adaptation_seconds=seconds + learned)
        return Answered(method, predictions, time.perf_counter() - started - learned, base)

    further = (*((examples_digest(records), "once") if records else ()), *(() if choice is None else (str(choice),)))
    depends_on = ("baseline", settings.digest(), searching.digest(), examples_digest(adaptation), *further)
    calibration = calibration_set(context, task, evaluation, (settings.shots, settings.seed))
    return scored_run(context, task, evaluation, settings.method, settings.seed, depends_on, answer, calibration=calibration)


def tune_learning_rate(
    context: Context, task: Task, settings: BaselineSettings, evaluation: EvaluationSettings
) -> tuple[Choice | None, float]:
    """What the search of a trained baseline chose, a run of its own, and its seconds; None where nothing is trained.

    Raises:
        TrainingFailed: no learning rate gave a finite loss.
    """
    if settings.method == "in_context":
        return None, 0.0
    examples = drawn_examples(context, task, settings.shots, settings.seed).learned
    digest = context.named(settings.digest(), evaluation.in_format("plain").digest(), examples_digest(examples))
    run = Run.at(context.runs, "tune", task.name, settings.method, settings.seed, digest)
    if (found := run.result()) is None:
        started, rates = time.perf_counter(), settings.learning_rates or methods.METHODS[settings.method]["rates"]
        with context.progress.bar(f"learning rates of {settings.method}", len(rates) * settings.passes(len(examples))) as bar:
            limits = (evaluation.max_length, evaluation.token_budget)
            choice = Tuning(context.base, examples, settings, *limits, bar.advance).choose()
        found = {
            "stage": "tune", "task": task.name, "method": settings.method, "seed": settings.seed, "metrics": {},
            "choice": asdict(choice), "seconds": time.perf_counter() - started, "settings": settings.model_dump(),
        }  # fmt: skip
        run.finish(settings.model_dump(), found)
    return Choice(**found["choice"]), found["seconds"]


def lorahub_stage(
    context: Context, task: Task, experts: ExpertSet, settings: BaselineSettings, evaluation: EvaluationSettings,
    setting: str | None = None,
) -> Scored:  # fmt: skip
    """Score LoraHub's rule over experts, its weights found with `settings.shots` examples."""
    adaptation = drawn_examples(context, task, settings.shots, settings.seed).learned

    def answer(items: Items) -> Answered:
        context.detach_experts()
        with context.progress.bar(f"LoraHub on {task.name}", EVALUATIONS) as bar:
            expert, record = lorahub(
                context.base, experts, adaptation, seed=settings.seed, max_length=evaluation.max_length,
                label_end=settings.label_end,
                on_done=lambda done, loss: bar.advance(1, f"loss {loss:.3f}"),
            )  # fmt: skip
        method = Method.of_baseline("lorahub", record, settings.model_dump(), setting or setting_of(settings.shots))
        mixture = Mixture(context.base, ExpertSet((expert,)))
        return routed_answers(context, mixture, one_hot(0, 1), method, task, evaluation, items)

    depends_on = ("lorahub", experts.fingerprint, settings.digest(), examples_digest(adaptation))
    calibration = calibration_set(context, task, evaluation, (settings.shots, settings.seed))
    return scored_run(context, task, evaluation, "lorahub", settings.seed, depends_on, answer, experts, calibration=calibration)


def classifier_stage(
    context: Context, task: Task, name: str, shots: int | None, settings: ClassifierSettings, evaluation: EvaluationSettings,
    setting: str | None = None, records: Sequence[Example] = (), on_step: OnStep = nothing,
) -> Scored:  # fmt: skip
    """Score a classifier of `staf.baselines.classifiers`, fitted on the adaptation set or a draw of `shots`.

    Args:
        records: further examples of the task to fit on, such as `training_records`; one that is among the others counts once.
        on_step: as `classify`.
    """
    learned, aside = drawn_examples(context, task, shots, settings.seed)
    described = {label: f"{label}: {meaning}" for label, meaning in task.label_descriptions.items() if meaning.strip()}
    settings = settings.model_copy(update={"label_texts": {**described, **settings.label_texts}})
    adaptation = list({example.id: example for example in (*learned, *aside, *records)}.values())

    def answer(items: Items) -> Answered:
        found, record = classify(name, adaptation, items.test, settings, on_step)
        method = Method.of_baseline(name, record, settings.model_dump(mode="json"), setting or setting_of(shots))
        return Answered(method, found)  # fitting and answering are one step; its seconds are those of adaptation

    weights = ""
    if name in SENTENCE_ENCODERS:
        weights = fingerprint_of(sentence_folder(settings))
    elif name == "encoder" and settings.encoder:
        weights = fingerprint_of(encoder_folder(settings.encoder))
    depends_on = ("classifier", name, settings.digest(), weights, examples_digest(adaptation))
    return scored_run(context, task, evaluation, name, settings.seed, depends_on, answer)


def external_stage(context: Context, task: Task, name: str, file: Path, evaluation: EvaluationSettings) -> Scored:
    """Score another system's predictions on the test set of a task (`staf.baselines.external` has the format).

    Raises:
        ConfigError: its name is that of one of our own methods, or no name of a folder. MissingData, BadData: as
            `read_predictions`.
    """
    check_external_name(name)
    if not file.is_file():
        raise MissingData(f"no predictions at {file}. Check the path.")

    def answer(items: Items) -> Answered:
        method = Method(name, None, setting="external", record={"settings": {"file": file.name}})
        return Answered(method, read_predictions(file, items.test))

    return scored_run(context, task, evaluation, name, 0, ("external", sha256_of(file)), answer)
