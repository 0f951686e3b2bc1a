"""The cells of a table, run or read one after another, or on a Ray cluster; what fails leaves its place empty, with the reason.

Seeds are the outermost loop, so that a table that is stopped early is whole for the seeds that are done.
"""

from __future__ import annotations

from collections.abc import Sequence

from staf.engines import Job, RunContext, by_size, spread
from staf.errors import StafError, TrainingFailed
from staf.experiments.cells import NEEDS_EXPERTS, Cell, CellJob, Grid
from staf.experiments.plans import Plan
from staf.experiments.profile import Profile
from staf.stages.evaluation import Scored

Found = dict[Cell, Scored | str]
"""the result of a cell, or why there is none"""


def cells_of(plan: Plan, profile: Profile) -> list[Cell]:
    """Every cell of a plan once, seed by seed."""
    places = [(line, column) for line in plan.lines for column in plan.columns]
    cells = dict.fromkeys(cell for line, column in places for cell in plan.cells(line, column, profile.seeds))
    return sorted(cells, key=lambda cell: cell.seed)


def experts_of(plan: Plan, profile: Profile) -> list[str]:
    """The experts that the cells of a plan need."""
    return sorted({name for cell in cells_of(plan, profile) for name in experts_for(cell, profile)})


def experts_for(cell: Cell, profile: Profile) -> Sequence[str]:
    """The experts that a cell needs."""
    return (cell.experts or profile.experts) if cell.method in NEEDS_EXPERTS else ()


def spread_cells(plan: Plan, grid: Grid, run_context: RunContext) -> None:
    """Train the experts and run the cells of a plan on a Ray cluster; what fails is told when the cells are read here.

    Raises:
        TrainingFailed: no machine is left. MissingData: Ray is not installed.
    """
    profile, progress, failures = grid.profile, grid.context.progress, dict[str, BaseException]()
    names = experts_of(plan, profile)
    jobs = by_size(
        [Job(name, profile.of_expert(name), grid.out / "experts", run_context) for name in names], failures, progress
    )
    if jobs:
        spread("train experts", jobs, failures, progress)
    for name, error in failures.items():
        grid.failed[name] = TrainingFailed(f"expert {name} was not trained. {type(error).__name__}: {error}")
    cells = [cell for cell in cells_of(plan, profile) if grid.failed.keys().isdisjoint(experts_for(cell, profile))]
    spread(plan.title, [CellJob(cell, profile, grid.out, run_context) for cell in cells], {}, progress)


def run_cells(plan: Plan, grid: Grid) -> Found:
    """Every cell of a plan: its result, or why there is none."""
    cells = cells_of(plan, grid.profile)
    found: Found = {}
    with grid.context.progress.bar(plan.title, len(cells)) as bar:
        for cell in cells:
            tried = cell in grid.done
            try:
                found[cell] = grid.run(cell)
            except StafError as error:
                found[cell] = str(error)
                if not tried:
                    grid.context.progress.log(f"{cell.name}: left out. {error}")
            bar.advance(1, cell.name)
    return found
