"""A table or figure of the papers on what data is here: cells are run or read, then put beside the papers' numbers.

Seeds are the outermost loop, so that a table that is stopped early is whole for the seeds that are done. A cell whose data is
not here, or whose method does not answer its task, leaves its place empty with the reason; the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import import_module, resources
from statistics import fmean
from typing import Any

from staf.baselines.shots import reserved_for, with_shots
from staf.classifiers.encoder import encoder_folder
from staf.engines import Job, Place, by_size, spread
from staf.errors import ConfigError, MissingData, StafError, TrainingFailed, UnknownName
from staf.evaluate import sample
from staf.experiments.cells import NEED_EXPERTS, Cell, CellJob, Grid
from staf.experiments.plans import PLANS, Column, Line, Plan
from staf.experiments.profile import Profile
from staf.lm.base import resolve
from staf.metrics import compare_over_seeds, measure_over_seeds, over_seeds
from staf.runs import Run, digest_of
from staf.tasks.examples import expert_sources, task_examples
from staf.tasks.rows import find_task
from staf.workflow.evaluation import Scored

OURS = ("few_shot", "normal", "beyond")
ALSO = (("single", "average"), ("single", "lora"), ("average", "lora"))
"""Rows that the papers compare, besides our routers."""
TUNED = ("prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full")
"""Rows that the papers compare with the original model."""
LEVEL = 0.05
"""of a win or a loss"""
PACKAGES = {
    "peft": ({*TUNED} - {"full"}, "pip install 'staf-llm[bench]'"),
    "nevergrad": ({"lorahub"}, "pip install nevergrad bayesian-optimization==1.4.0"),
    "cma": ({"few_shot"}, "pip install cma"),
}
"""Packages beside those that staf cannot do without, the methods that need each, and how to get it."""

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
    """See that base, data, packages and encoder are here before anything is computed.

    Raises:
        MissingData: naming all that is not.
    """
    missing = [*_missing_models(plan, grid.profile), *_missing_data(plan, grid), *_missing_packages(plan)]
    if missing:
        listed = "\n  ".join(missing)
        raise MissingData(f"{plan.title} as printed cannot be run here, {len(missing)} things are missing:\n  {listed}")


def _missing_models(plan: Plan, profile: Profile) -> Iterator[str]:
    """Base and encoder that cannot be had."""
    try:
        resolve(profile.base)
    except StafError as error:
        yield f"base {profile.base}: {error}"
    if "encoder" not in {line.method for line in plan.lines}:
        return
    if profile.encoder is None:
        yield "encoder: the profile names none. Add --set encoder= and a hub id or folder, of ClinicalBERT say"
        return
    try:
        encoder_folder(profile.encoder)
    except StafError as error:
        yield f"encoder {profile.encoder}: {error}"


def _missing_data(plan: Plan, grid: Grid) -> Iterator[str]:
    """Data sets that are not here: all of a task's, all of the papers' own for an expert, else one that feeds it."""
    library, corpora = grid.session.library, grid.profile.corpora
    wanted = {f"task {name}": find_task(name).datasets for name in dict.fromkeys(column.task for column in plan.columns)}
    wanted |= {f"expert {name}": tuple(corpora[name]) for name in _experts_of(plan, grid.profile) if name in corpora}
    for title, names in wanted.items():
        for name in names:
            if not library.can_have(name):
                yield f"{title}: {name} is not here (staf data fetch {name} gets it, or says how)"
    for expert in _experts_of(plan, grid.profile):
        sources = dict.fromkeys(dataset for dataset, _ in expert_sources(expert))
        if expert not in corpora and not any(library.can_have(source) for source in sources):
            yield f"expert {expert}: none of {', '.join(sources)} is here (staf data list)"


def _missing_packages(plan: Plan) -> Iterator[str]:
    """Packages that methods of the plan need and that do not load."""
    for package, (methods, how) in PACKAGES.items():
        if not {line.method for line in plan.lines}.isdisjoint(methods):
            try:
                import_module(package)
            except ImportError as error:
                yield f"package {package}: {error} ({how})"


def _cells_of(plan: Plan, profile: Profile) -> list[Cell]:
    """Every cell of a plan once, seed by seed."""
    places = [(line, column) for line in plan.lines for column in plan.columns]
    cells = dict.fromkeys(cell for line, column in places for cell in plan.cells(line, column, profile.seeds))
    return sorted(cells, key=lambda cell: cell.seed)


def _experts_of(plan: Plan, profile: Profile) -> list[str]:
    """The experts that the cells of a plan need."""
    return sorted({name for cell in _cells_of(plan, profile) for name in _experts_for(cell, profile)})


def _experts_for(cell: Cell, profile: Profile) -> Sequence[str]:
    """The experts that a cell needs."""
    return (cell.experts or profile.experts) if cell.method in NEED_EXPERTS else ()


def spread_cells(plan: Plan, grid: Grid, place: Place) -> None:
    """Train the experts and run the cells of a plan on a Ray cluster; what fails is told when the cells are read here.

    Raises:
        TrainingFailed: no machine is left. MissingData: Ray is not installed.
    """
    profile, watcher, failures = grid.profile, grid.session.watcher, dict[str, BaseException]()
    names = _experts_of(plan, profile)
    jobs = by_size([Job(name, profile.of_expert(name), grid.out / "experts", place) for name in names], failures, watcher)
    if jobs:
        spread("train experts", jobs, failures, watcher)
    for name, error in failures.items():
        grid.failed[name] = TrainingFailed(f"expert {name} was not trained. {type(error).__name__}: {error}")
    cells = [cell for cell in _cells_of(plan, profile) if grid.failed.keys().isdisjoint(_experts_for(cell, profile))]
    spread(plan.title, [CellJob(cell, profile, grid.out, place) for cell in cells], {}, watcher)


def run_cells(plan: Plan, grid: Grid) -> Found:
    """Every cell of a plan: its result, or why there is none."""
    cells = _cells_of(plan, grid.profile)
    found: Found = {}
    with grid.session.watcher.bar(plan.title, len(cells)) as bar:
        for cell in cells:
            try:
                found[cell] = grid.run(cell)
            except StafError as error:
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
        "interval": _interval(scored, metric, grid),
        "runs": [run.folder.relative_to(grid.session.runs).as_posix() for _, run in scored],
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
    found = measure_over_seeds(task.form, metric, runs, fixed_labels=task.fixed_labels, resamples=resamples)
    return [None, None] if found is None else [found.low, found.high]


def comparisons(plan: Plan, found: Found, grid: Grid) -> list[dict[str, Any]]:
    """Pairs of rows by each column's metric, averaged over seeds, paired by item; chance is that of items and of seeds."""
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
    """Mean tokens of a prompt of the task alone, cut where in-context learning's are; None where they cannot be counted."""
    evaluation, task = grid.profile.of_task(name).evaluation, find_task(name)
    try:
        examples = sample(task_examples(task, "test", grid.session.library), evaluation.limit)
        base, reserved = grid.session.base, reserved_for(task.form, evaluation)
        limit = grid.profile.baseline.get("shown_tokens") or base.context
        return fmean(with_shots(examples, (), base.tokenizer, limit, reserved).tokens)
    except (MissingData, ConfigError):
        return None
