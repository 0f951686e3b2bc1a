"""Which rows of a table are compared, and who wins where and on the whole: by each column's metric, paired, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from staf.data.task import find_task
from staf.experiments.cells import Grid
from staf.experiments.plans import Column, Line, Plan
from staf.experiments.running import Found
from staf.metrics import Comparison, compare_over_seeds, over_tasks

OURS = ("few_shot", "normal", "beyond")
ALSO = (("single", "average"), ("single", "lora"), ("average", "lora"))
"""Rows that the papers compare, besides our routers."""
TUNED = ("prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full")
"""Rows that the papers compare with the original model."""
LEVEL = 0.05
"""of a win or a loss"""


def comparisons(plan: Plan, found: Found, grid: Grid) -> list[dict[str, Any]]:
    """Pairs of rows by each column's metric, averaged over seeds, paired by item; chance is that of items and of seeds."""
    rows = []
    for ours, other in pairs(plan):
        for column in plan.columns:
            both = [_predictions(plan, line, column, found, grid) for line in (ours, other)]
            task, resamples = find_task(column.task), grid.profile.evaluation.resamples
            compared = all(both) and compare_over_seeds(
                task.output_type, column.metric, both[0], both[1], fixed_labels=task.fixed_labels, resamples=resamples
            )
            if compared:
                rows.append({
                    "column": column.name, "ours": name_of(ours), "other": name_of(other), **compared.as_dict(),
                    "verdict": verdict(compared.difference, compared.p_value),
                })  # fmt: skip
    return rows


def over_columns(columns: Sequence[Column], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each pair's mean difference over the columns it is compared in, where these are two or more.

    Of a task with several columns the first one counts: they have the same test items.
    """
    counted = {column.task: column.name for column in reversed(columns)}.values()
    found: dict[tuple[str, str], list[Comparison]] = {}
    for row in (row for row in rows if row["column"] in counted):
        one = Comparison(row["difference"], row["low"], row["high"], row["p_value"])
        found.setdefault((row["ours"], row["other"]), []).append(one)
    return [
        {
            "ours": ours,
            "other": other,
            "columns": len(some),
            **mean.as_dict(),
            "verdict": verdict(mean.difference, mean.p_value),
        }
        for (ours, other), some in found.items()
        if len(some) > 1 and (mean := over_tasks(some))
    ]


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
