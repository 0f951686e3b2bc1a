"""The complete method once, on real data, small enough for a laptop: what `make demo` runs.

Each step is skipped when its result is there.
"""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from staf.config import Settings, load_recipe
from staf.data.registry import find_task, task_metrics
from staf.data.selection import held_out_task
from staf.data.task import Task
from staf.evaluate import Method
from staf.evaluate.settings import EvaluationSettings
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import ExpertSet
from staf.log import Progress
from staf.report.page import write_page
from staf.report.results import load_results
from staf.routing.recipe import RouterRecipe
from staf.routing.router import one_hot
from staf.runs import PeakMemory, Run
from staf.stages import (
    Context,
    adapt_stage,
    evaluate_stage,
    merge_stage,
    named_method,
    router_method,
    select_single_expert,
    train_stage,
)

CALIBRATION = "Calibration error (lower is better)"
"""On the page only."""


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
    held_out: EvaluationSettings
    """of each expert on its own knowledge type"""


def run_demo(out: Path, recipe: Path | None, base: str | None, data: Path | None, progress: Progress) -> dict[str, Any]:
    """Train, adapt, fuse, score, write the page.

    Returns:
        folders and the name of the task; the results themselves are in out/runs.
    """
    started, memory = time.perf_counter(), PeakMemory()
    settings = load_recipe(DemoSettings, recipe or Path(str(resources.files("staf") / "recipes" / "demo.yaml")))
    task = find_task(settings.task)
    context = Context(base, data, out / "runs", progress)
    prepare_all(context, settings, task)
    experts = ExpertSet(
        tuple(train_stage(context, name, settings.expert, out / "experts") for name in sorted(settings.experts))
    )
    score_held_out(context, experts, settings)
    routers = {
        name: adapt_stage(context, task, experts, chosen, out / "routers" / task.name / name)
        for name, chosen in (("few_shot", settings.few_shot), ("normal", settings.normal))
    }
    baselines: dict[str, Run] = {}
    for name in ("original", "single", "average"):
        if name == "single":
            method = select_single_expert(context, task, experts, settings.evaluation)
        else:
            method = named_method(context, task, experts, name, settings.evaluation)
        baselines[name] = evaluate_stage(context, task, experts, method, settings.evaluation, dict(baselines))[1]
    for router in routers.values():
        evaluate_stage(context, task, experts, router_method(router), settings.evaluation, baselines)
    fused = out / "fused" / task.name
    merge_stage(context, routers["normal"], experts, fused)
    page = write_page(context.runs, out / "report.html", task_metrics())
    return {
        "task": task.name,
        "runs": str(context.runs),
        "page": str(page),
        "fused": str(fused),
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": memory.bytes,
    }


def prepare_all(context: Context, settings: DemoSettings, task: Task) -> None:
    """Fetch and convert every data set first, so that training can leave out what the tasks test."""
    names = {*task.datasets, *(name for kind in settings.experts for name in held_out_task(kind).datasets)}
    with context.progress.bar("fetch and prepare data", len(names)) as bar:
        for name in sorted(names):
            if context.store.can_have(name):
                context.store.prepared(name)
            bar.advance(1, name)


def score_held_out(context: Context, experts: ExpertSet, settings: DemoSettings) -> None:
    """Score each expert, and the base model, on test items of its own knowledge type."""
    for name in experts.names:
        task = held_out_task(name)
        original = Method("original", None)
        _, run = evaluate_stage(context, task, None, original, settings.held_out)
        alone = ExpertSet((experts.experts[experts.names.index(name)],))
        method = Method("single", one_hot(0, 1))
        evaluate_stage(context, task, alone, method, settings.held_out, {"original": run})


def print_demo(found: dict[str, Any]) -> None:
    """The table of the task, the experts' held-out scores, and where everything is."""
    from rich.console import Console

    from staf.report.tables import held_out_table, print_table, task_table

    results, console = load_results(Path(found["runs"]), task_metrics()), Console()
    if not console.is_terminal:
        console = Console(width=140)
    print_table(console, held_out_table(results), title="Each expert on its own knowledge type, held out")
    title = f"Adapted to a task that no expert was trained on: {found['task']}"
    print_table(
        console, task_table(results, found["task"]), title, without=("Setting", "Macro F1, %", "Macro AUC, %", CALIBRATION)
    )
    minutes, seconds = divmod(round(found["seconds"]), 60)
    console.print(f"page: {found['page']}\nfused model: {found['fused']}")
    console.print(f"{minutes} min {seconds} s, peak memory {found['peak_memory_bytes'] / 1e9:.1f} GB")
