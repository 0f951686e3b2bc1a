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
from staf.errors import DamagedFile, MissingData, TrainingFailed
from staf.experiments.plan import RunSpec
from staf.experiments.profile import Profile, load_profile
from staf.experiments.reproduce import reproduce
from staf.experiments.run import Runner
from staf.log import NullProgress
from staf.metrics.by_output_type import compute_metrics
from staf.report.results import Table
from staf.runs import Run
from staf.stages.context import Context
from staf.stages.evaluation import Scored

TASK = "trial_effect"
STAND_INS = dict.fromkeys(("pubmedqa", "cliner", "mednli"), TASK)
SHOTS = [2, 4]


def profile_of(base: Path) -> Profile:
    return load_profile("cpu", {"base": str(base), "unseen_data": STAND_INS, "shots": SHOTS, "seeds": 3})


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """Cells that were run, their answers made up; those of two shots and the last seed fail."""
    met: list[RunSpec] = []

    def run(self: Runner, spec: RunSpec) -> Scored:
        met.append(spec)
        if (spec.shots, spec.seed) == (2, 2):
            raise TrainingFailed("no loss was a number.")
        scores = np.random.default_rng(spec.seed).random((30, 3)).tolist()
        rows = [{"id": str(i), "gold": i % 3, "scores": own} for i, own in enumerate(scores)]
        found = Run.at(self.context.runs, "evaluate", spec.task, f"{spec.method}-{spec.shots}", spec.seed, "a1b2")
        result: dict[str, Any] = {
            "stage": "evaluate", "task": TASK, "task_title": "a trial", "method": "few_shot",
            "method_title": "made up", "unseen": True,
            "output_type": "multiple_choice", "primary_metric": "accuracy", "setting": "few-shot",
            "seed": spec.seed, "settings": {},
            "metrics": compute_metrics(find_task(TASK).output_type, rows, fixed_labels=True, resamples=100), "comparisons": {},
            "tunable_parameters": 12, "adaptation_examples": spec.shots, "seconds": 1.0, "weights": None,
        }  # fmt: skip
        found.finish({}, result, rows)
        return result, found

    monkeypatch.setattr(Runner, "_run", run)
    return met


@pytest.fixture
def runner(tiny_folder: Path, tmp_path: Path) -> Callable[[], Runner]:
    """Makes the runner anew, as another process would."""
    return lambda: Runner(
        Context(str(tiny_folder), tmp_path, tmp_path / "runs", NullProgress(), "float32"), profile_of(tiny_folder), tmp_path
    )


def seeds_of(result: Table) -> list[int]:
    return [cell.seeds for row in result.rows for cell in row.cells]


def test_the_first_seed_is_a_table_and_more_are_written_in_its_place(ran: list[RunSpec], runner: Callable[[], Runner]) -> None:
    own = runner()
    first, run = reproduce("fig6", "tiny", own, seeds=1)
    assert Table.model_validate(run.result()) == first
    assert seeds_of(first) == [1] * 6
    assert {spec.seed for spec in ran} == {0}
    second, again = reproduce("fig6", "tiny", own, seeds=2)
    assert again == run
    assert Table.model_validate(run.result()) == second
    assert seeds_of(second) == [2] * 6
    assert second.settings["seeds"] == first.settings["seeds"] == 3


def test_a_table_of_more_seeds_is_not_replaced_by_one_of_fewer(ran: list[RunSpec], runner: Callable[[], Runner]) -> None:
    whole, run = reproduce("fig6", "tiny", runner())
    ran.clear()
    assert reproduce("fig6", "tiny", runner(), seeds=1) == (whole, run)
    assert ran == []
    assert Table.model_validate(run.result()) == whole


def test_a_table_of_another_base_is_made_anew_and_a_damaged_one_is_named(
    ran: list[RunSpec], runner: Callable[[], Runner]
) -> None:
    whole, run = reproduce("fig6", "tiny", runner())
    path = run.folder / "result.json"
    other = runner()
    other.context.__dict__["identity"] = {**other.context.identity, "fingerprint": "another"}
    made, again = reproduce("fig6", "tiny", other, seeds=1)
    assert (again, made.seeds, whole.seeds) == (run, 1, 3)
    for content in ("[]", '{"stage": "reproduce", "seeds": "many"}'):
        path.write_text(content)
        with pytest.raises(DamagedFile, match="is not a result of a run"):
            reproduce("fig6", "tiny", runner(), seeds=1)


