"""What each table and figure of the papers is made of: columns, rows, and the runs of each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from staf.baselines.classifiers import CLASSIFIERS
from staf.data.registry import find_task
from staf.errors import MissingData, UnknownName
from staf.experiments.profile import Profile
from staf.report.formatting import METHODS

MEDITRON = "meditron"
"""Table 5's other language model: predictions of another system are read, or staf trains the one that the profile names."""
EXTERNAL = {MEDITRON: "Meditron 7B", "g_bert": "ClinicalBERT + G-BERT", "medm_plm": "MedM-PLM"}
"""Systems of Table 5 that staf does not run, with their printed names; their predictions are read."""
DETERMINISTIC = ("original", "single", "average", *EXTERNAL)
"""Methods of which one run stands for all seeds."""
ROUTERS = ("few_shot", "normal", "extra")
NEEDS_EXPERTS = (*ROUTERS, "single", "average", "lorahub")
TUNED = ("prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full")
"""Rows that the papers compare with the base model."""
NORMAL, FEW = "normal", "few-shot"


@dataclass(frozen=True)
class RunSpec:
    """What one run is of."""

    task: str
    method: str
    seed: int = 0
    few_shot: bool = False
    """baselines: the few-shot setting"""
    shots: int | None = None
    """few-shot: examples, where they are not the profile's"""
    experts: tuple[str, ...] | None = None
    """None takes the profile's"""
    records: bool = False
    """classifiers, and another language model: fitted also on what an expert of the task's own data is trained on"""
    router: str = ""
    """extra: which of the profile's"""

    @property
    def name(self) -> str:
        """As messages print it."""
        more = [self.router, FEW if self.few_shot else "", f"{self.shots} shots" if self.shots else ""]
        more.append(f"{len(self.experts)} experts" if self.experts else "")
        return " ".join(part for part in (self.task, self.method, *more, f"seed {self.seed}") if part)

    def needs(self, profile: Profile) -> tuple[str, ...]:
        """The experts that the run needs."""
        return tuple(self.experts or profile.experts) if self.method in NEEDS_EXPERTS else ()


@dataclass(frozen=True)
class Column:
    """One task and one metric of it."""

    name: str
    """as the papers name it, or what is varied"""
    task: str
    metric: str


@dataclass(frozen=True)
class Row:
    """A method, with what differs from the profile."""

    method: str
    setting: str = "-"
    changes: Mapping[str, object] = field(default_factory=dict)
    """of the runs"""
    id: str = ""
    """as the papers' numbers name it; the method where empty"""
    own_title: str = ""

    @property
    def name(self) -> str:
        """As results name it."""
        return self.id or self.method

    @property
    def title(self) -> str:
        """As tables print it."""
        return self.own_title or METHODS.get(self.method, self.method).partition(" (")[0]


@dataclass(frozen=True)
class Experiment:
    """A table or figure."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    differs: str
    """what is not as in the papers, besides base and data"""
    counts_tokens: bool = False
    """prompts are counted and nothing is run"""

    def cell(self, row: Row, column: Column, seeds: int) -> Iterator[RunSpec]:
        """The runs of one cell, one a seed; a deterministic method has one."""
        for seed in range(0 if self.counts_tokens else 1 if row.method in DETERMINISTIC else seeds):
            yield RunSpec(column.task, row.method, seed, **row.changes)  # type: ignore[arg-type]

    def runs(self, seeds: int) -> list[RunSpec]:
        """Every run once, seed by seed, so that an interrupted table is complete for the seeds that are finished."""
        cells = [(row, column) for row in self.rows for column in self.columns]
        specs = dict.fromkeys(spec for row, column in cells for spec in self.cell(row, column, seeds))
        return sorted(specs, key=lambda spec: spec.seed)


_BASE, _AVERAGE, _NORMAL = Row("original"), Row("average"), Row("normal", NORMAL)
_IN_CONTEXT, _FEW_SHOT = Row("in_context", FEW), Row("few_shot", FEW)
_METHODS = (
    _BASE,
    *(Row(method, NORMAL) for method in ("prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3")),
    Row("single"),
    _AVERAGE,
    _NORMAL,
    Row("full", NORMAL),
    _IN_CONTEXT,
    Row("lora", FEW, {"few_shot": True}, "lora_few", "LoRA, the same examples"),
    Row("lorahub", FEW),
    _FEW_SHOT,
)
_LABELS = {"": "micro_auc", " accuracy": "one_minus_hamming_loss", " F1": "micro_f1"}
TABLE5 = {
    "icd_coding": _LABELS,
    "medication": _LABELS,
    "readmission": {"": "macro_auc", " accuracy": "accuracy", " F1": "macro_f1"},
}
"""Table 5's metrics of each task, by what is added to the task's name; rows are compared over the columns by the first, AUC."""
TABLE4 = {"icd_coding": "micro_auc", "medication": "micro_f1", "readmission": "macro_auc"}
"""Table 4's metric of each task."""


