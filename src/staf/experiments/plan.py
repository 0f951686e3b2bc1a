"""What each table and figure of the papers is made of (papers.yaml): columns, rows, and the runs of each cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from staf.config import Settings, load_values, parse
from staf.data.task import find_task
from staf.errors import MissingData, UnknownName
from staf.experiments.profile import Profile
from staf.report.formatting import METHODS
from staf.report.results import TABLES, Column

EXTERNAL = ("meditron", "g_bert", "medm_plm")
"""Systems of Table 5 that staf does not run; their predictions are read."""
DETERMINISTIC = ("original", "single", "average", "nearest_label", *EXTERNAL)
"""Methods of which one run stands for all seeds."""
ROUTERS = ("few_shot", "normal", "route_then_tune", "extra")
NEEDS_EXPERTS = (*ROUTERS, "single", "average", "lorahub")
OF_ONE_LABEL = {"micro_auc": "macro_auc", "one_minus_hamming_loss": "accuracy", "micro_f1": "macro_f1"}
"""What takes the place of a metric of several labels where one is right."""
TUNED = ("prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full")
"""Rows that the papers compare with the base model."""


@dataclass(frozen=True)
class RunSpec:
    """What one run is of."""

    task: str
    method: str
    seed: int = 0
    few_shot: bool = False  # baselines: the few-shot setting
    shots: int | None = None  # few-shot: examples, where they are not the profile's
    experts: tuple[str, ...] | None = None  # None takes the profile's
    records: bool = False  # classifiers, baselines: fitted also on what an expert of the task's data sees, its training set
    pooled: bool = False  # baselines: fitted also on what all experts of the profile see
    router: str = ""  # extra: which of the profile's

    @property
    def name(self) -> str:
        """As messages print it."""
        more = [self.router, "few-shot" if self.few_shot else "", f"{self.shots} shots" if self.shots else ""]
        more += [
            "training set" if self.records else "",
            "experts' data" if self.pooled else "",
            f"{len(self.experts)} experts" if self.experts else "",
        ]
        return " ".join(part for part in (self.task, self.method, *more, f"seed {self.seed}") if part)

    def needs(self, profile: Profile) -> tuple[str, ...]:
        """The experts that the run needs."""
        return tuple(self.experts or profile.experts) if self.method in NEEDS_EXPERTS else ()


class Row(Settings):
    """A method, with what differs in its runs."""

    method: str
    setting: str = "-"
    name: str = ""
    title: str = ""
    run: dict[str, Any] = Field(default_factory=dict)
    each: Literal["", "extra_routers", "shots", "expert_counts"] = ""
    experts: Literal["", "foreign", "own_data"] = ""

    def of(self, profile: Profile, tasks: list[str]) -> Iterator[Row]:
        """The rows that this one stands for with a profile, over columns of these tasks."""
        kept = tuple(profile.experts)
        if self.experts == "foreign":
            experts = (*(name for name in kept if name != "named_entity_recognition"), profile.foreign_expert)
            yield self._with(run={"experts": experts})
        elif self.experts == "own_data":
            sources = sorted({dataset for task in tasks for dataset in find_task(task).datasets})
            yield self._with(run={"experts": (*kept, *sources)})
        elif self.each == "extra_routers":
            for name, router in profile.extra_routers.items():
                setting = "zero-shot" if router.method == "zero_shot" else "few-shot" if router.shots else "normal"
                yield self._with(setting=setting, run={"router": name}, name=name, title=f"Extra: {name.replace('_', ' ')}")
        elif self.each == "shots":
            for count in profile.shots:
                yield self._with(run={"shots": count}, name=str(count), title=f"{count} examples")
        elif self.each == "expert_counts":
            for count in profile.expert_counts:
                yield self._with(run={"experts": kept[:count]}, name=str(count), title=f"{count} experts")
        elif self.method == "meditron" and profile.language_model is not None:
            title = f"{Path(profile.language_model).name}, LoRA"
            yield self._with(
                method="language_model", setting="training set", run={"records": True}, name=self.method, title=title
            )
        elif profile.training_set and self.setting == "normal" and self.method in (*TUNED, "tfidf", "embedding"):
            yield self._with(setting="training set", run={"records": True})
            if self.method == "lora":
                yield self._with(name="lora_normal", title="LoRA, the examples of the normal router")
            if self.method == "full":
                more = {"name": "full_experts", "title": "Full fine-tuning, the data of all experts"}
                yield self._with(setting="experts' data", run={"pooled": True}, **more)
        else:
            yield self._with()

    def _with(self, **changes: Any) -> Row:
        row = self.model_copy(update=changes)
        title = row.title or METHODS.get(row.method, row.method).partition(" (")[0]
        return row.model_copy(update={"name": row.name or row.method, "title": title})


class Experiment(Settings):
    """A table or figure, as papers.yaml declares it and with the columns and rows of a profile."""

    title: str
    tasks: tuple[Literal["unseen_data", "unseen_task", "label_counts"], ...]
    only: tuple[str, ...] = ()
    without: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    experts: tuple[str, ...] = ()
    fewer_seeds: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, dict[str, str]] = Field(default_factory=dict)
    rows: tuple[Row, ...]
    differs: str = ""
    counts_tokens: bool = False
    printed: dict[str, dict[str, list[Any]]] = Field(default_factory=dict)
    columns: tuple[Column, ...] = ()

    def of(self, name: str, profile: Profile) -> Experiment:
        """With the columns and rows of a profile; raises as `find_experiment`."""
        tasks = {str(paper): task for kind in self.tasks for paper, task in getattr(profile, kind).items()}
        tasks |= {task: task for task in self.without}
        columns = []
        for paper in (name for name in self.only or tasks if name in tasks):
            task = tasks[paper]
            metrics = self.metrics.get(paper) or self.metrics.get("*") or {"": find_task(task).metric}
            shown = f"{paper} labels" if self.tasks == ("label_counts",) else paper
            one_label = OF_ONE_LABEL if find_task(task).output_type == "multiple_choice" else {}
            for more, metric in metrics.items():
                metric = one_label.get(metric, metric)
                columns.append(Column(name=shown + more, task=task, title=find_task(task).title, metric=metric))
        if not columns:
            raise MissingData(
                f"{name} is of the papers' {', '.join(self.only)}, and the profile has a task for none of them, only for "
                f"{', '.join(tasks) or 'nothing'}. Name one in its unseen_data or unseen_task."
            )
        used = [column.task for column in columns]
        rows = [made for row in self.rows for made in row.of(profile, used)]
        of_profile = {"experts": tuple(profile.experts), "fewer_seeds": profile.fewer_seeds}
        return self.model_copy(update={"columns": tuple(columns), "rows": tuple(rows), **of_profile})

    def cell(self, row: Row, column: Column, seeds: int) -> Iterator[RunSpec]:
        """The runs of one cell, one a seed of at most `seeds`; a deterministic method has one."""
        known = (row.name, row.setting, find_task(column.task).output_type)
        most = min([seeds, *(self.fewer_seeds[name] for name in known if name in self.fewer_seeds)])
        for seed in range(0 if self.counts_tokens else 1 if row.method in DETERMINISTIC else most):
            run = dict(row.run)
            if (left_out := self.without.get(column.task)) and row.method in NEEDS_EXPERTS:
                run["experts"] = tuple(name for name in self.experts if name not in left_out)
            yield RunSpec(column.task, row.method, seed, **run)

    def runs(self, seeds: int) -> list[RunSpec]:
        """Every run once, seed by seed, so that an interrupted table is complete for the seeds that are finished."""
        specs = dict.fromkeys(spec for row in self.rows for column in self.columns for spec in self.cell(row, column, seeds))
        return sorted(specs, key=lambda spec: spec.seed)

    def pairs(self) -> list[tuple[Row, Row]]:
        """Rows that are compared: our routers with every other row, and whatever else the papers compare."""
        found = [(ours, other) for ours in self.rows if ours.method in ROUTERS for other in self.rows if other != ours]
        named = {row.name: row for row in self.rows}
        also = [("single", "average"), ("single", "lora"), ("average", "lora")]
        also += [(row.name, "original") for row in self.rows if row.method in TUNED]
        return found + [(named[ours], named[other]) for ours, other in also if ours in named and other in named]


@cache
def declared_experiments() -> dict[str, Experiment]:
    """The experiments of papers.yaml in the papers' order, without the columns of a profile."""
    file = Path(str(resources.files("staf") / "experiments" / "papers.yaml"))
    values = load_values(file)
    return {name: parse(Experiment, values[name], f"{file}, {name}") for name in TABLES}


def find_experiment(name: str, profile: Profile) -> Experiment:
    """A table or figure with a profile's tasks.

    Raises:
        UnknownName: there is no such one. MissingData: the profile has a task for none of its columns.
    """
    if name not in TABLES:
        raise UnknownName.among("table or figure", name, TABLES)
    return declared_experiments()[name].of(name, profile)
