"""What each table and figure of the papers is made of: columns, rows, and the cells of the grid where they meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from staf.data.task import find_task
from staf.errors import MissingData
from staf.experiments.cells import MEDITRON, OUTSIDE, WITHOUT_SEEDS, Cell
from staf.experiments.profile import Profile
from staf.routing.recipe import RouterRecipe


@dataclass(frozen=True)
class Column:
    """One task and one metric of it."""

    name: str
    """as the papers name it, or what is varied"""
    task: str
    metric: str


@dataclass(frozen=True)
class Line:
    """One row: a method, with what differs from the profile."""

    method: str
    title: str
    setting: str = "-"
    changes: Mapping[str, object] = field(default_factory=dict)
    """of the cell"""
    name: str = ""
    """as the papers' numbers name it; the method where empty"""

    def with_places(self, places: list[dict[str, Any]]) -> dict[str, Any]:
        """As a result holds it: what it is, and a place for each column."""
        name = self.name or self.method
        return {"name": name, "method": self.method, "title": self.title, "setting": self.setting, "places": places}


@dataclass(frozen=True)
class Plan:
    """A table or figure."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    differs: str
    """what is not as in the papers, besides base and data"""
    counted: bool = False
    """its prompts are counted, and no cell is run"""

    def cells(self, line: Line, column: Column, seeds: int) -> Iterator[Cell]:
        """The cells of one place of the table, one a seed; a method without chance has one, and what is counted none."""
        for seed in range(0 if self.counted else 1 if line.method in WITHOUT_SEEDS else seeds):
            yield Cell(column.task, line.method, seed, **line.changes)  # type: ignore[arg-type]


NORMAL = "normal"
FEW = "few-shot"
_FEW = {"few": True}
_ALONE = (
    Line("original", "Original model"),
    Line("prompt_tuning", "Prompt tuning", NORMAL),
    Line("prefix_tuning", "Prefix tuning", NORMAL),
    Line("p_tuning", "P-tuning", NORMAL),
    Line("lora", "LoRA", NORMAL),
    Line("ia3", "IA3", NORMAL),
)
_OURS = (Line("average", "STAF-LLM average"), Line("normal", "STAF-LLM normal", NORMAL))
_FULL = Line("full", "Full fine-tuning", NORMAL)
_SHOTS = (
    Line("in_context", "In-context learning", FEW),
    Line("lora", "LoRA, the same examples", FEW, _FEW, "lora_few"),
    Line("lorahub", "LoraHub", FEW),
    Line("few_shot", "STAF-LLM few-shot", FEW),
)


def _beyond(profile: Profile) -> tuple[Line, ...]:
    """A row for each router that the papers do not have."""

    def setting(router: RouterRecipe) -> str:
        return "zero-shot" if router.method == "zero_shot" else FEW if router.shots else NORMAL

    return tuple(
        Line("beyond", f"Beyond: {name.replace('_', ' ')}", setting(router), {"router": name}, name)
        for name, router in profile.beyond.items()
    )


AUC = {"icd_coding": "micro_auc", "medication": "micro_f1", "readmission": "macro_auc"}
"""Table 4's metric of each task."""


def _metric(task: str) -> str:
    return find_task(task).metric


def _columns(what: str, stand_ins: Mapping[str, str], *names: str) -> tuple[Column, ...]:
    """A column for each of the papers' tasks of these names that the profile has a stand-in for.

    Raises:
        MissingData: it has none for any.
    """
    found = tuple(
        Column(name, task, AUC.get(name, _metric(task))) for name in names if (task := stand_ins.get(name)) is not None
    )
    if not found:
        raise MissingData(
            f"{what} is of the papers' {', '.join(names)}, and the profile has a stand-in for none of them, only for "
            f"{', '.join(stand_ins) or 'nothing'}. Name one in its unseen_data or unseen_task."
        )
    return found


def table3(profile: Profile) -> Plan:
    """Six tasks of kinds that experts were trained on."""
    columns = tuple(Column(name, task, _metric(task)) for name, task in profile.unseen_data.items())
    lines = (*_ALONE, Line("single", "STAF-LLM single"), *_OURS, _FULL, *_SHOTS, *_beyond(profile))
    return Plan("Table 3: unseen data", columns, lines, "single is the best expert on adaptation examples")


def table4(profile: Profile) -> Plan:
    """Three clinical tasks that no expert was trained on."""
    columns = tuple(Column(name, task, AUC[name]) for name, task in profile.unseen_task.items())
    lines = (*_ALONE, Line("single", "STAF-LLM single"), *_OURS, _FULL, *_SHOTS, *_beyond(profile))
    return Plan("Table 4: unseen tasks", columns, lines, "AUC of ICD coding is micro, over labels and stays")


