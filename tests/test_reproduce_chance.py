"""Cells and comparisons of a reproduced table count the chance of items and of seeds; their runs are made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from metric_runs import compare_methods

from staf.data.task import find_task
from staf.errors import DamagedFile
from staf.experiments.plan import Experiment, Row, RunSpec
from staf.experiments.reproduce import cell_of, compare, over_columns
from staf.metrics.by_output_type import compute_metrics
from staf.metrics.stats import metric_family
from staf.report.results import Column, PairedTest
from staf.runs import Run
from staf.stages.evaluation import Scored

TASK = "trial_effect"
ROWS = tuple(Row(method=name, name=name) for name in ("normal", "original"))


def column(name: str, task: str, metric: str) -> Column:
    return Column(name=name, task=task, title=task, metric=metric)


PLAN = Experiment(title="", tasks=(), rows=ROWS, columns=(column("mednli", TASK, "accuracy"),))
ITEMS = 100


def runner_at(runs: Path) -> Any:
    sizes = SimpleNamespace(seeds=3, evaluation=SimpleNamespace(resamples=200))
    return SimpleNamespace(context=SimpleNamespace(runs=runs), profile=sizes)


def scored(runs: Path, method: str, seed: int, right: int) -> Scored:
    """A finished run that has the first so many of the items right."""
    rows = [{"id": str(i), "gold": i % 3, "scores": np.eye(3)[(i + (i >= right)) % 3].tolist()} for i in range(ITEMS)]
    run = Run.at(runs, "evaluate", TASK, method, seed, "a1b2")
    result = {
        "stage": "evaluate", "method": method, "seed": seed, "primary_metric": "accuracy", "task": TASK,
        "metrics": compute_metrics(find_task(TASK).output_type, rows, fixed_labels=True, resamples=200),
        "tunable_parameters": 1, "adaptation_examples": 32, "seconds": 1.0, "weights": None,
    }  # fmt: skip
    run.finish({}, result, rows)
    return result, run


def found_in(runs: Path, rights: tuple[int, ...], original: int) -> dict[RunSpec, Any]:
    found: dict[RunSpec, Any] = {RunSpec(TASK, "normal", i): scored(runs, "normal", i, right) for i, right in enumerate(rights)}
    return found | {RunSpec(TASK, "original"): scored(runs, "original", 0, original)}


@pytest.mark.parametrize(("rights", "outcome"), [((60, 60, 60), "win"), ((45, 60, 75), "tie"), ((40, 40, 41), "loss")])
def test_a_difference_within_the_spread_of_seeds_is_a_tie(tmp_path: Path, rights: tuple[int, ...], outcome: str) -> None:
    runner, found = runner_at(tmp_path), found_in(tmp_path, rights, 50)
    tests = {(test.ours, test.other): test for test in compare(PLAN, found, runner, 3)}
    compared = tests["normal", "original"]
    assert compared.outcome == outcome
    assert compared.difference == pytest.approx(sum(rights) / 300 - 0.5)
    assert (compared.low <= 0 <= compared.high) == (outcome == "tie")


def test_ties_of_several_columns_may_be_a_win_together() -> None:
    one = PairedTest(
        column="a", ours="normal", other="original", difference=0.08, low=-0.02, high=0.18, p_value=0.11, outcome="tie"
    )
    only = one.model_copy(update={"other": "average"})
    another = one.model_copy(update={"column": "a, another metric", "difference": 0.9})
    columns = [column(name, name[0], "accuracy") for name in (*"abcd", "a, another metric")]
    (mean,) = over_columns(columns, [*(one.model_copy(update={"column": name}) for name in "abcd"), only, another])
    assert (mean.ours, mean.other, mean.outcome) == ("normal", "original", "win")
    assert mean.model_dump()["columns"] == 4
    assert (mean.difference, mean.low, mean.high) == pytest.approx((0.08, 0.03, 0.13))
    assert mean.p_value == pytest.approx(0.0017, abs=2e-4)


def test_degrees_of_freedom_survive_saving_and_reach_the_mean_over_columns(tmp_path: Path) -> None:
    runner, found = runner_at(tmp_path), found_in(tmp_path, (55, 60, 65), 50)
    (one,) = (test for test in compare(PLAN, found, runner, 3) if test.ours == "normal")
    assert one.freedom is not None
    saved = PairedTest.model_validate_json(one.model_dump_json())
    assert saved == one
    columns = [column(name, name, "accuracy") for name in "ab"]
    tests = [saved.model_copy(update={"column": name}) for name in "ab"]
    (mean,) = over_columns(columns, tests)
    assert mean.freedom == pytest.approx(2 * one.freedom)  # Satterthwaite: two equal errors
    (normal,) = over_columns(columns, [test.model_copy(update={"freedom": None}) for test in tests])
    assert mean.p_value != normal.p_value


def test_means_over_columns_are_of_one_family_of_metrics() -> None:
    one = PairedTest(column="a", ours="normal", other="original", difference=0.1, low=0, high=0.2, p_value=0.05, outcome="tie")
    metrics = {"a": "micro_auc", "b": "macro_auc", "c": "micro_f1", "d": "accuracy", "e": "exact_match"}
    columns = [column(name, name, metric) for name, metric in metrics.items()]
    tests = [one.model_copy(update={"column": name}) for name in metrics]
    means = {mean.family: mean.columns for mean in over_columns(columns, tests)}
    assert sorted(means.values()) == [2, 2]  # one column of F1 is no mean
    assert set(means) == {metric_family("micro_auc"), metric_family("accuracy")}


def test_a_run_whose_result_is_damaged_is_named(tmp_path: Path) -> None:
    result, run = scored(tmp_path, "normal", 0, 60)
    (run.folder / "result.json").write_text('{"stage": "evaluate"}')
    with pytest.raises(DamagedFile, match="primary_metric: Field required"):
        cell_of([(result, run)], "accuracy", runner_at(tmp_path))


def test_a_cell_keeps_the_interval_over_items_and_seeds(tmp_path: Path) -> None:
    runner, found = runner_at(tmp_path), found_in(tmp_path, (60, 61, 62), 50)
    seeds = [found[RunSpec(TASK, "normal", seed)] for seed in range(3)]
    several, one = cell_of(seeds, "accuracy", runner), cell_of([found[RunSpec(TASK, "original")]], "accuracy", runner)
    low, high = several.ends or (0.0, 0.0)
    assert (several.high or 1) - (several.low or 0) < 0.06  # over seeds only
    assert high - low > 0.17  # 1.96 standard errors of a share of 0.61 of 100 items, on both sides
    assert low < (several.mean or 0) < high
    assert one.interval == one.interval_of_one_seed
    spread = cell_of([found[RunSpec(TASK, "normal", 0)], scored(tmp_path, "normal", 9, 90)], "accuracy", runner).interval
    assert spread
    assert (spread[1] or 0) - (spread[0] or 0) > 1


def test_a_cell_and_a_comparison_with_a_sure_method_are_of_the_same_kind(tmp_path: Path) -> None:
    found = found_in(tmp_path, (50, 60, 70), 0)
    runs = [found[RunSpec(TASK, "normal", seed)][1].predictions() for seed in range(3)]
    never = [found[RunSpec(TASK, "original")][1].predictions()]
    compared = compare_methods("multiple_choice", "accuracy", runs, never, fixed_labels=True, resamples=2000)
    cell = cell_of([found[RunSpec(TASK, "normal", seed)] for seed in range(3)], "accuracy", runner_at(tmp_path))
    assert compared is not None
    assert cell.ends == pytest.approx((compared.low, compared.high), abs=0.02)