def test_a_spec_is_run_once_also_where_it_fails(ran: list[RunSpec], runner: Callable[[], Runner]) -> None:
    own = runner()
    for _ in range(2):
        for seeds in (1, 2, 3):
            result, _ = reproduce("fig6", "tiny", own, seeds=seeds)
    assert len(ran) == len(set(ran)) == 2 * 3
    assert {cell.missing for cell in result.rows[0].cells} == {"no loss was a number."}
    assert {cell.seeds for cell in result.rows[1].cells} == {3}
    with pytest.raises(TrainingFailed, match="no loss was a number"):
        own.run(RunSpec(TASK, "few_shot", 2, shots=2))


def test_the_command_says_when_a_seed_is_on_the_page(
    ran: list[RunSpec], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out, pages = tmp_path / "mine.yaml", tmp_path / "out", []
    file.write_text(yaml.safe_dump(profile_of(tiny_folder).model_dump(mode="json", exclude_none=True)))
    run = Runner._run

    def look(self: Runner, spec: RunSpec) -> Scored:
        pages.append((spec.seed, (out / "report.html").is_file()))
        return run(self, spec)

    monkeypatch.setattr(Runner, "_run", look)
    arguments = ["reproduce", "fig6", "--profile", str(file), "--out", str(out), "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    assert pages == [(seed, seed > 0) for seed in (0, 0, 1, 1, 2, 2)]
    assert "1 of 3 seeds are done and on the page" in result.output
    assert "report.html; the others take about 4.0 s" in " ".join(result.output.split())  # two rows, two seeds, one second each
    assert f"page: {out / 'report.html'}" in result.output


def test_a_table_or_shard_without_a_number_is_a_failure(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Runner, spec: RunSpec) -> Scored:
        raise TrainingFailed("no loss was a number.")

    monkeypatch.setattr(Runner, "_run", fail)
    file, out = tmp_path / "mine.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(profile_of(tiny_folder).model_dump(mode="json", exclude_none=True)))
    common = ["reproduce", "fig6", "--profile", str(file), "--out", str(out), "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(app, common)
    assert isinstance(result.exception, MissingData)
    assert str(result.exception) == "no cell of fig6 has a number. The first reason: no loss was a number."
    assert (out / "tables" / "fig6.md").is_file()
    result = CliRunner().invoke(app, [*common, "--shard", "0/2"])
    assert isinstance(result.exception, MissingData)
    assert "0 of 3 runs of shard 0/2 are finished" in result.output


def test_what_is_missing_is_reported_before_a_result_is_written(tiny_folder: Path, tmp_path: Path) -> None:
    strict = profile_of(tiny_folder).model_copy(update={"strict": True, "corpora": {"summarization": ["clicr"]}})
    runner = Runner(Context(str(tiny_folder), tmp_path, tmp_path / "runs", NullProgress(), "float32"), strict, tmp_path)
    with pytest.raises(MissingData, match="expert summarization: clicr"):
        reproduce("fig6", "tiny", runner, seeds=1)
    assert not (tmp_path / "runs" / "reproduce").exists()


def test_the_command_makes_the_runs_of_a_shard_and_no_table(ran: list[RunSpec], tiny_folder: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "mine.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(profile_of(tiny_folder).model_dump(mode="json", exclude_none=True)))
    common = ["reproduce", "fig6", "--profile", str(file), "--out", str(out), "--data-dir", str(tmp_path)]
    for index in range(2):
        result = CliRunner().invoke(app, [*common, "--shard", f"{index}/2"])
        assert result.exit_code == 0, result.exception
        assert f"of 3 runs of shard {index}/2 are finished" in result.output
    assert len(ran) == len(set(ran)) == 6
    assert not (out / "runs" / "reproduce").exists()
    assert CliRunner().invoke(app, common).exit_code == 0
    assert (out / "tables" / "fig6.csv").is_file()
    assert (out / "tables" / "fig6.md").is_file()
