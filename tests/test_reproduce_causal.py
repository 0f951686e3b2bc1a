"""Table 5's other language model: named, it is trained here on what the row "new" has; else its answers are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_reproduce import runner_of

from staf.baselines.settings import BaselineSettings
from staf.data.selection import task_examples
from staf.data.task import find_task
from staf.errors import MissingData
from staf.experiments.plan import RunSpec, find_experiment
from staf.stages.evaluation import baseline_stage

TASK = "readmission_uci"


@pytest.fixture(scope="module")
def other_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with other weights."""
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("other") / "tiny-meditron")
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(1)
    changed = {name: weight + 0.1 * torch.randn_like(weight) for name, weight in weights.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_named_model_takes_the_row_of_meditron(tiny_folder: Path, own: Path, tmp_path: Path, other_folder: Path) -> None:
    without = find_experiment("table5", runner_of(tiny_folder, own, tmp_path).profile)
    experiment = find_experiment("table5", runner_of(tiny_folder, own, tmp_path, language_model=str(other_folder)).profile)
    assert [row.method for row in without.rows if row.name == "meditron"] == ["meditron"]
    (row,) = (row for row in experiment.rows if row.name == "meditron")
    assert (row.method, row.name, row.title) == ("language_model", "meditron", "tiny-meditron, LoRA")
    assert len(list(experiment.cell(row, experiment.columns[0], 2))) == 2
    assert len(experiment.rows) == len(without.rows)


def test_it_learns_from_adaptation_examples_and_records_and_is_its_own_base(
    tiny_folder: Path, own: Path, tmp_path: Path, other_folder: Path
) -> None:
    runner = runner_of(tiny_folder, own, tmp_path, language_model=str(other_folder))
    result, run = runner.run(RunSpec(TASK, "language_model", records=True))
    assert (result["base"]["name"], result["method"], result["setting"]) == (str(other_folder), "lora", "training set")
    records = runner.records(RunSpec(TASK, "language_model", records=True))
    drawn = runner.profile.normal_shots
    assert drawn is not None
    assert drawn < result["adaptation_examples"] <= drawn + len(records)
    again = runner_of(tiny_folder, own, tmp_path, language_model=str(other_folder)).run(
        RunSpec(TASK, "language_model", records=True)
    )
    assert again[1] == run
    assert again[0]["metrics"] == result["metrics"]
    single, _ = runner.run(RunSpec(TASK, "lora"))
    assert single["base"]["name"] == str(tiny_folder)
    assert single["adaptation_examples"] == drawn


def test_records_are_learned_from_with_the_rate_that_was_chosen_without_them(
    tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    runner, task = runner_of(tiny_folder, own, tmp_path), find_task(TASK)
    settings = BaselineSettings(method="lora", shots=6, epochs=1, learning_rates=(0.01, 0.001))
    records = runner.records(RunSpec(TASK, "lora", records=True))
    known = {example.id for example in task_examples(task, "adaptation", runner.context.store)}
    plain, with_records = (
        baseline_stage(runner.context, task, settings, runner.profile.evaluation, "normal", 0, more)[0]
        for more in ((), records)
    )
    for key in ("learning_rate", "epochs", "trials"):
        assert plain["details"][key] == with_records["details"][key]
    assert with_records["adaptation_examples"] == 6 + sum(record.id not in known for record in records)


def test_without_a_name_the_row_says_how_to_get_it(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    runner = runner_of(tiny_folder, own, tmp_path)
    with pytest.raises(MissingData, match=r"'external=\{meditron: FOLDER\}'.*-o language_model="):
        runner.run(RunSpec(TASK, "meditron"))
    with pytest.raises(MissingData, match="-o language_model="):
        runner.run(RunSpec(TASK, "language_model"))
