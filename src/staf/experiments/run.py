"""Runs of an experiment, each skipped when it is finished: here, as one shard of a job array, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from staf.baselines.classifiers import CLASSIFIERS
from staf.baselines.methods import BASELINES
from staf.baselines.settings import BaselineSettings, ClassifierSettings
from staf.config import parse
from staf.data.example import Example
from staf.data.selection import task_examples
from staf.data.task import Task, find_task
from staf.errors import ConfigError, MissingData, StafError, TrainingFailed
from staf.evaluate.score import Method, router_method, setting_of
from staf.experiments.plan import EXTERNAL, NEEDS_EXPERTS, Experiment, RunSpec, declared_experiments
from staf.experiments.profile import Profile
from staf.experts.launch import run_ray
from staf.experts.store import Expert, ExpertSet, training_run_of
from staf.routing.store import Router
from staf.stages import adaptation, training
from staf.stages import evaluation as scoring
from staf.stages.context import Context, RunContext
from staf.stages.evaluation import Scored
from staf.stages.training import TrainingJob, train_on_ray
from staf.stages.tuning import tune_stage

T = TypeVar("T")
Outcomes = dict[RunSpec, Scored | str]
"""the result of a run, or why there is none"""


def parse_shard(text: str) -> tuple[int, int]:
    """Index and number of the processes that share the runs of an experiment, from i/n, i from 0 to n - 1.

    Raises:
        ConfigError: it is not of that form.
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--shard {text}: expected i/n with i from 0 to n - 1, such as 0/4. Correct it.")
    return int(index), int(count)


