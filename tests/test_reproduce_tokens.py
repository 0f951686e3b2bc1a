"""Section 5.2: prompts are counted as in-context learning reads them, without a model's answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import fmean

from test_reproduce import runner_of

from staf.experiments.plan import RunSpec, find_experiment
from staf.experiments.reproduce import prompts, reproduce
from staf.report.reproduced import table_rows


def test_tokens_are_counted_as_in_context_learning_reads_them_and_no_cell_is_run(
    tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    runner = runner_of(tiny_folder, own, tmp_path, baseline={"epochs": 1, "max_prompt_tokens": 900})
    result, _ = reproduce("tokens", "tiny", runner)
    assert not find_experiment("tokens", runner.profile).runs(2)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"reproduce"}
    shown, router = result.rows
    assert [shown.method, router.method] == ["in_context", "few_shot"]
    for column, with_shots, without in zip(result.columns, shown.cells, router.cells, strict=True):
        run = [runner.run(RunSpec(column.task, "in_context", seed))[0]["details"] for seed in range(2)]
        assert with_shots.prompt_tokens == fmean(one["prompt_tokens_mean"] for one in run), column
        assert with_shots.shots_shown == fmean(one["shots_shown_mean"] for one in run)
        assert with_shots.adaptation_examples == run[0]["shots"]
        assert 0 < without.prompt_tokens < with_shots.prompt_tokens
        assert result.prompt_tokens[column.name] == without.prompt_tokens


def test_tokens_of_both_are_cut_at_the_limit_of_in_context_learning(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    whole, cut = (runner_of(tiny_folder, own, tmp_path, baseline={"max_prompt_tokens": limit}) for limit in (900, 100))
    assert fmean(prompts(whole, "covid_qa", None).tokens) > 100
    for seed in (None, 0):
        assert max(prompts(cut, "covid_qa", seed).tokens) <= 97  # three are kept for the answer


def test_a_task_whose_data_is_not_here_leaves_its_count_empty(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    shutil.copytree(own / "ncbi-disease", tmp_path / "part" / "ncbi-disease")
    runner = runner_of(tiny_folder, tmp_path / "part", tmp_path, unseen_data={"mednli": "mednli", "cliner": "ncbi_disease"})
    result, _ = reproduce("tokens", "tiny", runner)
    for row in result.rows:
        assert row.cells[0].mean is None
        assert "mednli" in row.cells[0].missing
        assert (row.cells[1].mean or 0) > 0
    in_context, few_shot = table_rows(result)[0]
    assert in_context.cells["mednli, tokens"] == "-\nnote 1"
    assert few_shot.cells["cliner, tokens"].endswith("0 examples shown")


def test_a_query_that_does_not_fit_leaves_its_count_empty_and_the_others_go_on(
    tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    tasks = {"long": "icd_coding_top10_uci", "short": "ncbi_disease"}
    runner = runner_of(tiny_folder, own, tmp_path, unseen_data=tasks, baseline={"max_prompt_tokens": 200})
    result, _ = reproduce("tokens", "tiny", runner)
    for row in result.rows:
        long, short = row.cells
        assert long.mean is None
        assert "Raise max_length" in long.missing
        assert (short.mean or 0) > 0
