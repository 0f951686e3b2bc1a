"""A table or figure of the papers on what data is here: cells are run or read, then put beside the papers' numbers.

Seeds are the outermost loop, so that a table that is stopped early is whole for the seeds that are done. A cell whose data is
not here, or whose method does not answer its task, leaves its place empty with the reason; the others go on.
"""

from __future__ import annotations

import json
from importlib import resources
from statistics import fmean
from typing import Any

from staf.data.batches import encode_prompt
from staf.engines import Job, Place, ray, spread
from staf.errors import ConfigError, MissingData, StafError, UnknownName
from staf.evaluate import sample
from staf.experiments.cells import NEED_EXPERTS, Cell, CellJob, Grid
from staf.experiments.plans import PLANS, Column, Line, Plan
from staf.lm.base import resolve
from staf.metrics import compare_over_seeds, over_seeds
from staf.runs import Run
from staf.tasks.examples import expert_sources, task_examples
from staf.tasks.rows import find_task
from staf.workflow.evaluation import Scored, digest_of

OURS = ("few_shot", "normal", "beyond")
ALSO = (("single", "average"), ("single", "lora"), ("average", "lora"))
"""Rows that the papers compare, besides our routers."""
TUNED = ("prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full")
"""Rows that the papers compare with the original model."""
LEVEL = 0.05
"""of a win or a loss"""

Found = dict[Cell, Scored | str]
"""the result of a cell, or why there is none"""


def papers_numbers(name: str) -> dict[str, dict[str, list[Any]]]:
    """What the papers print for a table, by paper; {} where only a figure without numbers is printed."""
    text = (resources.files("staf") / "experiments" / "papers.json").read_text(encoding="utf-8")
    numbers: dict[str, dict[str, list[Any]]] = json.loads(text).get(name, {})
    return numbers


def find_plan(name: str, grid: Grid) -> Plan:
    """The plan of a table or figure.

    Raises:
        UnknownName: there is no such one. MissingData: a task of the profile that it needs is not named there.
    """
    if name not in PLANS:
        raise UnknownName.among("table or figure", name, PLANS)
    try:
        return PLANS[name](grid.profile)
    except KeyError as error:
        raise MissingData(f"{name} needs a task for {error} and the profile names none. Add it to the profile.") from error


def reproduce(name: str, profile_name: str, grid: Grid, place: Place | None = None) -> tuple[dict[str, Any], Run]:
    """Run what is not finished of a table or figure, and write its result.

    Args:
        place: of the session, where the cells are run on a Ray cluster first; None runs them here.

    Raises:
        UnknownName, MissingData: as `find_plan`; MissingData also where the profile is strict and anything is not here.
    """
    plan = find_plan(name, grid)
    if grid.profile.strict:
        refuse_missing(plan, grid)
    if place is not None:
        spread_cells(plan, grid, place)
    found = run_cells(plan, grid)
    tokens = name == "tokens"
    result = {
        "stage": "reproduce", "task": name, "method": profile_name, "seed": 0, "metrics": {}, "title": plan.title,
        "differs": plan.differs, "base": grid.session.identity,
        "columns": [
            {"name": c.name, "task": c.task, "title": find_task(c.task).title, "metric": c.metric} for c in plan.columns
        ],
        "lines": [_line(plan, line, name, found, grid) for line in plan.lines],
        "comparisons": [] if tokens else comparisons(plan, found, grid),
        "prompt_tokens": {c.name: prompt_tokens(grid, c.task) for c in plan.columns} if tokens else None,
        "settings": grid.profile.model_dump(mode="json"),
    }  # fmt: skip
    run = Run.at(grid.session.runs, "reproduce", name, profile_name, 0, digest_of(grid.profile.digest()))
    run.finish({"profile": profile_name}, result)
    return result, run


def refuse_missing(plan: Plan, grid: Grid) -> None:
    """See that base and data are here before anything is computed.

    Raises:
        MissingData: naming all that is not.
    """
    missing, library = [], grid.session.library
    try:
        resolve(grid.profile.base)
    except StafError as error:
        missing.append(f"base {grid.profile.base}: {error}")
    tasks = {column.task: find_task(column.task).datasets for column in plan.columns}
    experts = {name: [dataset for dataset, _ in expert_sources(name)] for name in grid.profile.experts}
    for title, sources in ({f"task {name}": names for name, names in tasks.items()} | experts).items():
        if not any(library.can_have(source) for source in sources):
            missing.append(f"{title}: none of {', '.join(dict.fromkeys(sources))} is here (staf data list)")
    if missing:
        listed = "\n  ".join(missing)
        raise MissingData(f"{plan.title} as printed cannot be run here, {len(missing)} things are missing:\n  {listed}")


