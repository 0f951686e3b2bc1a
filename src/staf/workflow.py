"""The stages as steps on folders: each is skipped when its result is there, and goes on where it was stopped.

The command line and the demo call these and nothing else of the stages. The base is loaded on first need, so a step that
has nothing to do costs no model.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from staf import __version__
from staf.config import EvaluationSettings, ExpertSettings, RouterSettings
from staf.data.catalog import data_folder
from staf.data.example import Example
from staf.data.library import Library
from staf.data.profiles import PROFILES, check_profile
from staf.data.splits import dice, few_shot
from staf.errors import ConfigError, UnknownName
from staf.evaluate import Method, best_single, evaluate, method_of_router, sample
from staf.experts.estimate import Estimate, estimate, outline
from staf.experts.parallel import ALONE, World, check_sharding, open_base
from staf.experts.store import Expert, ExpertSet, expert_digest, load_expert, load_experts, save_expert
from staf.experts.train import StepReport, planned_steps, train_expert, training_digest
from staf.export import save_fused
from staf.files import read_json
from staf.lm.base import DEFAULT_BASE, Base, default_device, fingerprint_of, resolve
from staf.lm.dtype import DTYPES, choose
from staf.progress import Silence, Watcher
from staf.routing.adapt import adapt_router, planned_progress
from staf.routing.mixture import Mixture
from staf.routing.router import only, uniform
from staf.routing.store import Router, load_router, save_router
from staf.runs import PeakMemory, Run
from staf.tasks.examples import expert_examples, expert_sources, task_examples
from staf.tasks.rows import Task
from staf.trackers import JsonLines, Tracker, open_tracker


class Session:
    """One base, one data folder, one folder of runs, one watcher.

    Args:
        base: hub id, folder or GGUF file; None is the default. data: the user's data folder; None uses packages.
        runs: folder of results. watcher: told of long work. dtype: number format; None is chosen by measurement.
        profile: how data sets are split. world: the processes that train one expert together.
        shard_base: spread the base over them, where it does not fit on one device.

    Raises:
        MissingData: there is no such data folder. UnknownName: there is no such profile. ConfigError: a base sharded over one
            process.
    """

    def __init__(
        self,
        base: str | None,
        data: Path | None,
        runs: Path,
        watcher: Watcher | None = None,
        dtype: str | None = None,
        profile: str = PROFILES[0],
        world: World = ALONE,
        shard_base: bool = False,
    ) -> None:
        check_profile(profile)
        check_sharding(world, shard_base)
        self.base_name, self.runs = base, runs
        self.library = Library(data_folder(data), profile)
        self.dtype, self.world, self.shard_base = dtype, world, shard_base
        self.watcher: Watcher = watcher or Silence()
        self._mixture: tuple[str, Mixture] | None = None

    @cached_property
    def identity(self) -> dict[str, str]:
        """Name and fingerprint of the base, without loading it."""
        return {"name": self.base_name or DEFAULT_BASE, "fingerprint": fingerprint_of(resolve(self.base_name))}

    @cached_property
    def base(self) -> Base:
        """The loaded base."""
        self.watcher.say(f"loading {self.base_name or DEFAULT_BASE}")
        return open_base(self.base_name, self.dtype, self.world, self.shard_base)

    @cached_property
    def outline(self) -> Base:
        """The base without weights, from its config alone."""
        return outline(self.base_name, DTYPES[self.dtype] if self.dtype else choose(default_device()))

    def mixture(self, experts: ExpertSet) -> Mixture:
        """The experts attached to the base; attached once for the same set."""
        if self._mixture is None or self._mixture[0] != experts.fingerprint:
            self._mixture = (experts.fingerprint, Mixture(self.base, experts))
        return self._mixture[1]

    def forget_mixture(self) -> None:
        """Detach the experts, as training needs the routed layers for itself."""
        self._mixture = None


def training_examples(session: Session, name: str, settings: ExpertSettings) -> list[Example]:
    """What an expert is trained on: no more than its steps will see, nothing that a task tests; tells what is left out."""
    passed_over = [dataset for dataset, _ in expert_sources(name) if not session.library.can_have(dataset)]
    if passed_over:
        session.watcher.say(f"{name}: without {', '.join(dict.fromkeys(passed_over))}, which are not here (staf data fetch)")
    examples, left_out = expert_examples(name, session.library)
    if left_out:
        session.watcher.say(f"{name}: {left_out} examples left out, a task tests what they are about")
    return _enough(examples, settings)


def train_stage(session: Session, name: str, settings: ExpertSettings, out: Path, track: str | None = None) -> Expert:
    """Train the expert of a knowledge type into out/<name>, or load it where it is there with these settings.

    Args:
        track: a tracker of `staf.trackers.TRACKERS` that gets the numbers of each step beside metrics.jsonl of the run.
    """
    with session.world.in_turn():
        examples = training_examples(session, name, settings)
        digest = training_digest(session.identity, examples, settings)
    there = expert_digest(out / name) == digest
    session.world.check_same(int(there), f"view of {out / name}")
    if there:
        session.watcher.say(f"{name}: trained before, reused")
        return load_expert(out / name)
    session.forget_mixture()
    run, checkpoint = Run.at(session.runs, "train", name, "adalora", settings.seed, digest), out / name / "checkpoint"
    with ExitStack() as open_now:
        wanted = _trackers(run, name, settings, track) if session.world.leads else []
        trackers = [open_now.enter_context(closing(tracker)) for tracker in wanted]
        base, total = session.base, planned_steps(len(examples), settings)
        bar = open_now.enter_context(session.watcher.bar(f"train {name}", total))
        memory, started, tokens, done = PeakMemory(), time.perf_counter(), 0, 0

        def on_step(report: StepReport) -> None:
            nonlocal tokens, done
            tokens += report.tokens
            rate = tokens / (time.perf_counter() - started)
            steps, done = report.step - done, report.step  # a resumed training begins at its checkpoint
            bar.advance(steps, f"loss {report.loss:.2f}, {report.kept} ranks, {rate:.0f} tokens/s")
            for tracker in trackers:
                tracker.log(report.step, report.numbers)

        expert = train_expert(base, name, examples, settings, checkpoint, on_step, session.watcher.say, session.world)
    if session.world.leads:
        _finish_training(session, expert, settings, run, time.perf_counter() - started, tokens, memory.bytes)
        save_expert(out / name, expert)  # last: an expert that is there is never trained again
        shutil.rmtree(checkpoint, ignore_errors=True)
    session.world.barrier()
    return expert


def estimate_stage(session: Session, name: str, settings: ExpertSettings) -> Estimate:
    """What training an expert would take, without loading the base."""
    return estimate(session.outline, name, training_examples(session, name, settings), settings, default_device())


def _trackers(run: Run, name: str, settings: ExpertSettings, track: str | None) -> list[Tracker]:
    found: list[Tracker] = [JsonLines(run.folder / "metrics.jsonl")]
    return found if track is None else [*found, open_tracker(track, run.folder, name, settings.model_dump())]


def _enough(examples: list[Example], settings: ExpertSettings) -> list[Example]:
    """No more examples than the steps will see, drawn by the seed."""
    if settings.steps is None or settings.steps * settings.batch_size >= len(examples):
        return examples
    ordered = sorted(examples, key=lambda example: example.id)
    return dice(f"training draw {settings.seed}").sample(ordered, settings.steps * settings.batch_size)


def _finish_training(
    session: Session, expert: Expert, settings: ExpertSettings, run: Run, seconds: float, tokens: int, memory: int
) -> None:
    record, ranks = expert.record, expert.ranks
    curve = record["curve"]
    first = settings.initial_rank * sum(sum(shape) + 1 for shape in session.base.routed.shapes.values())
    result = {
        "stage": "train",
        "task": expert.name,
        "method": "adalora",
        "seed": settings.seed,
        "metrics": {},
        "steps": record["steps"],
        "examples": record["examples"],
        "loss_first": curve[0],
        "loss_last": sum(curve[-10:]) / len(curve[-10:]),
        "curve": [[i + 1, loss] for i, loss in enumerate(curve)],
        "tokens": record["tokens"],
        "tokens_per_second": tokens / seconds if seconds > 0 else None,
        "seconds": seconds,
        "peak_memory_bytes": memory,
        "trainable_parameters": first,
        "final_rank_average": sum(ranks.values()) / len(ranks),
        "ranks": ranks,
        "base": session.identity,
        "settings": settings.model_dump(),
        "versions": {"staf": __version__, "torch": torch.__version__},
    }
    run.finish(settings.model_dump(), result)


def adaptation_examples(session: Session, task: Task, settings: RouterSettings) -> list[Example]:
    """The adaptation examples of a task: all of them, or a draw of `shots` by the seed."""
    examples = task_examples(task, "adaptation", session.library)
    return examples if settings.shots is None else few_shot(examples, settings.shots, settings.seed)


def adapt_stage(session: Session, task: Task, experts: ExpertSet, settings: RouterSettings, out: Path) -> Router:
    """Learn the router of a task into `out`, or load it where it is there with these settings, experts and examples."""
    examples = adaptation_examples(session, task, settings)
    ids = "/".join(sorted(example.id for example in examples))
    digest = _digest(session.identity["fingerprint"], experts.fingerprint, task.name, settings.digest(), ids)
    if (out / "router.json").is_file():
        router = load_router(out)
        if router.record.get("run") == digest:
            session.watcher.say(f"router {out.name}: adapted before, reused")
            return router
    mixture, memory = session.mixture(experts), PeakMemory()
    with session.watcher.bar(f"adapt {task.name} ({settings.method})", planned_progress(len(examples), settings)) as bar:
        done = 0

        def on_progress(now: int, loss: float) -> None:
            nonlocal done
            bar.advance(now - done, f"loss {loss:.3f}")
            done = now

        router = adapt_router(mixture, task.name, examples, settings, on_progress)
    record = {**router.record, "run": digest, "peak_memory_bytes": memory.bytes}
    router = replace(router, record=record)
    save_router(out, router)
    return router


def evaluate_stage(
    session: Session,
    task: Task,
    experts: ExpertSet | None,
    method: Method,
    settings: EvaluationSettings,
    baselines: dict[str, Run] | None = None,
) -> tuple[dict[str, Any], Run]:
    """Score a method on the test set of a task; a finished run is read.

    Raises:
        ConfigError: the task's answers are not one of a list of labels.
    """
    if task.form != "choice":
        raise ConfigError(
            f"task '{task.name}' has answers of the form '{task.form}', which are not scored yet; evaluate takes tasks whose "
            "answer is one of a list of labels. See: staf evaluate --task list"
        )
    examples = sample(task_examples(task, "test", session.library), settings.limit)
    weights = "" if method.weights is None else hashlib.sha256(method.weights.numpy().tobytes()).hexdigest()
    experts_print = "" if experts is None else experts.fingerprint
    ids = "/".join(example.id for example in examples)
    digest = _digest(session.identity["fingerprint"], experts_print, weights, settings.digest(), ids)
    run = Run.at(session.runs, "evaluate", task.name, method.name, method.seed, digest)
    finished = run.result()
    if finished is not None:
        return finished, run
    mixture = None if experts is None else session.mixture(experts)
    with session.watcher.bar(f"score {task.name}: {method.name}", len(examples)) as bar:
        result = evaluate(
            session.base, mixture, task, method, examples, settings, run, baselines, lambda done: bar.advance(done)
        )
    return result, run


def named_method(
    session: Session, task: Task, experts: ExpertSet, name: str, settings: EvaluationSettings, expert: str | None = None
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
        raise UnknownName.among("method", name, ("original", "single", "average"))
    if expert is not None:
        if expert not in experts.names:
            raise UnknownName.among("expert", expert, experts.names)
        chosen = only(experts.names.index(expert), count)
        return Method("single", chosen, record={"settings": {"expert": expert}})
    examples = sample(task_examples(task, "adaptation", session.library), settings.selection_limit)
    started, memory = time.perf_counter(), PeakMemory()
    with session.watcher.bar(f"choose the best of {len(experts.names)} experts", len(examples) * len(experts.names)) as bar:
        best, scores = best_single(session.base, session.mixture(experts), examples, settings, lambda done: bar.advance(done))
    return Method(
        "single", only(experts.names.index(best), count), adaptation_examples=len(examples),
        adaptation_seconds=time.perf_counter() - started, adaptation_memory_bytes=memory.bytes,
        record={"settings": {"expert": best, "accuracy_on_adaptation_examples": scores}},
    )  # fmt: skip


def router_method(router: Router) -> Method:
    """The row of a learned router: few_shot, normal, or normal_scaled."""
    name = "few_shot" if router.settings.method == "cma" else "normal"
    return method_of_router(name + ("_scaled" if router.settings.learned_scale else ""), router)


def router_and_mixture(session: Session, router: Path, experts: Path) -> tuple[Router, Mixture]:
    """A router, and the experts it was made for attached to the base.

    Raises:
        BaseMismatch, ExpertMismatch: they do not belong together.
    """
    found = load_router(router)
    loaded = load_experts(experts)
    found.check(session.identity, loaded)
    return found, session.mixture(loaded)


def fuse_stage(session: Session, router: Router, experts: ExpertSet, out: Path) -> None:
    """Save the fused model of a router in `out`; one that is there is kept if it is of this router, else replaced."""
    card = out / "staf.json"
    if card.is_file():
        if read_json(card).get("router") == router.record["run"]:
            return
        shutil.rmtree(out)
    save_fused(session.mixture(experts), router, out)


def evaluate_named(
    session: Session,
    task: Task,
    settings: EvaluationSettings,
    experts: Path | None,
    router: Path | None,
    method: str,
    expert: str | None,
) -> tuple[dict[str, Any], Run]:
    """Score what a command line names: a router, or a method that needs none.

    Raises:
        ConfigError: a router or a method over experts without a folder of experts.
    """
    if experts is None:
        if router is not None or method != "original":
            raise ConfigError("a router, single and average need the experts: add --experts and the folder of the experts.")
        return evaluate_stage(session, task, None, Method("original", None), settings)
    if router is not None:
        found, mixture = router_and_mixture(session, router, experts)
        return evaluate_stage(session, task, mixture.experts, router_method(found), settings)
    loaded = load_experts(experts)
    return evaluate_stage(session, task, loaded, named_method(session, task, loaded, method, settings, expert), settings)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
