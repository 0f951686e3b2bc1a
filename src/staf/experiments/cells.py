"""One cell of a grid: a task, a method, a seed. Each is a run of its own, skipped when it is finished."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from staf.baselines import BASELINES
from staf.baselines.classifiers import CLASSIFIERS
from staf.baselines.classifiers.settings import ClassifierSettings
from staf.baselines.settings import BaselineSettings
from staf.config import parse
from staf.data.example import Example
from staf.data.selection import task_examples
from staf.data.task import Task, find_task
from staf.engines import RunContext
from staf.errors import MissingData, StafError
from staf.evaluate import Method, setting_of
from staf.evaluate.settings import EvaluationSettings
from staf.experiments.profile import Profile
from staf.experts.store import Expert, ExpertSet
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
from staf.stages.evaluation import Scored

MEDITRON = "meditron"
"""Table 5's other language model: a row that another system answers, or that staf trains where the profile names it."""
OUTSIDE = {MEDITRON: "Meditron 7B", "g_bert": "ClinicalBERT + G-BERT", "medm_plm": "MedM-PLM"}
"""Systems of Table 5 that staf does not run, with their printed names; their predictions are read."""
WITHOUT_SEEDS = ("original", "single", "average", *OUTSIDE)
"""Methods without chance: one run is all seeds."""
ROUTERS = ("few_shot", "normal", "beyond")
NEEDS_EXPERTS = (*ROUTERS, "single", "average", "lorahub")


@dataclass(frozen=True)
class Cell:
    """What one run is of."""

    task: str
    method: str
    seed: int = 0
    few: bool = False
    """baselines: the few-shot setting"""
    shots: int | None = None
    """few-shot: examples, where they are not the profile's"""
    experts: tuple[str, ...] | None = None
    """None takes the profile's"""
    records: bool = False
    """classifiers, and another language model: fitted also on what an expert of the task's own data is trained on"""
    router: str = ""
    """beyond the papers: which of the profile's"""

    @property
    def name(self) -> str:
        """As messages print it."""
        more = [self.router, "few-shot" if self.few else "", f"{self.shots} shots" if self.shots else ""]
        more.append(f"{len(self.experts)} experts" if self.experts else "")
        return " ".join(part for part in (self.task, self.method, *more, f"seed {self.seed}") if part)


