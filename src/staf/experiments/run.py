"""Runs of an experiment, each skipped when it is finished: here, as one shard of a job array, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from staf.baselines import BASELINES
from staf.baselines.classifiers import CLASSIFIERS
from staf.baselines.settings import BaselineSettings, ClassifierSettings
from staf.config import parse
from staf.data.example import Example
from staf.data.registry import find_task
from staf.data.selection import task_examples
from staf.data.task import Task
from staf.errors import ConfigError, MissingData, StafError, TrainingFailed
from staf.evaluate import Method, setting_of
from staf.evaluate.settings import EvaluationSettings
from staf.experiments.plan import EXTERNAL, MEDITRON, NEEDS_EXPERTS, Experiment, RunSpec
from staf.experiments.profile import Profile
from staf.experts.launch import run_ray
from staf.experts.store import Expert, ExpertSet, training_run_of
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router
from staf.stages import (
    Context,
    adapt_stage,
    baseline_stage,
    best_expert_stage,
    classifier_stage,
    evaluate_stage,
    external_stage,
    lorahub_stage,
    named_method,
    router_method,
    select_single_expert,
    train_stage,
    training_records,
    zero_shot_stage,
)  # fmt: skip
from staf.stages.context import RunContext
from staf.stages.evaluation import Scored
from staf.stages.training import TrainingJob, train_on_ray

Outcomes = dict[RunSpec, Scored | str]
"""the result of a run, or why there is none"""


@dataclass(frozen=True)
class Shard:
    """One of several processes that share the runs of an experiment; experts and runs are split by their index."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From i/n, i from 0 to n - 1.

        Raises:
            ConfigError: it is not of that form.
        """
        index, _, count = text.partition("/")
        if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
            raise ConfigError(f"--shard {text}: expected i/n with i from 0 to n - 1, such as 0/4. Correct it.")
        return cls(int(index), int(count))

    def has(self, index: int) -> bool:
        """Whether the item of this index is of this shard."""
        return index % self.count == self.index


@dataclass(frozen=True)
class Runner:
    """Runs specs of one profile in a context; results and failures are kept, as tables and figures share many runs."""

    context: Context
    profile: Profile
    out: Path
    """folder for experts and routers"""
    shard: Shard = Shard(0, 1)
    known: dict[str, Expert] = field(default_factory=dict, compare=False)
    """experts by name: checking that one is trained reads all of its data"""
    failed: dict[str, StafError] = field(default_factory=dict, compare=False)
    """experts that could not be trained, which are not tried again"""
    records: dict[str, list[Example]] = field(default_factory=dict, compare=False)
    """by task, further training records of classifiers"""
    others: dict[str, Context] = field(default_factory=dict, compare=False)
    """contexts of other base models"""
    done: dict[RunSpec, Scored | StafError] = field(default_factory=dict, compare=False)

    def up_to(self, seeds: int) -> Runner:
        """This runner with the first seeds only; what is known and done is shared."""
        return replace(self, profile=self.profile.model_copy(update={"seeds": seeds}))

    def experts(self, names: tuple[str, ...] | None = None) -> ExpertSet:
        """Experts, trained where they are not finished yet.

        Raises:
            StafError: as `train_stage`. MissingData: another shard trains one, and has not yet.
        """
        wanted = sorted(self.profile.experts if names is None else names)
        for name in wanted:
            if name in self.failed:
                raise self.failed[name]
            if name not in self.known:
                try:
                    self._refuse_other_shards(name, wanted)
                    self.known[name] = train_stage(self.context, name, self.profile.of_expert(name), self.out / "experts")
                except StafError as error:
                    self.failed[name] = error
                    raise
        return ExpertSet(tuple(self.known[name] for name in wanted))

    def _refuse_other_shards(self, name: str, wanted: list[str]) -> None:
        """Two processes never train the same expert at the same time."""
        everyone = sorted({*self.profile.experts, *wanted})
        if not self.shard.has(everyone.index(name)) and training_run_of(self.out / "experts" / name) is None:
            raise MissingData(f"expert {name} is trained by another shard. Rerun this one when all have finished.")

    def run(self, spec: RunSpec) -> Scored:
        """The result of a spec, read or made.

        Raises:
            StafError: as its stage; nothing is half written.
        """
        if spec not in self.done:
            try:
                self.done[spec] = self._run(spec)
            except StafError as error:
                self.done[spec] = error
        found = self.done[spec]
        if isinstance(found, StafError):
            raise found
        return found

    def _run(self, spec: RunSpec) -> Scored:
        context, task, profile = self.context, find_task(spec.task), self.profile.of_task(spec.task)
        evaluation, method = profile.evaluation, spec.method
        few_shot = spec.few_shot or method in ("in_context", "lorahub")
        shots = (spec.shots or profile.few_shot.shots) if few_shot else self._normal_shots(task)
        if method == "original":
            return evaluate_stage(context, task, None, Method("original", None), evaluation)
        if method in EXTERNAL:
            return self._external(spec, task, evaluation)
        if method in CLASSIFIERS:
            values = {**profile.classifier, "seed": spec.seed, "encoder": profile.encoder}
            own = parse(ClassifierSettings, values, "classifier of the profile")
            return classifier_stage(context, task, method, shots, own, evaluation, "normal", self._records(spec, task))
        if method in NEEDS_EXPERTS:
            experts = self.experts(spec.experts)
            if method == "lorahub":
                settings = self._baseline("lora", spec.seed, shots)
                return lorahub_stage(context, task, experts, settings, evaluation, "few-shot")
            return evaluate_stage(context, task, experts, self._method(spec, task, profile, experts), evaluation)
        if method == "language_model":
            context, method = self._other_context(), "lora"
        elif method not in BASELINES:
            raise ConfigError(f"{method} is not a method of an experiment.")
        settings, setting = self._baseline(method, spec.seed, shots), "few-shot" if few_shot else "normal"
        return baseline_stage(context, task, settings, evaluation, setting, 0, self._records(spec, task))

    def _baseline(self, method: str, seed: int, shots: int | None) -> BaselineSettings:
        values = {**self.profile.baseline, "method": method, "shots": shots, "seed": seed}
        return parse(BaselineSettings, values, "baseline of the profile")

    def _records(self, spec: RunSpec, task: Task) -> Sequence[Example]:
        """What the expert of the task's own data sees of this task, where the spec is fitted on it too."""
        if not spec.records:
            return ()
        if task.name not in self.records:
            settings = {name: self.profile.of_expert(name) for name in task.datasets}
            self.records[task.name] = training_records(self.context, task, settings)
        return self.records[task.name]

    def _normal_shots(self, task: Task) -> int | None:
        """Adaptation examples of the normal setting; None for all, also where there are no more than the profile takes."""
        most = self.profile.of_task(task.name).normal_shots
        return None if most is None or most >= len(task_examples(task, "adaptation", self.context.store)) else most

    def _external(self, spec: RunSpec, task: Task, evaluation: EvaluationSettings) -> Scored:
        """The result of predictions that another system has made."""
        folder = self.profile.external.get(spec.method)
        if folder is None:
            own = " Or have it trained here: -o language_model= and a hub id or folder." if spec.method == MEDITRON else ""
            raise MissingData(
                f"{EXTERNAL[spec.method]} is not run by staf, and its predictions are not here. Have it answer the test items "
                f"(docs/classifiers.md) and name the folder of its answers: -o 'external={{{spec.method}: FOLDER}}'.{own}"
            )
        return external_stage(self.context, task, spec.method, Path(folder) / f"{task.name}.jsonl", evaluation)

    def _other_context(self) -> Context:
        """The context of another language model."""
        name = self.profile.language_model
        if name is None:
            raise MissingData("the profile names no other language model: -o language_model= and a hub id or folder.")
        if name not in self.others:
            self.others[name] = self.context.of_base(name)
        return self.others[name]

    def _method(self, spec: RunSpec, task: Task, profile: Profile, experts: ExpertSet) -> Method:
        """The weights of experts that are scored."""
        if spec.method == "single":
            return select_single_expert(self.context, task, experts, profile.evaluation)
        if spec.method == "average":
            return named_method(self.context, task, experts, "average", profile.evaluation)
        router, _ = self._router(spec, task, profile, experts)
        return router_method(router, setting_of(spec.shots or _recipe(spec, profile).shots))  # normal may have shots as well

    def _router(self, spec: RunSpec, task: Task, profile: Profile, experts: ExpertSet) -> tuple[Router, Path]:
        """The router of a spec and its folder; first, where it has one, the router that it starts from."""
        found = _recipe(spec, profile)
        shots = spec.shots or found.shots or self._normal_shots(task)
        recipe = found.model_copy(update={"seed": spec.seed, "shots": shots})
        name = f"{spec.router or spec.method}-{shots or 'all'}-{experts.fingerprint}"
        folder = self.out / "routers" / spec.task / name / f"seed-{spec.seed}"
        if recipe.method == "zero_shot":
            return zero_shot_stage(self.context, task, experts, self.out / "experts", recipe, folder), folder
        if recipe.method == "best_expert":
            return best_expert_stage(self.context, task, experts, recipe, folder), folder
        origin = profile.init_from.get(spec.router)
        start = None if origin is None else self._router(replace(spec, router=origin), task, profile, experts)[1]
        return adapt_stage(self.context, task, experts, recipe, folder, start), folder

    def run_all(self, experiment: Experiment) -> Outcomes:
        """Every run of this shard: its result, or why there is none."""
        specs = [spec for i, spec in enumerate(experiment.runs(self.profile.seeds)) if self.shard.has(i)]
        found: Outcomes = {}
        with self.context.progress.bar(experiment.title, len(specs)) as bar:
            for spec in specs:
                tried = spec in self.done
                try:
                    found[spec] = self.run(spec)
                except StafError as error:
                    found[spec] = str(error)
                    if not tried:
                        self.context.progress.log(f"{spec.name}: skipped. {error}")
                bar.advance(1, spec.name)
        return found


def _recipe(spec: RunSpec, profile: Profile) -> RouterRecipe:
    """Of a spec's router, without its seed."""
    named = {"few_shot": profile.few_shot, "normal": profile.normal}
    return profile.extra_routers[spec.router] if spec.router else named[spec.method]


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


def run_on_cluster(experiment: Experiment, runner: Runner, run_context: RunContext) -> None:
    """Train the experts and finish the runs of an experiment on a Ray cluster; failures are reported when runs are read.

    Raises:
        MissingData: Ray is not installed, or its cluster does not answer.
    """
    profile, progress = runner.profile, runner.context.progress
    specs = experiment.runs(profile.seeds)
    names = sorted({name for spec in specs for name in spec.needs(profile)})
    jobs = [TrainingJob(name, profile.of_expert(name), runner.out / "experts", run_context) for name in names]
    for name, error in train_on_ray(jobs, progress).items():
        runner.failed[name] = TrainingFailed(f"expert {name} was not trained. {type(error).__name__}: {error}")
    ready = [spec for spec in specs if runner.failed.keys().isdisjoint(spec.needs(profile))]
    run_ray(experiment.title, [RunJob(spec, profile, runner.out, run_context) for spec in ready], progress)
