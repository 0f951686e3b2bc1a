"""Places and comparisons of a reproduced table count the chance of items and of seeds; their runs are made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from staf.data.task import find_task
from staf.experiments.cells import Cell
from staf.experiments.comparing import comparisons, over_columns
from staf.experiments.plans import Column, Line, Plan
from staf.experiments.printing import comparison_table, comparison_text
from staf.experiments.reproduce import _place
from staf.metrics import compare_over_seeds, compute_metrics
from staf.runs import Run
from staf.stages.evaluation import Scored

TASK = "trial_effect"
PLAN = Plan("", (Column("mednli", TASK, "accuracy"),), (Line("normal", ""), Line("original", "")), "")
ITEMS = 100


def grid_at(runs: Path) -> Any:
    sizes = SimpleNamespace(seeds=3, evaluation=SimpleNamespace(resamples=200))
    return SimpleNamespace(context=SimpleNamespace(runs=runs), profile=sizes)


def scored(runs: Path, method: str, seed: int, right: int) -> Scored:
    """A finished run that has the first so many of the items right."""
    rows = [{"id": str(i), "gold": i % 3, "scores": np.eye(3)[(i + (i >= right)) % 3].tolist()} for i in range(ITEMS)]
    run = Run.at(runs, "evaluate", TASK, method, seed, "a1b2")
    result = {
        "task": TASK, "metrics": compute_metrics(find_task(TASK).output_type, rows, fixed_labels=True, resamples=200),
        "tunable_parameters": 1, "adaptation_examples": 32, "seconds": 1.0, "weights": None,
    }  # fmt: skip
    run.finish({}, result, rows)
    return result, run


def found_in(runs: Path, rights: tuple[int, ...], original: int) -> dict[Cell, Any]:
    found: dict[Cell, Any] = {Cell(TASK, "normal", i): scored(runs, "normal", i, right) for i, right in enumerate(rights)}
    return found | {Cell(TASK, "original"): scored(runs, "original", 0, original)}


@pytest.mark.parametrize(("rights", "verdict"), [((60, 60, 60), "win"), ((45, 60, 75), "tie"), ((40, 40, 41), "loss")])
def test_a_difference_that_seeds_alone_may_make_is_a_tie(tmp_path: Path, rights: tuple[int, ...], verdict: str) -> None:
    grid, found = grid_at(tmp_path), found_in(tmp_path, rights, 50)
    rows = {(row["ours"], row["other"]): row for row in comparisons(PLAN, found, grid)}
    compared = rows["normal", "original"]
    assert compared["verdict"] == verdict
    assert compared["difference"] == pytest.approx(sum(rights) / 300 - 0.5)
    assert (compared["low"] <= 0 <= compared["high"]) == (verdict == "tie")


def test_ties_of_several_columns_may_be_a_win_together() -> None:
    row = {
        "ours": "normal",
        "other": "original",
        "difference": 0.08,
        "low": -0.02,
        "high": 0.18,
        "p_value": 0.11,
        "verdict": "tie",
    }
    alone = {**row, "other": "average", "column": "a"}
    another = {**row, "column": "a, another metric", "difference": 0.9}
    columns = [Column(name, name[0], "accuracy") for name in (*"abcd", "a, another metric")]
    (mean,) = over_columns(columns, [*({**row, "column": name} for name in "abcd"), alone, another])
    assert (mean["ours"], mean["other"], mean["columns"], mean["verdict"]) == ("normal", "original", 4, "win")
    assert (mean["difference"], mean["low"], mean["high"]) == pytest.approx((0.08, 0.03, 0.13))
    assert mean["p_value"] == pytest.approx(0.0017, abs=2e-4)


def test_a_place_keeps_the_interval_over_items_and_seeds(tmp_path: Path) -> None:
    grid, found = grid_at(tmp_path), found_in(tmp_path, (60, 61, 62), 50)
    seeds = [found[Cell(TASK, "normal", seed)] for seed in range(3)]
    several, one = _place(seeds, "accuracy", grid), _place([found[Cell(TASK, "original")]], "accuracy", grid)
    low, high = several["interval"]
    assert several["high"] - several["low"] < 0.06  # over seeds alone
    assert high - low > 0.17  # 1.96 standard errors of a share of 0.61 of 100 items, on both sides
    assert low < several["mean"] < high
    assert one["interval"] == one["interval_of_one_seed"]
    spread = _place([found[Cell(TASK, "normal", 0)], scored(tmp_path, "normal", 9, 90)], "accuracy", grid)
    assert spread["interval"][1] - spread["interval"][0] > 1


def test_a_place_and_a_comparison_with_a_sure_method_are_of_the_same_kind(tmp_path: Path) -> None:
    found = found_in(tmp_path, (50, 60, 70), 0)
    runs = [found[Cell(TASK, "normal", seed)][1].predictions() for seed in range(3)]
    never = [found[Cell(TASK, "original")][1].predictions()]
    compared = compare_over_seeds("multiple_choice", "accuracy", runs, never, fixed_labels=True, resamples=2000)
    low, high = _place([found[Cell(TASK, "normal", seed)] for seed in range(3)], "accuracy", grid_at(tmp_path))["interval"]
    assert compared is not None
    assert (low, high) == pytest.approx((compared.low, compared.high), abs=0.02)


def test_a_mean_difference_is_printed_in_points_with_its_chance() -> None:
    row = {"difference": 0.0613, "low": 0.011, "high": 0.1116, "p_value": 0.0004, "verdict": "win"}
    assert comparison_text(row) == "+6.1 (1.1 to 11.2) win (p < 0.001)"
    assert comparison_text({**row, "difference": -0.01, "low": -0.05, "p_value": 0.62, "verdict": "tie"}) == (
        "-1.0 (-5.0 to 11.2) tie (p 0.620)"
    )


def test_paired_tests_are_printed_a_line_for_each_pair_with_a_gap_where_a_task_was_not_compared() -> None:
    row = {
        "ours": "normal",
        "other": "lora",
        "difference": 0.0613,
        "low": 0.011,
        "high": 0.1116,
        "p_value": 0.0004,
        "verdict": "win",
    }
    level = {**row, "other": "average", "difference": -0.02, "p_value": 0.5, "verdict": "tie"}
    result = {"comparisons": [{**row, "column": "pubmedqa"}, {**row, "column": "mednli"}, {**level, "column": "mednli"}]}
    table = comparison_table({**result, "over_columns": [row]})
    assert [str(column.header) for column in table.columns] == ["Row", "against", "pubmedqa", "mednli", "mean, 95 % interval"]
    won = "+6.1 win (p < 0.001)"
    lines = list(zip(*(column.cells for column in table.columns), strict=True))
    assert lines == [
        ("normal", "lora", won, won, "+6.1 (1.1 to 11.2) win (p < 0.001)"),
        ("normal", "average", "-", "-2.0 tie (p 0.500)", ""),
    ]
    alone = comparison_table({**result, "over_columns": []})
    assert [str(column.header) for column in alone.columns] == ["Row", "against", "pubmedqa", "mednli"]
