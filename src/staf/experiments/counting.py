"""Section 5.2: tokens that are read for one answer, of a prompt with its shots and of the task alone. No model answers."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from staf.baselines.in_context import Shown, reserved_for, with_shots
from staf.data.selection import task_examples
from staf.data.task import find_task
from staf.errors import StafError
from staf.evaluate import sample
from staf.experiments.cells import Grid
from staf.experiments.plans import Plan
from staf.metrics import over_seeds
from staf.stages import adaptation_examples


def token_numbers(plan: Plan, grid: Grid) -> dict[str, Any]:
    """What the prompts of a plan come to: for each line and column mean tokens over prompts, then over seeds.

    In-context learning's line alone shows examples. A column that cannot be counted says why, and the others are.
    """
    lines, alone = [], {}
    for line in plan.lines:
        places = []
        for column in plan.columns:
            place = _place(grid, column.task, with_examples=line.method == "in_context")
            places.append(place)
            if line.method != "in_context":
                alone[column.name] = place["mean"]
        lines.append(line.with_places(places))
    return {"lines": lines, "comparisons": [], "over_columns": [], "prompt_tokens": alone}


def _place(grid: Grid, task: str, with_examples: bool) -> dict[str, Any]:
    """Tokens of a task's prompts; in-context learning draws its shots anew for each seed."""
    seeds = range(grid.profile.seeds) if with_examples else range(1)
    try:
        shown = [prompts(grid, task, seed if with_examples else None) for seed in seeds]
    except StafError as error:
        return {"mean": None, "missing": str(error), "runs": [], "seeds": 0, "papers": {}}
    tokens = over_seeds([fmean(each.tokens) for each in shown])
    return {
        **tokens.as_dict(), "items": len(shown[0].examples), "interval": [tokens.low, tokens.high], "runs": [], "papers": {},
        "prompt_tokens": tokens.mean, "shots_shown": fmean(fmean(each.counts) for each in shown) if with_examples else None,
        "adaptation_examples": shown[0].shots if with_examples else None,
    }  # fmt: skip


def prompts(grid: Grid, name: str, seed: int | None) -> Shown:
    """The prompts of a task's test items as in-context learning has them, with the shots of a seed; None shows none.

    Both are cut at in-context learning's limit, so that they can be compared.

    Raises:
        MissingData: the task's data is not here. ConfigError: a query does not fit.
    """
    context, profile, task = grid.context, grid.profile.of_task(name), find_task(name)
    examples = sample(task_examples(task, "test", context.store), profile.evaluation.limit)
    shots = [] if seed is None else adaptation_examples(context, task, profile.few_shot.shots, seed)
    limit = profile.baseline.get("max_prompt_tokens") or context.base.context_length
    return with_shots(examples, shots, context.base.tokenizer, limit, reserved_for(task.output_type, profile.evaluation))
