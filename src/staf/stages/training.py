"""Stage I as a step on folders: an expert is trained, or read where it is there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from staf.data.example import Example
from staf.data.open_labels import narrowed
from staf.data.own_corpus import provenance
from staf.data.selection import expert_examples, expert_name, label_set
from staf.data.splits import seeded_rng
from staf.data.task import Task, is_task_file, load_task
from staf.errors import ConfigError, DamagedFile, MissingData, StafError, TrainingFailed, UnknownName
from staf.experts.distributed import SINGLE_PROCESS, World
from staf.experts.estimate import Estimate, estimate, seconds_per_token
from staf.experts.launch import LAUNCHERS, Failures, run_local, run_ray
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import Expert, load_expert, save_expert, training_run_of
from staf.experts.train import StepReport, train_expert, training_digest
from staf.io import locked
from staf.lm.base import default_device
from staf.log import NullProgress, Progress, Report, json_lines, open_reporter
from staf.runs import PeakMemory, Run
from staf.stages.context import Context, RunContext


def training_examples(context: Context, name: str, settings: ExpertRecipe) -> list[Example]:
    """What an expert is trained on: what its steps see, in equal shares of its data sets, and nothing that a task tests."""
    passed_over = [dataset for dataset, _ in context.store.registry.expert_sources(name) if not context.store.can_have(dataset)]
    if passed_over:
        context.progress.log(f"{name}: without {', '.join(dict.fromkeys(passed_over))}, which are not here (staf data fetch)")
    most = None if settings.steps is None else settings.steps * settings.batch_size
    examples, left_out = expert_examples(name, context.store, most, settings.seed)
    if left_out:
        context.progress.log(f"{name}: {left_out} examples left out, a task tests what they are about")
    return examples


def training_records(context: Context, task: Task, settings: Mapping[str, ExpertRecipe]) -> list[Example]:
    """What the experts of a task's own data sets see of the task in training, with the task's query.

    Where the kind of the task feeds no expert, such as sections of ICD-10-CM, it is a draw of the task's training split.

    Args:
        settings: of these experts, by data set: no more examples than their steps take.
    """
    store, found = context.store, list[Example]()
    for name, own in settings.items():
        read = list(store.examples(name, task.task_type, store.training_split, task.output_type, **task.reader_options))
        read = read if task.top_labels is None else narrowed(read, label_set(task, store))
        if (name, task.task_type) in store.registry.expert_sources(name):
            seen = {example.id for example in training_examples(context, name, own)}
            found += [example for example in read if example.id in seen]
        else:
            count = min(len(read), own.planned_steps(len(read)) * own.batch_size)
            found += seeded_rng(f"training records:{own.seed}").sample(sorted(read, key=lambda e: e.id), count)
    return found


def train_stage(context: Context, name: str, settings: ExpertRecipe, out: Path, report_to: str | None = None) -> Expert:
    """Train the expert of a knowledge type into out/<name>, or load it where it is there with these settings.

    Args:
        report_to: a reporter of `staf.log.REPORTERS` that also gets the numbers of each step.
    """
    with context.world.main_process_first():
        examples = training_examples(context, name, settings)
        store = context.store
        used = [dataset for dataset, _ in store.registry.expert_sources(name) if store.can_have(dataset)]
        made_of: dict[str, Any] = {"licences": {dataset: store.registry.find_card(dataset).licence for dataset in used}}
        made_of = provenance(load_task(Path(name))) if is_task_file(name) else made_of
        name = expert_name(name)
        digest = training_digest(context.identity, examples, settings)
    with ExitStack() as locks:
        there = training_run_of(out / name, context.identity) == digest
        if not there and context.world.is_main_process:
            locks.enter_context(locked(out / name, wait=True, log=context.progress.log))
            there = training_run_of(out / name, context.identity) == digest  # by the process that was waited for
        context.world.check_same(int(there), f"view of {out / name}")
        if there:
            context.progress.log(f"{name}: trained before, reused")
            return load_expert(out / name)
        return _trained(context, name, examples, settings, out, digest, made_of, report_to)


def _trained(
    context: Context, name: str, examples: Sequence[Example], settings: ExpertRecipe, out: Path, digest: str,
    made_of: dict[str, Any], report_to: str | None,
) -> Expert:  # fmt: skip
    """Train an expert, from its checkpoint if there is one, and save it."""
    context.detach_experts()
    run = Run.at(context.runs, "train", name, "adalora", settings.seed, digest)
    checkpoint = out / ".training" / f"{name}-{digest[:10]}"
    with ExitStack() as open_now:
        reports: list[Report] = []
        if context.world.is_main_process:
            reports.append(open_now.enter_context(json_lines(run.folder / "metrics.jsonl")))
            if report_to is not None:
                reports.append(open_now.enter_context(open_reporter(report_to, run.folder, name, settings.model_dump())))
        base, total = context.base, settings.planned_steps(len(examples))
        bar = open_now.enter_context(context.progress.bar(f"train {name}", total))
        memory, started, tokens, done = PeakMemory(), time.perf_counter(), 0, 0

        def on_step(report: StepReport) -> None:
            nonlocal tokens, done
            tokens += report.tokens
            rate = tokens / (time.perf_counter() - started)
            steps, done = report.step - done, report.step  # a resumed training begins at its checkpoint
            bar.advance(steps, f"loss {report.loss:.2f}, {report.kept} ranks, {rate:.0f} tokens/s")
            for write in reports:
                write(report.step, report.numbers)

        expert = train_expert(
            base, name, examples, settings, checkpoint, on_step, context.progress.log, context.world, context.compute
        )
    expert = replace(expert, record={**expert.record, **made_of})
    if context.world.is_main_process:
        result = _result(context, expert, settings, time.perf_counter() - started, tokens, memory.bytes)
        run.finish(settings.model_dump(), result)
        save_expert(out / name, expert)  # last: an expert that is there is never trained again
        shutil.rmtree(checkpoint, ignore_errors=True)
    context.world.barrier()
    return expert


@dataclass(frozen=True)
class TrainingJob:
    """Train one expert into out/<name>."""

    name: str
    recipe: ExpertRecipe
    out: Path
    run_context: RunContext
    report_to: str | None = None

    def run(self, context: Context) -> None:
        """Train it, from its checkpoint if there is one; raises as `train_stage`."""
        train_stage(context, self.name, self.recipe, self.out, self.report_to)


def train_experts(jobs: Sequence[TrainingJob], launcher: str, progress: Progress, world: World = SINGLE_PROCESS) -> None:
    """Train experts by a launcher of `LAUNCHERS`.

    Raises:
        UnknownName: no such launcher. TrainingFailed: some failed; the others are trained. With one job its own error.
        ConfigError: several processes or a sharded base on Ray. MissingData: Ray is not installed.
    """
    if launcher not in LAUNCHERS:
        raise UnknownName.among("launcher", launcher, LAUNCHERS)
    for run_context in {job.run_context for job in jobs}:
        run_context.context(NullProgress(), world)  # raise what is wrong with all jobs
    if launcher == "local":
        failures = run_local(jobs, progress, world)
    elif world.size > 1 or any(job.run_context.fsdp for job in jobs):
        raise ConfigError("--launcher ray trains each expert in one process: use it without --fsdp and torchrun.")
    else:
        failures = train_on_ray(jobs, progress)
    if len(jobs) == 1 and failures:
        raise next(iter(failures.values()))
    if failures:
        lines = "\n  ".join(f"{name}: {type(error).__name__}: {error}" for name, error in failures.items())
        raise TrainingFailed(
            f"{len(failures)} of {len(jobs)} experts failed, the others are trained.\n  {lines}\nRe-run the command to resume."
        )


def train_on_ray(jobs: Sequence[TrainingJob], progress: Progress) -> Failures:
    """Train experts on a Ray cluster, those that read the most first; returns what failed.

    Data sets are fetched and prepared here, once for all workers; a job without data is among the failures.
    """
    sizes, failures = dict[TrainingJob, float](), Failures()
    for job in jobs:
        try:
            examples = training_examples(job.run_context.context(NullProgress()), job.name, job.recipe)
        except StafError as error:
            failures[job.name] = error
            progress.log(f"{job.name} failed: {type(error).__name__}")
            continue
        characters = sum(len(example.query) + len(example.context) + len(example.answer) for example in examples)
        read = job.recipe.planned_steps(len(examples)) * job.recipe.batch_size
        sizes[job] = read * characters / max(len(examples), 1)
    if sizes:
        largest_first = sorted(sizes, key=sizes.__getitem__, reverse=True)
        failures |= run_ray("train experts", largest_first, progress)
    return failures


def estimate_stage(context: Context, name: str, settings: ExpertRecipe) -> Estimate:
    """What training an expert would take; time is measured if the base is a local one whose weights are there and fit."""
    examples = training_examples(context, name, settings)
    found = estimate(context.meta_model, expert_name(name), examples, settings, default_device(), context.compute)
    local = context.base_name is None or Path(context.base_name).exists()
    if not local or (found.free_bytes is not None and found.total_bytes > found.free_bytes):
        return found
    try:
        base = context.base
    except (MissingData, DamagedFile):  # a config without weights
        return found
    context.detach_experts()
    return replace(found, seconds=found.tokens * seconds_per_token(base, examples, settings, context.compute))


def _result(
    context: Context, expert: Expert, settings: ExpertRecipe, seconds: float, tokens: int, memory: int
) -> dict[str, Any]:
    record, ranks = expert.record, expert.ranks
    curve = record["curve"]
    return {
        "stage": "train", "task": expert.name, "method": "adalora", "seed": settings.seed, "metrics": {},
        "steps": record["steps"], "examples": record["examples"], "tokens": record["tokens"],
        "loss_first": curve[0], "loss_last": fmean(curve[-10:]), "curve": [[i + 1, loss] for i, loss in enumerate(curve)],
        "tokens_per_second": tokens / seconds if seconds > 0 else None, "seconds": seconds, "peak_memory_bytes": memory,
        "trainable_parameters": settings.initial_rank * sum(sum(shape) + 1 for shape in context.base.lora.shapes.values()),
        "final_rank_average": fmean(ranks.values()), "ranks": ranks,
        "base": context.identity, "settings": settings.model_dump(),
        "compute": record["compute"], "versions": record["compute"]["versions"],
    }  # fmt: skip
