"""Section 5.2: prompts are counted as in-context learning reads them, without a model's answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import fmean

from test_reproduce import grid_of

from staf.experiments.cells import Cell
from staf.experiments.counting import prompts
from staf.experiments.plans import PLANS
from staf.experiments.printing import counted_text
from staf.experiments.reproduce import reproduce
from staf.experiments.running import cells_of


def test_tokens_are_counted_as_in_context_learning_reads_them_and_no_cell_is_run(
    tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    grid = grid_of(tiny_folder, own, tmp_path, baseline={"epochs": 1, "max_prompt_tokens": 900})
    result, _ = reproduce("tokens", "tiny", grid)
    assert not cells_of(PLANS["tokens"](grid.profile), grid.profile)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"reproduce"}
    shown, alone = result["lines"]
    assert [shown["method"], alone["method"]] == ["in_context", "few_shot"]
    for column, with_shots, without in zip(result["columns"], shown["places"], alone["places"], strict=True):
        run = [grid.run(Cell(column["task"], "in_context", seed))[0]["details"] for seed in range(2)]
        assert with_shots["prompt_tokens"] == fmean(one["prompt_tokens_mean"] for one in run), column
        assert with_shots["shots_shown"] == fmean(one["shots_shown_mean"] for one in run)
        assert with_shots["adaptation_examples"] == run[0]["shots"]
        assert 0 < without["prompt_tokens"] < with_shots["prompt_tokens"]
        assert result["prompt_tokens"][column["name"]] == without["prompt_tokens"]


def test_tokens_of_both_are_cut_at_the_limit_of_in_context_learning(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    whole, cut = (grid_of(tiny_folder, own, tmp_path, baseline={"max_prompt_tokens": limit}) for limit in (900, 100))
    assert fmean(prompts(whole, "covid_qa", None).tokens) > 100
    for seed in (None, 0):
        assert max(prompts(cut, "covid_qa", seed).tokens) <= 97  # three are kept for the answer


def test_a_task_whose_data_is_not_here_leaves_its_count_empty(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    shutil.copytree(own / "ncbi-disease", tmp_path / "part" / "ncbi-disease")
    grid = grid_of(tiny_folder, tmp_path / "part", tmp_path, unseen_data={"mednli": "mednli", "cliner": "ncbi_disease"})
    result, _ = reproduce("tokens", "tiny", grid)
    for line in result["lines"]:
        assert line["places"][0]["mean"] is None
        assert "mednli" in line["places"][0]["missing"]
        assert line["places"][1]["mean"] > 0
    assert counted_text(result["lines"][0]["places"][0]) == "-"
    assert counted_text(result["lines"][1]["places"][1]).endswith("tokens, 0.0 shots")


def test_a_query_that_does_not_fit_leaves_its_count_empty_and_the_others_go_on(
    tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    tasks = {"long": "icd_coding_top10_uci", "short": "ncbi_disease"}
    grid = grid_of(tiny_folder, own, tmp_path, unseen_data=tasks, baseline={"max_prompt_tokens": 200})
    result, _ = reproduce("tokens", "tiny", grid)
    for line in result["lines"]:
        long, short = line["places"]
        assert long["mean"] is None
        assert "Raise max_length" in long["missing"]
        assert short["mean"] > 0
