"""A table grows seed by seed: whole and on the page after the first, never replaced by one of fewer, each cell run once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from staf.cli import app
from staf.data.task import find_task
from staf.errors import MissingData, TrainingFailed
from staf.experiments.cells import Cell, Grid
from staf.experiments.profile import Profile, load_profile
from staf.experiments.reproduce import reproduce
from staf.log import NullProgress
from staf.metrics import compute_metrics
from staf.runs import Run
from staf.stages import Context
from staf.stages.evaluation import Scored

TASK = "trial_effect"
STAND_INS = dict.fromkeys(("pubmedqa", "cliner", "mednli"), TASK)
SHOTS = [2, 4]


def profile_of(base: Path) -> Profile:
    return load_profile("cpu", {"base": str(base), "unseen_data": STAND_INS, "shots": SHOTS, "seeds": 3})


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Cells that were run, their answers made up; those of two shots and the last seed fail."""
    met: list[Cell] = []

    def run(self: Grid, cell: Cell) -> Scored:
        met.append(cell)
        if (cell.shots, cell.seed) == (2, 2):
            raise TrainingFailed("no loss was a number.")
        scores = np.random.default_rng(cell.seed).random((30, 3)).tolist()
        rows = [{"id": str(i), "gold": i % 3, "scores": own} for i, own in enumerate(scores)]
        found = Run.at(self.context.runs, "evaluate", cell.task, f"{cell.method}-{cell.shots}", cell.seed, "a1b2")
        result: dict[str, Any] = {
            "stage": "evaluate", "task": TASK, "task_title": "a trial", "method": "few_shot",
            "method_title": "made up", "unseen": True,
            "output_type": "multiple_choice", "primary_metric": "accuracy", "setting": "few-shot", "seed": cell.seed,
            "settings": {},
            "metrics": compute_metrics(find_task(TASK).output_type, rows, fixed_labels=True, resamples=100),
            "comparisons": {},
            "tunable_parameters": 12, "adaptation_examples": cell.shots, "seconds": 1.0, "weights": None,
        }  # fmt: skip
        found.finish({}, result, rows)
        return result, found

    monkeypatch.setattr(Grid, "_run", run)
    return met


@pytest.fixture
def grid(tiny_folder: Path, tmp_path: Path) -> Callable[[], Grid]:
    """Makes the grid anew, as another process would."""
    return lambda: Grid(
        Context(str(tiny_folder), tmp_path, tmp_path / "runs", NullProgress(), "float32"), profile_of(tiny_folder), tmp_path
    )


def seeds_of(result: dict[str, Any]) -> list[int]:
    return [place["seeds"] for line in result["lines"] for place in line["places"]]


def test_the_first_seed_is_a_table_and_more_are_written_in_its_place(ran: list[Cell], grid: Callable[[], Grid]) -> None:
    own = grid()
    first, run = reproduce("fig6", "tiny", own, seeds=1)
    assert run.result() == first
    assert seeds_of(first) == [1] * 6
    assert {cell.seed for cell in ran} == {0}
    second, again = reproduce("fig6", "tiny", own, seeds=2)
    assert again == run
    assert run.result() == second
    assert seeds_of(second) == [2] * 6
    assert second["settings"]["seeds"] == first["settings"]["seeds"] == 3


def test_a_table_of_more_seeds_is_not_replaced_by_one_of_fewer(ran: list[Cell], grid: Callable[[], Grid]) -> None:
    whole, run = reproduce("fig6", "tiny", grid())
    ran.clear()
    assert reproduce("fig6", "tiny", grid(), seeds=1) == (whole, run)
    assert ran == []
    assert run.result() == whole


def test_a_cell_is_run_once_also_where_it_fails(ran: list[Cell], grid: Callable[[], Grid]) -> None:
    own = grid()
    for _ in range(2):
        for seeds in (1, 2, 3):
            result, _ = reproduce("fig6", "tiny", own, seeds=seeds)
    assert len(ran) == len(set(ran)) == 2 * 3
    assert {place.get("missing") for place in result["lines"][0]["places"]} == {"no loss was a number."}
    assert {place["seeds"] for place in result["lines"][1]["places"]} == {3}
    with pytest.raises(TrainingFailed, match="no loss was a number"):
        own.run(Cell(TASK, "few_shot", 2, shots=2))


def test_the_command_says_when_a_seed_is_on_the_page(
    ran: list[Cell], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out, pages = tmp_path / "mine.yaml", tmp_path / "out", []
    file.write_text(yaml.safe_dump(profile_of(tiny_folder).model_dump(mode="json", exclude_none=True)))
    run = Grid._run

    def look(self: Grid, cell: Cell) -> Scored:
        pages.append((cell.seed, (out / "report.html").is_file()))
        return run(self, cell)

    monkeypatch.setattr(Grid, "_run", look)
    arguments = ["reproduce", "fig6", "--profile", str(file), "--out", str(out), "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    assert pages == [(seed, seed > 0) for seed in (0, 0, 1, 1, 2, 2)]
    assert "1 of 3 seeds are done and on the page" in result.output
    assert f"page: {out / 'report.html'}" in result.output


def test_what_is_missing_is_told_before_a_result_is_written(tiny_folder: Path, tmp_path: Path) -> None:
    strict = profile_of(tiny_folder).model_copy(update={"strict": True, "corpora": {"summarization": ["clicr"]}})
    grid = Grid(Context(str(tiny_folder), tmp_path, tmp_path / "runs", NullProgress(), "float32"), strict, tmp_path)
    with pytest.raises(MissingData, match="expert summarization: clicr"):
        reproduce("fig6", "tiny", grid, seeds=1)
    assert not (tmp_path / "runs" / "reproduce").exists()
