"""What each change of the protocol is worth by itself, on development items that no table tests.

    python benchmarks/protocol_changes.py run --experts experts --out changes --rows original,few_shot,lora
    python benchmarks/protocol_changes.py table --experts experts --out changes --seeds 5

A task's development items are half of the groups of its adaptation split; its shots are drawn from the other half. A run that
is finished is read, so both commands can be repeated and several can run at once. Scoring rules are compared on one run's
scores: the mean is the sum by a label's tokens, calibration takes off each label's mean.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from staf.baselines.peft import Choice
from staf.baselines.settings import BaselineSettings, ClassifierSettings
from staf.data.example import LABEL_TYPES, Example
from staf.data.selection import task_examples
from staf.data.splits import split_of
from staf.data.store import DataStore
from staf.data.task import Task
from staf.evaluate.answer import Predictions, batch_calibrated
from staf.evaluate.score import Method, router_method, sample
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet, load_experts
from staf.lm.base import load_tokenizer
from staf.lm.batches import encode_answer
from staf.log import StderrProgress
from staf.metrics.by_output_type import metric_of_runs
from staf.metrics.stats import compare_seeds, measure_seeds
from staf.routing.recipe import RouterRecipe
from staf.runs import Run
from staf.stages.adaptation import adapt_stage
from staf.stages.context import Context
from staf.stages.evaluation import baseline_stage, classifier_stage, evaluate_stage

LENGTHS = {"causal_language": 192, "trial_effect": 320, "icd10_relation": 192, "ncbi_disease": 256}
"""Tokens of an item by development task; none of its items is cut."""
LABELS = ("causal_language", "trial_effect", "icd10_relation")
ITEMS, ENTITY_ITEMS = 120, 60
SHOWN = (4, 8, 16, 32)
RATE = 5e-4


class DevelopmentStore(DataStore):
    """Half of the groups of each adaptation split are to be adapted to, the other half is what is tested."""

    def examples(self, name: str, kind: str, split: str, form: str | None = None, **options: bool) -> list[Example]:
        """Examples of one split; `test` and `adaptation` are the halves."""
        if split not in ("test", "adaptation"):
            return super().examples(name, kind, split, form, **options)
        found = super().examples(name, kind, "adaptation", form, **options)
        halves = [replace(one, split=split_of(f"development:{one.group or one.id}", (0, 50, 50))) for one in found]
        return [one for one in halves if one.split == split]


@dataclass(frozen=True)
class Bench:
    """What all arms share."""

    context: Context
    experts: ExpertSet
    out: Path

    @property
    def index(self) -> Path:
        """Arm, task, seed and folder of each finished run, a line of JSON each."""
        return self.out / "index.jsonl"

    def evaluation(self, task: Task, **changed: Any) -> EvaluationSettings:
        """Settings of a task's scoring: sums of log-likelihoods unless changed."""
        items = ITEMS if task.output_type in LABEL_TYPES else ENTITY_ITEMS
        usual = {"scoring": "sum", "max_length": LENGTHS[task.name], "limit": items, "max_new_tokens": 48, "resamples": 100}
        return EvaluationSettings(**usual | changed)


Arm = Callable[[Bench, Task, int], Run]


@dataclass(frozen=True)
class Named:
    """An arm, the row it belongs to, and the tasks it is for."""

    row: str
    run: Arm
    tasks: tuple[str, ...] = LABELS
    seeded: bool = True


def original(**changed: Any) -> Arm:
    """The base model with changed settings of scoring."""
    return lambda b, task, seed: evaluate_stage(b.context, task, None, Method("original", None), b.evaluation(task, **changed))[
        1
    ]


def in_context(shown: int, **changed: Any) -> Arm:
    """In-context learning with so many of the 32 shots."""

    def run(b: Bench, task: Task, seed: int) -> Run:
        settings = BaselineSettings(method="in_context", shots=32, shown=shown, seed=seed)
        return baseline_stage(b.context, task, settings, b.evaluation(task, **changed))[1]

    return run


def lora(rate: float, label_end: bool) -> Arm:
    """LoRA on 32 shots, 80 steps of 4 at one rate."""

    def run(b: Bench, task: Task, seed: int) -> Run:
        settings = BaselineSettings(method="lora", shots=32, batch_size=4, seed=seed, label_end=label_end)
        b.context.detach_experts()
        return baseline_stage(b.context, task, settings, b.evaluation(task), choice=Choice(rate, 10, []))[1]

    return run


def router(name: str, **values: Any) -> Arm:
    """A router by a recipe, on 32 shots unless it says otherwise."""

    def run(b: Bench, task: Task, seed: int) -> Run:
        given = {"method": "cma", "shots": 32, "max_evaluations": 24, "popsize": 8} | values
        recipe = RouterRecipe(**given, max_length=LENGTHS[task.name], seed=seed)
        made = adapt_stage(b.context, task, b.experts, recipe, b.out / "routers" / task.name / f"{name}-{seed}")
        return evaluate_stage(b.context, task, b.experts, router_method(made), b.evaluation(task))[1]

    return run