def _methods(profile: Profile) -> tuple[Row, ...]:
    """The rows of Tables 3 and 4, with a row for each router that the papers do not have."""
    extra = []
    for name, router in profile.extra_routers.items():
        setting = "zero-shot" if router.method == "zero_shot" else FEW if router.shots else NORMAL
        extra.append(Row("extra", setting, {"router": name}, name, f"Extra: {name.replace('_', ' ')}"))
    return (*_METHODS, *extra)


def _columns(what: str, tasks: Mapping[str, str], *names: str) -> tuple[Column, ...]:
    """A column for each of the papers' tasks of these names that the profile has a task for.

    Raises:
        MissingData: it has none for any.
    """
    found = tuple(Column(n, tasks[n], TABLE4.get(n) or find_task(tasks[n]).metric) for n in names if n in tasks)
    if not found:
        raise MissingData(
            f"{what} is of the papers' {', '.join(names)}, and the profile has a task for none of them, only for "
            f"{', '.join(tasks) or 'nothing'}. Name one in its unseen_data or unseen_task."
        )
    return found


def table3(profile: Profile) -> Experiment:
    """Six tasks of kinds that experts were trained on."""
    columns = _columns("table3", profile.unseen_data, *profile.unseen_data)
    return Experiment("Table 3: unseen data", columns, _methods(profile), "single is the best expert on adaptation examples")


def table4(profile: Profile) -> Experiment:
    """Three clinical tasks that no expert was trained on."""
    columns = _columns("table4", profile.unseen_task, *profile.unseen_task)
    return Experiment("Table 4: unseen tasks", columns, _methods(profile), "AUC of ICD coding is micro, over labels and stays")


def table5(profile: Profile) -> Experiment:
    """The clinical tasks with text classifiers and other systems, and with an expert of their own data."""
    tasks = profile.unseen_task
    columns = tuple(Column(name + more, tasks[name], m) for name in tasks for more, m in TABLE5[name].items())
    sources = sorted({dataset for task in tasks.values() for dataset in find_task(task).datasets})
    rows = [Row(name, NORMAL, {"records": True}) for name in CLASSIFIERS]
    for name, title in EXTERNAL.items():
        if name == MEDITRON and profile.language_model is not None:
            title = f"{Path(profile.language_model).name}, LoRA"
            rows.append(Row("language_model", NORMAL, {"records": True}, MEDITRON, title))
        else:
            rows.append(Row(name, "external", own_title=title))
    own = "Normal router, an expert of the task's own data"
    new = Row("normal", NORMAL, {"experts": (*profile.experts, *sources)}, "new", own)
    differs = (
        "accuracy of codes and medications is over labels and stays; an encoder and another language model where the profile "
        "names them, and other systems where it names their answers. Classifiers and that model learn from what new has: the "
        "adaptation examples, and those of the task's training records that its expert sees; average and normal have no "
        "training records"
    )
    return Experiment("Table 5: text classifiers", columns, (*rows, _AVERAGE, _NORMAL, new), differs)