@dataclass(frozen=True)
class Runner:
    """Makes the runs of one profile in a context; tables and figures share many of them."""

    context: Context
    profile: Profile
    out: Path  # folder for experts and routers
    shard: tuple[int, int] = (0, 1)  # index and number of processes; experts and runs are split by their index
    cache: dict[Hashable, Any] = field(default_factory=dict, compare=False)
    """runs, experts, training records and contexts that were made before, or the error that prevented it"""

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns or raises, made only once."""
        if key not in self.cache:
            try:
                self.cache[key] = make()
            except StafError as error:
                self.cache[key] = error
        if isinstance(self.cache[key], StafError):
            raise self.cache[key]
        return cast("T", self.cache[key])

    def experts(self, names: tuple[str, ...] | None = None) -> ExpertSet:
        """Experts, trained where they are not finished yet.

        Raises:
            StafError: as `train_stage`. MissingData: another shard trains one, and has not yet.
        """
        wanted = sorted(self.profile.experts if names is None else names)
        found = tuple(self._once(("expert", name), partial(self._expert, name, wanted)) for name in wanted)
        return ExpertSet(found, self.out / "experts")

    def _expert(self, name: str, wanted: list[str]) -> Expert:
        index, count = self.shard
        everyone, folder = sorted({*self.profile.experts, *wanted}), self.out / "experts"
        if everyone.index(name) % count != index and training_run_of(folder / name) is None:
            raise MissingData(f"expert {name} is trained by another shard. Rerun this one when all have finished.")
        return training.train_stage(self.context, name, self.profile.of_expert(name), folder)

    def run(self, spec: RunSpec) -> Scored:
        """The result of a spec, read or made.

        Raises:
            StafError: as its stage; nothing is half written.
        """
        return self._once(spec, lambda: self._run(spec))

    def _run(self, spec: RunSpec) -> Scored:
        context, task, profile, method = self.context, find_task(spec.task), self.profile.of_task(spec.task), spec.method
        evaluation, few = profile.evaluation, (profile.few_shot.shots, 0)
        few_shot = spec.few_shot or method in ("in_context", "lorahub")
        shots = (spec.shots or profile.few_shot.shots) if few_shot else self._normal_shots(task)
        setting = "few-shot" if few_shot else "training set" if spec.records else "experts' data" if spec.pooled else "normal"
        if method == "original":
            return scoring.evaluate_stage(context, task, None, Method("original", None, drawn=few), evaluation)
        if method in EXTERNAL:
            return scoring.external_stage(context, task, method, self._answers_of(method) / f"{task.name}.jsonl", evaluation)
        if method in CLASSIFIERS:
            values = {**profile.classifier, "seed": spec.seed, **({"encoder": profile.encoder} if method == "encoder" else {})}
            own = parse(ClassifierSettings, values, "classifier of the profile")
            return scoring.classifier_stage(context, task, method, shots, own, evaluation, setting, self.records(spec))
        if method == "language_model":
            context, method = self._other_context(), "lora"
        values = {**profile.baseline, "method": "lora" if method == "lorahub" else method, "shots": shots, "seed": spec.seed}
        values |= {"shown": profile.shown} if method == "in_context" else {}
        if method == "lorahub":
            settings = parse(BaselineSettings, values, "baseline of the profile")
            return scoring.lorahub_stage(context, task, self.experts(spec.experts), settings, evaluation, "few-shot")
        if method in NEEDS_EXPERTS:
            experts, routed = self._routed(spec, task, self.experts(spec.experts))
            return scoring.evaluate_stage(context, task, experts, routed, evaluation)
        if method not in BASELINES:
            raise ConfigError(f"{method} is not a method of an experiment.")
        settings = parse(BaselineSettings, values, "baseline of the profile")
        return scoring.baseline_stage(context, task, settings, evaluation, setting, 0, self.records(spec))

    def records(self, spec: RunSpec) -> Sequence[Example]:
        """What the expert of the task's own data sees of this task, or all experts see, where the spec is fitted on it too."""
        if spec.pooled:
            pairs = [(name, self.profile.of_expert(name)) for name in self.profile.experts]
            return self._once("pooled", lambda: [e for pair in pairs for e in training.training_examples(self.context, *pair)])
        if not spec.records:
            return ()
        task = find_task(spec.task)
        settings = {name: self.profile.of_expert(name) for name in task.datasets}
        return self._once(("records", task.name), lambda: training.training_records(self.context, task, settings))

    def _normal_shots(self, task: Task) -> int | None:
        """Adaptation examples of the normal setting; None for all, also where there are no more than the profile takes."""
        most = self.profile.of_task(task.name).normal_shots
        return None if most is None or most >= len(task_examples(task, "adaptation", self.context.store)) else most

    def _answers_of(self, system: str) -> Path:
        """The folder of another system's answers."""
        folder = self.profile.external.get(system)
        if folder is not None:
            return Path(folder)
        title = next(row.title for row in declared_experiments()["table5"].rows if row.method == system)
        own = " Or have it trained here: -o language_model= and a hub id or folder." if system == "meditron" else ""
        raise MissingData(
            f"{title} is not run by staf, and its predictions are not here. Have it answer the test items "
            f"(docs/classifiers.md) and name the folder of its answers: -o 'external={{{system}: FOLDER}}'.{own}"
        )

    def _other_context(self) -> Context:
        """The context of another language model."""
        name = self.profile.language_model
        if name is None:
            raise MissingData("the profile names no other language model: -o language_model= and a hub id or folder.")
        return self._once(("context", name), lambda: self.context.of_base(name))

    def _routed(self, spec: RunSpec, task: Task, experts: ExpertSet) -> tuple[ExpertSet, Method]:
        """The experts that are scored, and their weights."""
        if spec.method in ("single", "average"):
            own = self.profile.of_task(task.name)
            few = (own.few_shot.shots, 0)
            return experts, scoring.named_method(self.context, task, experts, spec.method, own.evaluation, drawn=few)
        tuned = spec.method == "route_then_tune"
        router, folder, given = self._router(replace(spec, method="few_shot") if tuned else spec, task, experts)
        if tuned:
            out = folder / f"tuned-{self.profile.tune.digest()}"
            router, experts = tune_stage(self.context, task, router, experts, self.profile.tune, out)
        return experts, router_method(router, setting_of(given))

    def _router(self, spec: RunSpec, task: Task, experts: ExpertSet) -> tuple[Router, Path, int | None]:
        """The router of a spec, its folder, and its shots as given; first, if it has one, the router that it starts from."""
        profile = self.profile.of_task(task.name)
        found = profile.extra_routers[spec.router] if spec.router else getattr(profile, spec.method)
        given = spec.shots or found.shots  # a normal router may have shots as well
        shots = given or self._normal_shots(task)
        recipe = found.model_copy(update={"seed": spec.seed, "shots": shots})
        name = f"{spec.router or spec.method}-{shots or 'all'}-{experts.fingerprint}"
        folder = self.out / "routers" / spec.task / name / f"seed-{spec.seed}"
        origin = profile.init_from.get(spec.router)
        start = None if origin is None else self._router(replace(spec, router=origin), task, experts)[1]
        router = adaptation.adapt_stage(self.context, task, experts, recipe, folder, start, self.out / "experts")
        return router, folder, given

    def run_all(self, experiment: Experiment, seeds: int) -> Outcomes:
        """Every run of this shard: its result, or why there is none."""
        index, count = self.shard
        specs = experiment.runs(seeds)[index::count]
        found: Outcomes = {}
        with self.context.progress.bar(experiment.title, len(specs)) as bar:
            for spec in specs:
                tried = spec in self.cache
                try:
                    found[spec] = self.run(spec)
                except StafError as error:
                    found[spec] = str(error)
                    if not tried:
                        self.context.progress.log(f"{spec.name}: skipped. {error}")
                bar.advance(1, spec.name)
        return found


@dataclass(frozen=True)
class RunJob:
    """A run for a cluster's worker."""

    spec: RunSpec
    profile: Profile
    out: Path
    run_context: RunContext

    @property
    def name(self) -> str:
        """Of the spec."""
        return self.spec.name

    def run(self, context: Context) -> None:
        """Finish the run; raises as `Runner.run`."""
        Runner(context, self.profile, self.out).run(self.spec)


def run_on_cluster(experiment: Experiment, runner: Runner, run_context: RunContext, seeds: int) -> None:
    """Train the experts and finish the runs of an experiment on a Ray cluster; failures are reported when runs are read.

    Raises:
        MissingData: Ray is not installed, or its cluster does not answer.
    """
    profile, progress = runner.profile, runner.context.progress
    specs = experiment.runs(seeds)
    names = sorted({name for spec in specs for name in spec.needs(profile)})
    jobs = [TrainingJob(name, profile.of_expert(name), runner.out / "experts", run_context) for name in names]
    failures = train_on_ray(jobs, progress)
    for name, error in failures.items():
        message = f"expert {name} was not trained. {type(error).__name__}: {error}"
        runner.cache["expert", name] = TrainingFailed(message)
    ready = [spec for spec in specs if failures.keys().isdisjoint(spec.needs(profile))]
    run_ray(experiment.title, [RunJob(spec, profile, runner.out, run_context) for spec in ready], progress)