def classifier(method: str) -> Arm:
    """A row without a language model, on 32 shots."""
    return lambda b, task, seed: classifier_stage(
        b.context, task, method, 32, ClassifierSettings(seed=seed), b.evaluation(task)
    )[1]


NORMAL = {"method": "gradient", "shots": 96, "epochs": 2, "batch_size": 8, "max_evaluations": 200, "popsize": None}
ENTITIES, FIXED = ("ncbi_disease",), ("causal_language", "trial_effect")
TRAINED = ("causal_language", "icd10_relation", "trial_effect")
ARMS = {
    "majority": Named("classifiers", classifier("majority"), FIXED),
    "tfidf": Named("classifiers", classifier("tfidf"), FIXED),
    "original": Named("original", original(), seeded=False),
    "original chat": Named("chat", original(prompt_format="chat"), seeded=False),
    **{f"in_context {k}": Named("in_context" if k == 8 else "shown", in_context(k)) for k in SHOWN},
    "in_context 8 chat": Named("chat", in_context(8, prompt_format="chat")),
    "original no stop": Named("entities", original(stop=()), ENTITIES, seeded=False),
    "original entities": Named("entities", original(), ENTITIES, seeded=False),
    "in_context 8 no stop": Named("entities", in_context(8, stop=()), ENTITIES),
    "in_context 8 entities": Named("entities", in_context(8), ENTITIES),
    "few_shot end": Named("few_shot", router("end"), TRAINED),
    "few_shot": Named("few_shot", router("no-end", label_end=False), TRAINED),
    "few_shot labels": Named("few_shot", router("labels", objective="label_ce"), TRAINED),
    "few_shot gamma 0": Named("few_shot", router("gamma-0", label_end=False, gamma_1=0.0), TRAINED),
    "normal end": Named("normal", router("normal-end", **NORMAL), TRAINED),
    "normal": Named("normal", router("normal", label_end=False, **NORMAL), TRAINED),
    "normal labels": Named("normal", router("normal-labels", objective="label_ce", **NORMAL), TRAINED),
    "lora end": Named("lora", lora(RATE, True), TRAINED),
    "lora": Named("lora", lora(RATE, False), TRAINED),
    "lora 0.002": Named("lora", lora(4 * RATE, False), TRAINED),
}


@dataclass(frozen=True)
class Change:
    """A change of one row: an arm and a scoring rule with it, and those without."""

    name: str
    row: str
    arm: tuple[str, str]
    before: tuple[str, str]


def _changes() -> list[Change]:
    rows = {
        "base": "original", "in-context 8": "in_context 8", "LoRA-32": "lora", "few-shot router": "few_shot",
        "normal router": "normal",
    }  # fmt: skip
    found = []
    for rule, other in (("sum", "mean"), ("calibrated", "mean"), ("calibrated", "sum")):
        found += [Change(f"{rule}, not {other}", row, (arm, rule), (arm, other)) for row, arm in rows.items()]
    for rule in ("sum", "calibrated"):
        trained = list(rows.items())[2:]
        found += [Change(f"end token out ({rule})", row, (arm, rule), (f"{arm} end", rule)) for row, arm in trained]
        routers = list(rows.items())[3:]
        found += [Change(f"label objective ({rule})", row, (f"{arm} labels", rule), (arm, rule)) for row, arm in routers]
    found += [Change("gamma_1 = 0", "few-shot router", ("few_shot gamma 0", "calibrated"), ("few_shot", "calibrated"))]
    found += [Change("rate 0.002, not 0.0005", "LoRA-32", ("lora 0.002", "calibrated"), ("lora", "calibrated"))]
    for rule in ("sum", "calibrated"):
        found += [Change(f"chat format ({rule})", "base", ("original chat", rule), ("original", rule))]
        found += [Change(f"chat format ({rule})", "in-context 8", ("in_context 8 chat", rule), ("in_context 8", rule))]
    shown = [k for k in SHOWN if k != 8]
    found += [
        Change(f"{k} shots, not 8", "in-context", (f"in_context {k}", "calibrated"), ("in_context 8", "calibrated"))
        for k in shown
    ]
    found += [
        Change("stop strings", "base", ("original entities", ""), ("original no stop", "")),
        Change("stop strings", "in-context 8", ("in_context 8 entities", ""), ("in_context 8 no stop", "")),
    ]
    return found