@dataclass(frozen=True)
class Grid:
    """Where cells are run: a context, a profile, a folder for experts and routers."""

    context: Context
    profile: Profile
    out: Path
    known: dict[str, Expert] = field(default_factory=dict, compare=False)
    """experts that were asked for before: to see that one is as trained takes reading all of its data"""
    failed: dict[str, StafError] = field(default_factory=dict, compare=False)
    """experts that could not be trained, which no other cell tries again"""
    records: dict[str, list[Example]] = field(default_factory=dict, compare=False)
    """by task, what classifiers are fitted on besides adaptation examples"""
    others: dict[str, Context] = field(default_factory=dict, compare=False)
    """sessions of other bases, each of which is loaded once"""
    done: dict[Cell, Scored | StafError] = field(default_factory=dict, compare=False)
    """cells that were run or read before, or could not be: tables and figures share many"""

    def up_to(self, seeds: int) -> Grid:
        """This grid with so many seeds; what is known and done is shared."""
        return replace(self, profile=self.profile.model_copy(update={"seeds": seeds}))

    def experts(self, names: tuple[str, ...] | None = None) -> ExpertSet:
        """Experts, trained where they are not there yet."""
        wanted = sorted(self.profile.experts if names is None else names)
        for name in wanted:
            if name not in self.known:
                self._train(name)
        return ExpertSet(tuple(self.known[name] for name in wanted))

    def _train(self, name: str) -> None:
        if name in self.failed:
            raise self.failed[name]
        try:
            self.known[name] = train_stage(self.context, name, self.profile.of_expert(name), self.out / "experts")
        except StafError as error:
            self.failed[name] = error
            raise

    def _records(self, task: Task) -> list[Example]:
        """What the expert of the task's own data sees of this task."""
        if task.name not in self.records:
            settings = {name: self.profile.of_expert(name) for name in task.datasets}
            self.records[task.name] = training_records(self.context, task, settings)
        return self.records[task.name]

    def _normal_shots(self, task: Task) -> int | None:
        """Adaptation examples of the normal setting; None for all, also where there are no more than the profile takes."""
        most = self.profile.of_task(task.name).normal_shots
        return None if most is None or most >= len(task_examples(task, "adaptation", self.context.store)) else most

    def run(self, cell: Cell) -> Scored:
        """The result of a cell, read or made.

        Raises:
            StafError: any of what a stage raises; nothing is half written.
        """
        if cell not in self.done:
            try:
                self.done[cell] = self._run(cell)
            except StafError as error:
                self.done[cell] = error
        found = self.done[cell]
        if isinstance(found, StafError):
            raise found
        return found

    def _run(self, cell: Cell) -> Scored:
        context, task, profile = self.context, find_task(cell.task), self.profile.of_task(cell.task)
        evaluation = profile.evaluation
        few = cell.few or cell.method in ("few_shot", "in_context", "lorahub")
        shots = (cell.shots or profile.few_shot.shots) if few else self._normal_shots(task)
        if cell.method == "original":
            return evaluate_stage(context, task, None, Method("original", None), evaluation)
        if cell.method in CLASSIFIERS:
            values = {**profile.classifier, "seed": cell.seed, "encoder": profile.encoder}
            own = parse(ClassifierSettings, values, "classifier of the profile")
            records = self._records(task) if cell.records else ()
            return classifier_stage(context, task, cell.method, shots, own, evaluation, "normal", records)
        if cell.method in OUTSIDE:
            return self._outside(cell, task, evaluation)
        if cell.method == "causal":
            return self._causal(cell, task, evaluation, shots)
        if cell.method in BASELINES or cell.method == "lorahub":
            method = "lora" if cell.method == "lorahub" else cell.method
            values = {**profile.baseline, "method": method, "shots": shots, "seed": cell.seed}
            settings = parse(BaselineSettings, values, "baseline of the profile")
            setting = "few-shot" if few else "normal"
            if cell.method == "lorahub":
                return lorahub_stage(context, task, self.experts(cell.experts), settings, evaluation, setting)
            return baseline_stage(context, task, settings, evaluation, setting, search_seed=0)
        experts = self.experts(cell.experts)
        if cell.method == "single":
            return evaluate_stage(context, task, experts, select_single_expert(context, task, experts, evaluation), evaluation)
        if cell.method not in ROUTERS:
            return evaluate_stage(
                context, task, experts, named_method(context, task, experts, cell.method, evaluation), evaluation
            )
        return self._routed(cell, task, profile, experts)

    def _outside(self, cell: Cell, task: Task, evaluation: EvaluationSettings) -> Scored:
        """The result of predictions that another system has made."""
        folder = self.profile.outside.get(cell.method)
        if folder is None:
            raise MissingData(
                f"{OUTSIDE[cell.method]} is not run by staf, and its predictions are not here. Have it answer the test items "
                f"(docs/classifiers.md) and name the folder of its answers: -o 'outside={{{cell.method}: FOLDER}}'."
                + (" Or have it trained here: -o causal= and a hub id or folder." if cell.method == MEDITRON else "")
            )
        return external_stage(self.context, task, cell.method, Path(folder) / f"{task.name}.jsonl", evaluation)

    def _causal(self, cell: Cell, task: Task, evaluation: EvaluationSettings, shots: int | None) -> Scored:
        """The result of another language model, which learns by LoRA from what new has."""
        name = self.profile.causal
        if name is None:
            raise MissingData("the profile names no other language model: -o causal= and a hub id or folder, of Meditron say.")
        if name not in self.others:
            self.others[name] = self.context.of_base(name)
        values = {**self.profile.baseline, "method": "lora", "shots": shots, "seed": cell.seed}
        settings = parse(BaselineSettings, values, "baseline of the profile")
        records = self._records(task) if cell.records else ()
        return baseline_stage(self.others[name], task, settings, evaluation, "normal", search_seed=0, records=records)

    def _routed(self, cell: Cell, task: Task, profile: Profile, experts: ExpertSet) -> Scored:
        """The result of a router that is learned for the cell."""
        router, _ = self._router(cell, task, profile, experts)
        setting = setting_of(
            cell.shots or _settings(cell, profile).shots
        )  # the normal setting may have a number of shots as well
        return evaluate_stage(self.context, task, experts, router_method(router, setting), profile.evaluation)

    def _router(self, cell: Cell, task: Task, profile: Profile, experts: ExpertSet) -> tuple[Router, Path]:
        """The router of a cell and its folder; first, where it has one, the router that it starts from."""
        found = _settings(cell, profile)
        shots = cell.shots or found.shots or self._normal_shots(task)
        settings = found.model_copy(update={"seed": cell.seed, "shots": shots})
        name = f"{cell.router or cell.method}-{shots or 'all'}-{experts.fingerprint}"
        where = self.out / "routers" / cell.task / name / f"seed-{cell.seed}"
        if settings.method == "zero_shot":
            return zero_shot_stage(self.context, task, experts, self.out / "experts", settings, where), where
        if settings.method == "best_expert":
            return best_expert_stage(self.context, task, experts, settings, where), where
        origin = profile.starts.get(cell.router)
        start = None if origin is None else self._router(replace(cell, router=origin), task, profile, experts)[1]
        return adapt_stage(self.context, task, experts, settings, where, start), where


def _settings(cell: Cell, profile: Profile) -> RouterRecipe:
    """Of a cell's router, without its seed."""
    found: RouterRecipe = profile.beyond[cell.router] if cell.router else getattr(profile, cell.method)
    return found


@dataclass(frozen=True)
class CellJob:
    """A cell for a cluster's worker."""

    cell: Cell
    profile: Profile
    out: Path
    run_context: RunContext

    @property
    def name(self) -> str:
        """Of the cell."""
        return self.cell.name

    def run(self, context: Context) -> None:
        """Its run is there afterwards; raises as `Grid.run`."""
        Grid(context, self.profile, self.out).run(self.cell)
