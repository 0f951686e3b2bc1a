"""The complete method once, on real data, small enough for a laptop: what `make demo` runs.

Each step is skipped when its result is there.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydantic import Field

from staf.baselines.settings import ClassifierSettings
from staf.config import Settings, find_recipe, load_values, parse
from staf.data.selection import held_out_task
from staf.data.task import task_metrics
from staf.evaluate.score import Method, router_method
from staf.evaluate.settings import EvaluationSettings
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import ExpertSet
from staf.export.hf import save_merged
from staf.log import Progress
from staf.report.page import write_page
from staf.report.results import load_results
from staf.report.tables import held_out_table, print_table, task_table
from staf.routing.recipe import RouterRecipe
from staf.routing.router import one_hot
from staf.runs import PeakMemory, Run
from staf.stages.adaptation import adapt_stage
from staf.stages.context import Context
from staf.stages.evaluation import classifier_stage, evaluate_stage, named_method, select_single_expert
from staf.stages.training import train_stage


class DemoSettings(Settings):
    """What the demo trains, adapts and scores."""

    experts: list[str] = Field(min_length=1)
    """knowledge types"""
    task: str
    """the task to adapt to"""
    expert: ExpertRecipe
    few_shot: RouterRecipe
    normal: RouterRecipe
    evaluation: EvaluationSettings
    """on the task"""
    classifier: ClassifierSettings = ClassifierSettings()
    """of the sentence encoder"""
    held_out: EvaluationSettings
    """of each expert on its own knowledge type"""


def run_demo(out: Path, recipe: Path | None, base: str | None, data: Path | None, progress: Progress) -> dict[str, Any]:
    """Train, adapt, merge, score, write the page; returns the task, folders, time and memory."""
    started, memory = time.perf_counter(), PeakMemory()
    recipe = recipe or find_recipe("demo")
    settings = parse(DemoSettings, load_values(recipe), str(recipe))
    context = Context(base, data, out / "runs", progress)
    task = context.find_task(settings.task)
    held_out = {name: held_out_task(name, context.store) for name in sorted(settings.experts)}
    _prepare(context, {dataset for one in (task, *held_out.values()) for dataset in one.datasets})
    at = out / "experts"
    experts = ExpertSet(tuple(train_stage(context, name, settings.expert, at) for name in held_out), at)
    for expert in experts.experts:
        own = held_out[expert.name]
        _, original = evaluate_stage(context, own, None, Method("original", None), settings.held_out)
        single = Method("single", one_hot(0, 1))
        evaluate_stage(context, own, ExpertSet((expert,)), single, settings.held_out, {"original": original})
    folder = out / "routers" / task.name
    few_shot, normal = (
        adapt_stage(context, task, experts, recipe, folder / name)
        for name, recipe in (("few_shot", settings.few_shot), ("normal", settings.normal))
    )
    methods = [Method("original", None), select_single_expert(context, task, experts, settings.evaluation)]
    methods.append(named_method(context, task, experts, "average", settings.evaluation))
    runs: dict[str, Run] = {}
    for name in ("majority", "nearest_label", "embedding"):
        learned = classifier_stage(context, task, name, settings.few_shot.shots, settings.classifier, settings.evaluation)
        runs[name] = learned[1]
    for method in (*methods, router_method(few_shot), router_method(normal)):
        _, run = evaluate_stage(context, task, experts, method, settings.evaluation, dict(runs))
        runs |= {method.name: run} if method in methods else {}
    fused = out / "fused" / task.name
    save_merged(context.base_name, experts, normal, fused, overwrite=True)
    page = write_page(context.runs, out / "report.html", task_metrics())
    return {
        "task": task.name,
        "runs": str(context.runs),
        "page": str(page),
        "fused": str(fused),
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": memory.bytes,
    }


def _prepare(context: Context, names: set[str]) -> None:
    """Fetch and convert every data set first, so that training can leave out what the tasks test."""
    with context.progress.bar("fetch and prepare data", len(names)) as bar:
        for name in sorted(names):
            if context.store.can_have(name):
                context.store.prepared(name)
            bar.advance(1, name)


def print_demo(found: dict[str, Any]) -> None:
    """The experts' held-out scores, the table of the task, and where everything is."""
    results = load_results(Path(found["runs"]), task_metrics())
    print_table(held_out_table(results), title="Each expert on its own knowledge type, held out")
    rows = task_table(results, found["task"])
    columns = list(rows[0].cells)
    title = f"Adapted to a task that no expert was trained on: {found['task']}"
    print_table(rows, title, [columns[0], columns[2], *columns[-5:]])  # other metrics are on the page
    minutes, seconds = divmod(round(found["seconds"]), 60)
    print(f"page: {found['page']}\nfused model: {found['fused']}")
    print(f"{minutes} min {seconds} s, peak memory {found['peak_memory_bytes'] / 1e9:.1f} GB")