@dataclass(eq=False)
class Reader:
    """Predictions of finished runs under a scoring rule."""

    bench: Bench
    seeds: int
    made: dict[tuple[str, str, int], Run] = field(default_factory=dict)
    tokenizer: Any = field(default_factory=load_tokenizer)

    def predictions(self, arm: str, task: Task, rule: str) -> list[Predictions]:
        """Of each seed that is finished."""
        seeds = range(self.seeds if ARMS[arm].seeded else 1)
        runs = [self.made[key] for seed in seeds if (key := (arm, task.name, seed)) in self.made]
        return [self.scored(run.predictions(), task, rule) for run in runs]

    def scored(self, rows: Predictions, task: Task, rule: str) -> Predictions:
        """Sums of log-likelihoods under another rule; the first row says whether these are sums."""
        if rule == "mean":
            known = self.items(task.name)
            return [
                row | {"scores": [s / n for s, n in zip(row["scores"], self.lengths(known[row["id"]].labels), strict=True)]}
                for row in rows
            ]
        return batch_calibrated(rows, list(self.items(task.name).values())) if rule == "calibrated" else rows

    @cache  # noqa: B019  one reader lives as long as the process
    def items(self, name: str) -> dict[str, Example]:
        """Test items by id."""
        task = self.bench.context.find_task(name)
        limit = self.bench.evaluation(task).limit
        return {one.id: one for one in sample(task_examples(task, "test", self.bench.context.store), limit)}

    @cache  # noqa: B019
    def lengths(self, labels: tuple[str, ...]) -> list[int]:
        """Tokens of each label."""
        return [len(encode_answer(label, self.tokenizer)) for label in labels]


def run_arms(bench: Bench, rows: Sequence[str], tasks: Sequence[str], seeds: Sequence[int]) -> None:
    """Make all runs of these rows that are not finished, seed by seed."""
    done = finished(bench)
    for seed in seeds:
        for name, arm in ARMS.items():
            for task in (task for task in arm.tasks if task in tasks and arm.row in rows and (arm.seeded or seed == 0)):
                if (name, task, seed) not in done:
                    run = arm.run(bench, bench.context.find_task(task), seed)
                    with bench.index.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps([name, task, seed, str(run.folder)]) + "\n")


def finished(bench: Bench) -> dict[tuple[str, str, int], Run]:
    """Runs by arm, task and seed."""
    lines = bench.index.read_text(encoding="utf-8").splitlines() if bench.index.is_file() else []
    return {(name, task, seed): Run(Path(folder)) for name, task, seed, folder in map(json.loads, lines)}


def print_table(reader: Reader, tasks: Sequence[str], wanted: str) -> None:
    """Scores of each arm, then what each change adds, in points with 95 % intervals.

    Args:
        wanted: metric of tasks that have it; others are judged by their own.
    """
    find, label_rules = reader.bench.context.find_task, ("sum", "mean", "calibrated")

    def values(arm: str, task: Task, rule: str) -> list[Any]:
        rows = reader.predictions(arm, task, rule)
        metric = wanted if wanted in task.metric_list or (wanted and task.fixed_labels) else task.metric
        return metric_of_runs(task.output_type, metric, rows, fixed_labels=task.fixed_labels)[0] if rows else []

    print("| row | task | " + " | ".join(label_rules) + " | seeds |\n|---|---|---|---|---|---|")
    for arm, named in ARMS.items():
        for name in (task for task in named.tasks if task in tasks):
            task = find(name)
            rules = label_rules if task.output_type in LABEL_TYPES and named.row != "classifiers" else ("",)
            found = [measure_seeds(own, 2000) if (own := values(arm, task, rule)) else None for rule in rules]
            cells = [
                "-" if one is None else f"{100 * one.value:.1f} ({100 * one.low:.1f} to {100 * one.high:.1f})" for one in found
            ]
            print(f"| {arm} | {name} | {' | '.join([*cells, *[''] * (3 - len(cells))])} | {len(values(arm, task, rules[0]))} |")
    print("\n| change | row | task | without | with | points | p |\n|---|---|---|---|---|---|---|")
    for change in _changes():
        for name in (task for task in ARMS[change.arm[0]].tasks if task in tasks and task in ARMS[change.before[0]].tasks):
            task = find(name)
            ours, other = (values(arm, task, rule) for arm, rule in (change.arm, change.before))
            count = min(len(ours), len(other))
            if count and (gap := compare_seeds(ours[:count], other[:count], 2000)):
                before, after = (100 * sum(one.value for one in some[:count]) / count for some in (other, ours))
                points = f"{100 * gap.difference:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
                print(f"| {change.name} | {change.row} | {name} | {before:.1f} | {after:.1f} | {points} | {gap.p_value:.3f} |")


def main() -> None:
    """Run arms, or print the tables of finished ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--experts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", default=",".join(dict.fromkeys(arm.row for arm in ARMS.values())))
    parser.add_argument("--tasks", default=",".join(LENGTHS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--metric", default="", help="of the table, where a task has it: macro_f1")
    options = parser.parse_args()
    context = Context(None, None, options.out / "runs", StderrProgress())
    context.store = DevelopmentStore(context.store.data)
    bench = Bench(context, load_experts(options.experts), options.out)
    rows, tasks = options.rows.split(","), options.tasks.split(",")
    if options.what == "run":
        run_arms(bench, rows, tasks, range(options.seeds))
    else:
        reader = Reader(bench, options.seeds)
        reader.made = finished(bench)
        print_table(reader, tasks, options.metric)


if __name__ == "__main__":
    main()