def fig5(profile: Profile) -> Experiment:
    """ICD coding by the number of labels."""
    columns = tuple(Column(f"{count} labels", task, "micro_auc") for count, task in profile.label_counts.items())
    return Experiment("Figure 5: AUC by the number of labels", columns, (_BASE, _IN_CONTEXT, _FEW_SHOT), "AUC is micro")


def fig6(profile: Profile) -> Experiment:
    """Few-shot routers by the number of examples."""
    columns = _columns("fig6", profile.unseen_data, "pubmedqa", "cliner", "mednli")
    rows = tuple(Row("few_shot", FEW, {"shots": count}, str(count), f"{count} examples") for count in profile.shots)
    return Experiment("Figure 6: few-shot routers by the number of examples", columns, rows, "each task's own metric")


def fig7(profile: Profile) -> Experiment:
    """Weights of the experts on three tasks."""
    columns = _columns("fig7", {**profile.unseen_data, **profile.unseen_task}, "pubmedqa", "cliner", "medication")
    return Experiment("Figure 7: weights of the experts", columns, (_NORMAL,), "the papers' third task is medication")


def fig8(profile: Profile) -> Experiment:
    """Normal routers by the number of experts."""
    columns = _columns("fig8", {**profile.unseen_data, **profile.unseen_task}, "emrqa", "medication", "readmission")
    rows = [_BASE]
    for count in profile.expert_counts:
        rows.append(Row("normal", NORMAL, {"experts": tuple(profile.experts[:count])}, str(count), f"{count} experts"))
    title = "Figure 8: normal routers by the number of experts"
    return Experiment(title, columns, tuple(rows), "experts in the profile's order")


def cross_domain(profile: Profile) -> Experiment:
    """Named entities, with the expert for them taken from another domain."""
    kept = tuple(name for name in profile.experts if name != "named_entity_recognition")
    rows = (
        _BASE,
        Row("normal", NORMAL, {}, "all_medical", "Normal router, all medical experts"),
        Row("normal", NORMAL, {"experts": (*kept, profile.foreign_expert)}, "", "Normal router, an expert of another domain"),
    )
    columns = _columns("cross-domain", profile.unseen_data, "cliner")
    return Experiment("Section 5.1: an expert of another domain", columns, rows, "")


def tokens(profile: Profile) -> Experiment:
    """What in-context learning and a few-shot router read for one answer."""
    columns = tuple(Column(name, task, "prompt_tokens") for name, task in profile.unseen_data.items())
    differs = "prompts are counted after truncation, both at the limit of in-context learning, answer included"
    return Experiment("Section 5.2: tokens read for one answer", columns, (_IN_CONTEXT, _FEW_SHOT), differs, counts_tokens=True)


EXPERIMENTS: dict[str, Callable[[Profile], Experiment]] = {
    "table3": table3, "table4": table4, "table5": table5, "fig5": fig5, "fig6": fig6, "fig7": fig7, "fig8": fig8,
    "cross-domain": cross_domain, "tokens": tokens,
}  # fmt: skip


def find_experiment(name: str, profile: Profile) -> Experiment:
    """A table or figure with a profile's tasks.

    Raises:
        UnknownName: there is no such one. MissingData: the profile has a task for none of its columns.
    """
    if name not in EXPERIMENTS:
        raise UnknownName.among("table or figure", name, EXPERIMENTS)
    return EXPERIMENTS[name](profile)


def pairs(experiment: Experiment) -> list[tuple[Row, Row]]:
    """Rows that are compared: our routers with every other row, and whatever else the papers compare."""
    found = [(ours, other) for ours in experiment.rows if ours.method in ROUTERS for other in experiment.rows if other != ours]
    named = {row.name: row for row in experiment.rows}
    also = (("single", "average"), ("single", "lora"), ("average", "lora"))
    found += [(named[ours], named[other]) for ours, other in also if ours in named and other in named]
    return found + [(row, named["original"]) for row in experiment.rows if row.method in TUNED and "original" in named]