_LABELS = {"": "micro_auc", " accuracy": "one_minus_hamming_loss", " F1": "micro_f1"}
TABLE5 = {
    "icd_coding": _LABELS,
    "medication": _LABELS,
    "readmission": {"": "macro_auc", " accuracy": "accuracy", " F1": "macro_f1"},
}
"""Table 5's metrics of each task, by what is added to the task's name; AUC first, by which rows are compared on the whole."""


def table5(profile: Profile) -> Plan:
    """The clinical tasks beside text classifiers and other systems, and with an expert of their own data."""
    columns = tuple(
        Column(name + more, task, metric) for name, task in profile.unseen_task.items() for more, metric in TABLE5[name].items()
    )
    titles = {
        "tfidf": "Logistic regression", "cnn": "CNN", "text_cnn": "TextCNN", "rnn": "RNN", "encoder": "Encoder, fine-tuned",
    }  # fmt: skip
    sources = sorted({name for task in profile.unseen_task.values() for name in find_task(task).datasets})
    new = Line("normal", "STAF-LLM new", NORMAL, {"experts": (*profile.experts, *sources)}, "new")
    fitted = (Line(name, title, NORMAL, {"records": True}) for name, title in titles.items())
    outside = [Line(name, title, "external") for name, title in OUTSIDE.items()]
    if profile.causal is not None:
        title = f"{Path(profile.causal).name}, LoRA"
        outside = [
            Line("causal", title, NORMAL, {"records": True}, MEDITRON),
            *(line for line in outside if line.method != MEDITRON),
        ]
    differs = (
        "accuracy of codes and medications is over labels and stays; an encoder and another language model where the profile "
        "names them, and other systems where it names their answers. Classifiers and that model learn from what new has: the "
        "adaptation examples, and of the task's training records those that its expert sees; average and normal have no "
        "training records"
    )
    return Plan("Table 5: beside text classifiers", columns, (*fitted, *outside, *_OURS, new), differs)


def fig5(profile: Profile) -> Plan:
    """ICD coding by the number of labels."""
    columns = tuple(Column(f"{count} labels", task, "micro_auc") for count, task in profile.label_counts.items())
    lines = (Line("original", "Original model"), *(line for line in _SHOTS if line.method in ("in_context", "few_shot")))
    return Plan("Figure 5: AUC by the number of labels", columns, lines, "AUC is micro")


def fig6(profile: Profile) -> Plan:
    """Few-shot routers by the number of examples."""
    columns = _columns("fig6", profile.unseen_data, "pubmedqa", "cliner", "mednli")
    lines = tuple(Line("few_shot", f"{count} examples", FEW, {"shots": count}, str(count)) for count in profile.shots)
    return Plan("Figure 6: few-shot routers by the number of examples", columns, lines, "each task's own metric")


def fig7(profile: Profile) -> Plan:
    """Weights of the experts on three tasks."""
    columns = _columns("fig7", {**profile.unseen_data, **profile.unseen_task}, "pubmedqa", "cliner", "medication")
    return Plan("Figure 7: weights of the experts", columns, _OURS[1:], "the papers' third task is medication")


def fig8(profile: Profile) -> Plan:
    """Normal routers by the number of experts."""
    columns = _columns("fig8", {**profile.unseen_data, **profile.unseen_task}, "emrqa", "medication", "readmission")
    lines = [Line("original", "Original model")]
    for count in profile.expert_counts:
        lines.append(Line("normal", f"{count} experts", NORMAL, {"experts": tuple(profile.experts[:count])}, str(count)))
    return Plan("Figure 8: normal routers by the number of experts", columns, tuple(lines), "experts in the profile's order")


def cross_domain(profile: Profile) -> Plan:
    """Named entities, with the expert for them taken from another domain."""
    columns = _columns("cross-domain", profile.unseen_data, "cliner")
    kept = tuple(name for name in profile.experts if name != "named_entity_recognition")
    foreign = {"experts": (*kept, profile.outside_expert)}
    lines = (
        Line("original", "Original model"),
        Line("normal", "STAF-LLM normal", NORMAL, {}, "all_medical"),
        Line("normal", "STAF-LLM cross-domain", NORMAL, foreign),
    )
    return Plan("Section 5.1: an expert of another domain", columns, lines, "")


def tokens(profile: Profile) -> Plan:
    """What in-context learning and a few-shot router read for one answer."""
    columns = tuple(Column(name, task, "prompt_tokens") for name, task in profile.unseen_data.items())
    lines = tuple(line for line in _SHOTS if line.method in ("in_context", "few_shot"))
    differs = "prompts are counted after cutting, both at the limit of in-context learning, answer included"
    return Plan("Section 5.2: tokens read for one answer", columns, lines, differs, counted=True)


PLANS: dict[str, Callable[[Profile], Plan]] = {
    "table3": table3, "table4": table4, "table5": table5, "fig5": fig5, "fig6": fig6, "fig7": fig7, "fig8": fig8,
    "cross-domain": cross_domain, "tokens": tokens,
}  # fmt: skip