def spread_cells(plan: Plan, grid: Grid, place: Place) -> None:
    """Train the experts and run the cells of a plan on a Ray cluster; what fails is told when the cells are read here.

    Raises:
        TrainingFailed: an expert failed, or no machine is left. MissingData: Ray is not installed.
    """
    lines = [(line, column) for line in plan.lines for column in plan.columns]
    cells = sorted({cell for at in lines for cell in plan.cells(*at, grid.profile.seeds)}, key=lambda cell: cell.seed)
    routed = [cell for cell in cells if cell.method in NEED_EXPERTS]
    names = sorted({name for cell in routed for name in cell.experts or grid.profile.experts})
    jobs = [Job(name, grid.profile.expert, grid.out / "experts", place) for name in names]
    if jobs:
        ray(jobs, grid.session.watcher)
    spread(plan.title, [CellJob(cell, grid.profile, grid.out, place) for cell in cells], {}, grid.session.watcher)


def run_cells(plan: Plan, grid: Grid) -> Found:
    """Every cell of a plan: its result, or why there is none."""
    places = [(line, column) for line in plan.lines for column in plan.columns]
    cells = dict.fromkeys(cell for line, column in places for cell in plan.cells(line, column, grid.profile.seeds))
    found: Found = {}
    with grid.session.watcher.bar(plan.title, len(cells)) as bar:
        for cell in sorted(cells, key=lambda cell: cell.seed):
            try:
                found[cell] = grid.run(cell)
            except (MissingData, ConfigError) as error:
                found[cell] = str(error)
                grid.session.watcher.say(f"{cell.name}: left out. {error}")
            bar.advance(1, cell.name)
    return found


def _line(plan: Plan, line: Line, name: str, found: Found, grid: Grid) -> dict[str, Any]:
    numbers = papers_numbers(name)
    places = []
    for column in plan.columns:
        cells = [found[cell] for cell in plan.cells(line, column, grid.profile.seeds)]
        printed = {paper: _printed(table, line, column) for paper, table in numbers.items()}
        papers = {paper: value for paper, value in printed.items() if value is not None}
        places.append({**_place(cells, column.metric, grid), "papers": papers})
    return {
        "name": line.name or line.method,
        "method": line.method,
        "title": line.title,
        "setting": line.setting,
        "places": places,
    }


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
        "runs": [run.folder.relative_to(grid.session.runs).as_posix() for _, run in scored],
        "tunable_parameters": first["tunable_parameters"],
        "adaptation_examples": first["adaptation_examples"],
        "seconds": fmean(result["seconds"] for result, _ in scored),
        "prompt_tokens": details.get("prompt_tokens_mean"),
        "shots_shown": details.get("shots_shown_mean"),
        "weights": [result["weights"] for result, _ in scored] if first.get("weights") else None,
    }


def comparisons(plan: Plan, found: Found, grid: Grid) -> list[dict[str, Any]]:
    """Pairs of rows by each column's metric, averaged over seeds, paired by item."""
    rows = []
    for ours, other in pairs(plan):
        for column in plan.columns:
            both = [_predictions(plan, line, column, found, grid) for line in (ours, other)]
            task, resamples = find_task(column.task), grid.profile.evaluation.resamples
            compared = all(both) and compare_over_seeds(
                task.form, column.metric, both[0], both[1], fixed_labels=task.fixed_labels, resamples=resamples
            )
            if compared:
                rows.append({
                    "column": column.name, "ours": name_of(ours), "other": name_of(other), **compared.as_dict(),
                    "verdict": verdict(compared.difference, compared.p_value),
                })  # fmt: skip
    return rows


def pairs(plan: Plan) -> list[tuple[Line, Line]]:
    """Which rows are compared: our routers with every other row, and whatever else the papers compare."""
    routers = [(ours, other) for ours in plan.lines if ours.method in OURS for other in plan.lines if other != ours]
    named = {name_of(line): line for line in plan.lines}
    rest = [(named[ours], named[other]) for ours, other in ALSO if ours in named and other in named]
    tuned = [(line, named["original"]) for line in plan.lines if line.method in TUNED and "original" in named]
    return [*routers, *rest, *tuned]


def name_of(line: Line) -> str:
    """As results name a row."""
    return line.name or line.method


def verdict(difference: float, p_value: float) -> str:
    """win, loss, or tie where the difference is within chance."""
    return "tie" if p_value >= LEVEL or difference == 0 else "win" if difference > 0 else "loss"


def _predictions(plan: Plan, line: Line, column: Column, found: Found, grid: Grid) -> list[list[dict[str, Any]]]:
    """Saved predictions of each seed; [] where one is missing."""
    cells = [found[cell] for cell in plan.cells(line, column, grid.profile.seeds)]
    scored = [cell[1].predictions() for cell in cells if not isinstance(cell, str)]
    return scored if len(scored) == len(cells) else []


def prompt_tokens(grid: Grid, name: str) -> float | None:
    """Mean tokens of a prompt of the task alone; None where its data is not here."""
    evaluation = grid.profile.of_task(name).evaluation
    try:
        examples = sample(task_examples(find_task(name), "test", grid.session.library), evaluation.limit)
    except MissingData:
        return None
    return fmean(len(encode_prompt(e, grid.session.base.tokenizer, evaluation.max_tokens)) for e in examples)
