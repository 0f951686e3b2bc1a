"""A table or figure of the papers on what data is here: its cells (`staf.experiments.running`) beside the papers' numbers."""

from __future__ import annotations

import json
from importlib import resources
from statistics import fmean
from typing import Any

from staf.data.task import find_task
from staf.engines import RunContext
from staf.errors import UnknownName
from staf.experiments.cells import Grid
from staf.experiments.comparing import comparisons, over_columns
from staf.experiments.counting import token_numbers
from staf.experiments.missing import refuse_missing
from staf.experiments.plans import PLANS, Column, Line, Plan
from staf.experiments.running import Found, run_cells, spread_cells
from staf.metrics import measure_over_seeds, over_seeds
from staf.runs import Run, digest_of
from staf.stages.evaluation import Scored


def papers_numbers(name: str) -> dict[str, dict[str, list[Any]]]:
    """What the papers print for a table, by paper; {} where only a figure without numbers is printed."""
    text = (resources.files("staf") / "experiments" / "papers.json").read_text(encoding="utf-8")
    numbers: dict[str, dict[str, list[Any]]] = json.loads(text).get(name, {})
    return numbers


def find_plan(name: str, grid: Grid) -> Plan:
    """The plan of a table or figure.

    Raises:
        UnknownName: there is no such one. MissingData: the profile names a stand-in for none of its tasks.
    """
    if name not in PLANS:
        raise UnknownName.among("table or figure", name, PLANS)
    return PLANS[name](grid.profile)


def reproduce(
    name: str, profile_name: str, grid: Grid, run_context: RunContext | None = None, seeds: int | None = None
) -> tuple[dict[str, Any], Run]:
    """Run what is not finished of a table or figure, and write its result.

    Args:
        run_context: of the context, where the cells are run on a Ray cluster first; None runs them here.
        seeds: the first so many of the profile's; None runs all. A result of more seeds is not replaced by one of fewer.

    Raises:
        UnknownName, MissingData: as `find_plan`; MissingData also where the profile is strict and anything is not here.
    """
    plan, count = find_plan(name, grid), seeds or grid.profile.seeds
    if grid.profile.strict:
        refuse_missing(plan, grid)
    run = Run.at(grid.context.runs, "reproduce", name, profile_name, 0, digest_of(grid.profile.digest()))
    before = run.result()
    if before is not None and before.get("seeds", 0) > count:
        return before, run
    part = grid.up_to(count)
    if run_context is not None and not plan.counted:
        spread_cells(plan, part, run_context)
    numbers = token_numbers(plan, part) if plan.counted else _numbers(plan, name, run_cells(plan, part), part)
    result = {
        "stage": "reproduce", "task": name, "method": profile_name, "seed": 0, "metrics": {}, "title": plan.title,
        "differs": plan.differs, "base": grid.context.identity,
        "columns": [
            {"name": c.name, "task": c.task, "title": find_task(c.task).title, "metric": c.metric} for c in plan.columns
        ],
        **numbers, "seeds": count, "settings": grid.profile.model_dump(mode="json"),
    }  # fmt: skip
    run.finish({"profile": profile_name}, result)
    return result, run


def _numbers(plan: Plan, name: str, found: Found, grid: Grid) -> dict[str, Any]:
    """What the cells come to."""
    compared = comparisons(plan, found, grid)
    return {
        "lines": [_line(plan, line, name, found, grid) for line in plan.lines],
        "comparisons": compared,
        "over_columns": over_columns(plan.columns, compared),
        "prompt_tokens": None,
    }


def _line(plan: Plan, line: Line, name: str, found: Found, grid: Grid) -> dict[str, Any]:
    numbers = papers_numbers(name)
    places = []
    for column in plan.columns:
        cells = [found[cell] for cell in plan.cells(line, column, grid.profile.seeds)]
        printed = {paper: _printed(table, line, column) for paper, table in numbers.items()}
        papers = {paper: value for paper, value in printed.items() if value is not None}
        places.append({**_place(cells, column.metric, grid), "papers": papers})
    return line.with_places(places)


def _printed(table: dict[str, list[Any]], line: Line, column: Column) -> float | None:
    row = table.get(line.name or line.method)
    return None if row is None or column.name not in table["columns"] else row[table["columns"].index(column.name)]


def _place(cells: list[Scored | str], metric: str, grid: Grid) -> dict[str, Any]:
    """Mean and deviation over the seeds that there are; why, where there is none."""
    scored = [cell for cell in cells if not isinstance(cell, str)]
    values = [(result["metrics"].get(metric) or {}).get("value") for result, _ in scored]
    missing = next((cell for cell in cells if isinstance(cell, str)), None)
    defined = [value for value in values if value is not None]
    if missing is not None or not defined or len(defined) < len(values):
        return {"mean": None, "missing": missing or f"{metric} is not defined here", "runs": [], "seeds": 0}
    first = scored[0][0]
    details = first.get("details") or {}
    return {
        **over_seeds(defined).as_dict(),
        "items": first["metrics"][metric]["examples"],
        "interval_of_one_seed": [first["metrics"][metric].get("low"), first["metrics"][metric].get("high")],
        "interval": _interval(scored, metric, grid),
        "runs": [run.folder.relative_to(grid.context.runs).as_posix() for _, run in scored],
        "tunable_parameters": first["tunable_parameters"],
        "adaptation_examples": first["adaptation_examples"],
        "seconds": fmean(result["seconds"] for result, _ in scored),
        "prompt_tokens": details.get("prompt_tokens_mean"),
        "shots_shown": details.get("shots_shown_mean"),
        "weights": [result["weights"] for result, _ in scored] if first.get("weights") else None,
    }


def _interval(scored: list[Scored], metric: str, grid: Grid) -> list[float | None]:
    """95 % interval of the mean over test items and seeds; of one run, its own over items."""
    first = scored[0][0]
    if len(scored) == 1:
        return [first["metrics"][metric].get("low"), first["metrics"][metric].get("high")]
    task, resamples = find_task(first["task"]), grid.profile.evaluation.resamples
    runs = [run.predictions() for _, run in scored]
    found = measure_over_seeds(task.output_type, metric, runs, fixed_labels=task.fixed_labels, resamples=resamples)
    return [None, None] if found is None else [found.low, found.high]
