"""Table 5's other language model: named, it is trained here on what the row "new" has; else its answers are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_reproduce import grid_of

from staf.baselines.settings import BaselineSettings
from staf.data.selection import task_examples
from staf.data.task import find_task
from staf.errors import MissingData
from staf.experiments.cells import Cell
from staf.experiments.plans import PLANS
from staf.stages import baseline_stage

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
    without = PLANS["table5"](grid_of(tiny_folder, own, tmp_path).profile)
    plan = PLANS["table5"](grid_of(tiny_folder, own, tmp_path, causal=str(other_folder)).profile)
    assert [line.method for line in without.lines if line.name == "meditron" or line.method == "meditron"] == ["meditron"]
    (line,) = (line for line in plan.lines if "meditron" in (line.name, line.method))
    assert (line.method, line.name, line.title) == ("causal", "meditron", "tiny-meditron, LoRA")
    assert len(list(plan.cells(line, plan.columns[0], 2))) == 2
    assert len(plan.lines) == len(without.lines)


def test_it_learns_from_adaptation_examples_and_records_and_is_its_own_base(
    tiny_folder: Path, own: Path, tmp_path: Path, other_folder: Path
) -> None:
    grid = grid_of(tiny_folder, own, tmp_path, causal=str(other_folder))
    result, run = grid.run(Cell(TASK, "causal", records=True))
    assert (result["base"]["name"], result["method"], result["setting"]) == (str(other_folder), "lora", "normal")
    records = grid._records(find_task(TASK))
    drawn = grid.profile.normal_shots
    assert drawn is not None
    assert drawn < result["adaptation_examples"] <= drawn + len(records)
    again = grid_of(tiny_folder, own, tmp_path, causal=str(other_folder)).run(Cell(TASK, "causal", records=True))
    assert again[1] == run
    assert again[0]["metrics"] == result["metrics"]
    alone, _ = grid.run(Cell(TASK, "lora"))
    assert alone["base"]["name"] == str(tiny_folder)
    assert alone["adaptation_examples"] == drawn


def test_records_are_learned_from_with_the_rate_that_was_chosen_without_them(
    tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    grid, task = grid_of(tiny_folder, own, tmp_path), find_task(TASK)
    settings = BaselineSettings(method="lora", shots=6, epochs=1, learning_rates=(0.01, 0.001))
    records = grid._records(task)
    known = {example.id for example in task_examples(task, "adaptation", grid.context.store)}
    plain, with_records = (
        baseline_stage(grid.context, task, settings, grid.profile.evaluation, "normal", 0, more)[0] for more in ((), records)
    )
    for key in ("learning_rate", "epochs", "validation_ids"):
        assert plain["details"][key] == with_records["details"][key]
    assert with_records["adaptation_examples"] == 6 + sum(record.id not in known for record in records)


def test_without_a_name_the_row_says_how_to_get_it(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    grid = grid_of(tiny_folder, own, tmp_path)
    with pytest.raises(MissingData, match=r"'outside=\{meditron: FOLDER\}'.*-o causal="):
        grid.run(Cell(TASK, "meditron"))
    with pytest.raises(MissingData, match="-o causal="):
        grid.run(Cell(TASK, "causal"))
