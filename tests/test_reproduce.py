"""Reproducing: every plan is made of cells that run, places hold ours beside the papers', and what is missing is said."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from staf.cli import app
from staf.engines import Place
from staf.errors import ConfigError, MissingData, UnknownName
from staf.experiments.cells import Cell, Grid
from staf.experiments.plans import PLANS
from staf.experiments.printing import place_text
from staf.experiments.profile import PROFILES, Profile, load_profile
from staf.experiments.reproduce import comparisons, papers_numbers, reproduce, run_cells, verdict
from staf.progress import Silence
from staf.tasks.rows import TASKS
from staf.workflow import Session

TINY = {
    "experts": ["entity_relation", "entity_synonymy", "named_entity_recognition"],
    "expert": {"steps": 3, "warmup_steps": 1, "final_steps": 1, "batch_size": 2, "max_tokens": 900, "initial_rank": 2,
               "target_rank": 1},
    "few_shot": {"method": "cma", "shots": 4, "evaluations": 4, "max_tokens": 900},
    "normal": {"method": "gradient", "epochs": 1, "max_tokens": 900},
    "beyond": {
        "zero_shot": {"method": "zero_shot", "shots": 3, "max_tokens": 900},
        "all_descent": {"method": "gradient", "weighting": "free", "epochs": 1, "max_tokens": 900},
    },
    "normal_shots": 6,
    "baseline": {"epochs": 1, "learning_rates": [0.01], "virtual_tokens": 2},
    "classifier": {"epochs": 1},
    "evaluation": {"limit": 4, "selection_limit": 3, "max_tokens": 900, "max_new_tokens": 3, "calibration_examples": 4,
                   "resamples": 100},
    "seeds": 2,
    "unseen_data": {"emrqa": "covid_qa", "pubmedqa": "hpo_relation", "mednli": "icd10_chapter", "cliner": "ncbi_disease"},
    "unseen_task": {"icd_coding": "icd_coding_top10_uci", "medication": "medication_uci", "readmission": "readmission_uci"},
    "label_counts": {10: "icd_coding_top10_uci"},
    "shots": [2, 4],
    "expert_counts": [1, 2],
    "outside_expert": "ncbi-disease",
}  # fmt: skip


def grid_of(tiny_folder: Path, own: Path, out: Path, **changes: object) -> Grid:
    sizes = Profile.model_validate({**TINY, **changes})
    return Grid(Session(str(tiny_folder), own, out / "runs", Silence(), "float32"), sizes, out)


@pytest.mark.parametrize("name", PROFILES)
def test_the_profiles_that_come_with_staf_fit_every_plan(name: str) -> None:
    profile = load_profile(name)
    assert len(profile.experts) == 12
    for plan in PLANS.values():
        found = plan(profile)
        for line in found.lines:
            for column in found.columns:
                assert column.task in TASKS
                assert list(found.cells(line, column, profile.seeds))


def test_a_task_with_a_longer_query_has_sizes_of_its_own() -> None:
    profile = load_profile("cpu")
    name, tokens = next(iter(profile.tokens_of_task.items()))
    own = profile.of_task(name)
    assert (own.evaluation.max_tokens, own.few_shot.max_tokens, own.normal.max_tokens) == (tokens,) * 3
    assert own.evaluation.limit == profile.evaluation.limit
    assert profile.of_task("pubmedqa") is profile
    assert profile.evaluation.max_tokens < tokens
    assert set(profile.tokens_of_task) <= set(TASKS)


def test_printed_numbers_stand_in_the_columns_of_the_plans() -> None:
    for name, plan in PLANS.items():
        for table in papers_numbers(name).values():
            made = plan(load_profile("paper"))
            assert set(table["columns"]) <= {column.name for column in made.columns}
            assert set(table) - {"columns"} <= {line.name or line.method for line in made.lines}
            assert all(len(row) == len(table["columns"]) for row in table.values())


def test_a_method_without_chance_is_one_run() -> None:
    plan = PLANS["table3"](Profile.model_validate(TINY))
    counts = {line.name or line.method: len(list(plan.cells(line, plan.columns[0], 5))) for line in plan.lines}
    assert counts["original"] == counts["average"] == counts["single"] == 1
    assert counts["lora"] == counts["few_shot"] == counts["normal"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLANS))
def test_every_plan_runs(tiny_folder: Path, own: Path, tmp_path: Path, name: str) -> None:
    grid = grid_of(tiny_folder, own, tmp_path)
    result, run = reproduce(name, "tiny", grid)
    assert json.loads((run.folder / "result.json").read_text())["lines"] == result["lines"]
    places = [place for line in result["lines"] for place in line["places"]]
    for place in places:
        assert place["mean"] is not None or place["missing"]
        assert all((grid.session.runs / folder / "result.json").is_file() for folder in place["runs"])
    assert any(place["mean"] is not None for place in places), {place.get("missing") for place in places}
    empty = {line["name"] for line in result["lines"] for place in line["places"] if place["mean"] is None}
    assert empty <= ({"encoder"} if name == "table5" else {"lorahub"} if find_spec("nevergrad") is None else set())


def test_a_table_goes_on_where_it_was_and_compares_by_item(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_of(tiny_folder, own, tmp_path, seeds=2)
    first, _ = reproduce("fig6", "tiny", grid)
    monkeypatch.setattr("staf.workflow.evaluation.predict", None)  # nothing may be predicted again
    again, _ = reproduce("fig6", "tiny", grid)
    assert again == first
    plan = PLANS["fig6"](grid.profile)
    rows = comparisons(plan, run_cells(plan, grid), grid)
    assert {row["verdict"] for row in rows} <= {"win", "loss", "tie"}
    pairs = {(row["ours"], row["other"], row["column"]): row["difference"] for row in rows}
    assert pairs["2", "4", "mednli"] == pytest.approx(-pairs["4", "2", "mednli"])


@pytest.mark.slow
def test_cells_on_a_cluster_are_those_of_one_process(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    here, there = (grid_of(tiny_folder, own, tmp_path / name, seeds=1) for name in ("here", "there"))
    place = Place(str(tiny_folder), own, tmp_path / "there" / "runs", "staf-llm", "float32")
    expected = reproduce("fig6", "tiny", here)[0]["lines"]
    found = reproduce("fig6", "tiny", there, place)[0]["lines"]
    assert [[p["mean"] for p in line["places"]] for line in found] == [[p["mean"] for p in line["places"]] for line in expected]


def test_seeds_are_done_one_after_the_other_and_missing_data_leaves_places_empty(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[int] = []

    def refuse(self: Grid, cell: Cell) -> None:
        met.append(cell.seed)
        raise MissingData("not here. Get it.")

    monkeypatch.setattr(Grid, "run", refuse)
    result, _ = reproduce("table4", "tiny", grid_of(tiny_folder, own, tmp_path))
    assert met == sorted(met)
    assert {place["missing"] for line in result["lines"] for place in line["places"]} == {"not here. Get it."}
    assert result["comparisons"] == []
    assert place_text(result["lines"][0]["places"][0]) == "-\nstaf-llm 29.6\nsa-mdkif 29.6"


def test_the_paper_profile_refuses_with_all_that_is_missing(tmp_path: Path, own: Path) -> None:
    result = CliRunner().invoke(
        app, ["reproduce", "table4", "--profile", "paper", "--out", str(tmp_path / "o"), "--data", str(tmp_path)]
    )
    assert isinstance(result.exception, MissingData)
    assert "base meta-llama/Llama-2-7b-hf" in str(result.exception)
    assert "task readmission: none of mimic-iii is here" in str(result.exception)


def test_a_wrong_profile_or_name_is_told(tmp_path: Path, tiny_folder: Path, own: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**TINY, "seed": 3}))
    with pytest.raises(ConfigError, match="seed is not a setting"):
        load_profile(str(file))
    with pytest.raises(UnknownName, match="Did you mean 'table3'"):
        reproduce("tabel3", "tiny", grid_of(tiny_folder, own, tmp_path))
    without = {key: value for key, value in TINY["unseen_task"].items() if key != "medication"}  # type: ignore[attr-defined]
    with pytest.raises(MissingData, match="needs a task for 'medication'"):
        reproduce("fig7", "tiny", grid_of(tiny_folder, own, tmp_path, unseen_task=without))


def test_the_normal_setting_takes_all_examples_where_there_are_fewer_than_the_profile_says(
    tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    counts = {}
    for most in (6, 100_000):
        grid = grid_of(tiny_folder, own, tmp_path / str(most), normal_shots=most)
        result, _ = grid.run(Cell("icd10_chapter", "logistic"))
        assert result["setting"] == "normal"
        counts[most] = result["adaptation_examples"]
    assert counts[6] == 6 < counts[100_000] < 100_000


def test_a_difference_within_chance_is_a_tie() -> None:
    assert [verdict(0.1, 0.01), verdict(-0.1, 0.01), verdict(0.1, 0.2), verdict(0.0, 0.01)] == ["win", "loss", "tie", "tie"]
