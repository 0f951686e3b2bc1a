"""Reproducing: every plan is made of cells that run, places hold ours beside the papers', and what is missing is said."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from staf.baselines.classifiers import CLASSIFIERS
from staf.cli import app
from staf.data.selection import task_examples
from staf.data.statistics import CORPORA
from staf.data.store import DataStore
from staf.data.task import TASKS, find_task
from staf.engines import RunContext, Work
from staf.errors import ConfigError, MissingData, TrainingFailed, UnknownName
from staf.evaluate import sample
from staf.experiments.cells import OUTSIDE, Cell, Grid
from staf.experiments.comparing import comparisons, verdict
from staf.experiments.missing import refuse_missing
from staf.experiments.plans import PLANS
from staf.experiments.printing import place_text
from staf.experiments.profile import PROFILES, Profile, load_profile
from staf.experiments.reproduce import papers_numbers, reproduce
from staf.experiments.running import cells_of, run_cells, spread_cells
from staf.log import NullProgress, Progress
from staf.stages import Context, training_examples
from staf.stages.evaluation import Scored

TINY = {
    "experts": ["entity_relation", "entity_synonymy", "named_entity_recognition"],
    "expert": {"steps": 3, "warmup_steps": 1, "final_steps": 1, "batch_size": 2, "max_length": 900, "initial_rank": 2,
               "target_rank": 1},
    "tokens_of_expert": {"uci-diabetes-130": 1200, "mimic-iii-demo": 1200},
    "few_shot": {"method": "cma", "shots": 4, "max_evaluations": 4, "max_length": 900},
    "normal": {"method": "gradient", "epochs": 1, "max_length": 900},
    "beyond": {
        "zero_shot": {"method": "zero_shot", "shots": 3, "max_length": 900},
        "all_descent": {"method": "gradient", "weighting": "unconstrained", "epochs": 1, "max_length": 900},
    },
    "normal_shots": 6,
    "baseline": {"epochs": 1, "learning_rates": [0.01], "num_virtual_tokens": 2},
    "classifier": {"epochs": 1},
    "evaluation": {"limit": 4, "selection_limit": 3, "max_length": 900, "max_new_tokens": 3, "calibration_examples": 4,
                   "resamples": 100},
    "seeds": 2,
    "unseen_data": {"emrqa": "covid_qa", "pubmedqa": "icd10_relation", "mednli": "icd10_chapter", "cliner": "ncbi_disease"},
    "unseen_task": {"icd_coding": "icd_coding_top10_uci", "medication": "medication_demo", "readmission": "readmission_uci"},
    "label_counts": {10: "icd_coding_top10_uci"},
    "shots": [2, 4],
    "expert_counts": [1, 2],
    "outside_expert": "ncbi-disease",
}  # fmt: skip


TOKENS = {"mimic-iii": (900, 300), "mimic-iii-demo": (676, 245), "uci-diabetes-130": (546, 51)}
"""Longest query and answer that an expert of clinical records trains on: counted with the default base; the first estimated."""
TOKENS_OF_LABEL, LONGEST_LABEL = {"icd_coding": 15, "medication_recommendation": 5}, 30
"""Of a label in a query, by kind, and of a label that is scored; counted with the default base on the demo."""


def grid_of(tiny_folder: Path, own: Path, out: Path, **changes: object) -> Grid:
    sizes = Profile.model_validate({**TINY, **changes})
    return Grid(Context(str(tiny_folder), own, out / "runs", NullProgress(), "float32"), sizes, out)


@pytest.mark.parametrize("name", PROFILES)
def test_the_profiles_that_come_with_staf_fit_every_plan(name: str) -> None:
    profile = load_profile(name)
    assert len(profile.experts) == 12
    for plan in PLANS.values():
        found = plan(profile)
        for line in found.lines:
            for column in found.columns:
                assert column.task in TASKS
                for cell in found.cells(line, column, profile.seeds):
                    for expert in cell.experts or profile.experts:
                        assert profile.of_expert(expert).max_length > sum(TOKENS.get(expert, (0, 0))), expert
                    own, task = profile.of_task(cell.task), TASKS[cell.task]
                    query = TOKENS_OF_LABEL.get(task.task_type, 0) * (task.top or 0)
                    for sizes in (own.evaluation, own.few_shot, own.normal):
                        assert sizes.max_length > query + LONGEST_LABEL, cell.task


def test_a_task_with_a_longer_query_has_sizes_of_its_own() -> None:
    profile = load_profile("cpu")
    own = profile.of_task("medication_demo")
    assert (own.evaluation.max_length, own.few_shot.max_length, own.normal.max_length) == (384,) * 3
    assert all(router.max_length == 384 for router in own.beyond.values())
    assert (own.few_shot.shots, own.normal.shots, own.normal_shots) == (8, None, 12)
    assert {name: router.shots for name, router in own.beyond.items()} == {
        "zero_shot": 8,
        "best_expert": 8,
        "few_shot_informed": 8,
    }
    assert profile.of_task("pubmedqa") is profile
    assert profile.evaluation.max_length < 384
    rare = profile.of_task("readmission_uci")
    assert rare.evaluation == profile.evaluation.model_copy(update={"limit": 200})
    assert rare.few_shot == profile.few_shot.model_copy(update={"shots": 8})
    assert set(profile.sizes_of_task) <= set(TASKS)


def test_the_answers_of_covid_qa_are_in_what_is_read_and_can_be_written() -> None:
    own = load_profile("cpu").of_task("covid_qa").evaluation
    longest_answer, deepest_answer = 77, 576  # tokens of the default base: of an answer, and of a prompt up to its end
    assert own.max_new_tokens >= longest_answer
    assert own.max_length - own.max_new_tokens >= deepest_answer


def test_experts_of_knowledge_types_keep_their_settings_and_others_may_have_more_tokens() -> None:
    profile = load_profile("cpu")
    assert {profile.of_expert(name).digest() for name in profile.experts} == {profile.expert.digest()}
    longer = profile.of_expert("uci-diabetes-130")
    assert longer == profile.expert.model_copy(update={"max_length": profile.tokens_of_expert["uci-diabetes-130"]})


def test_an_expert_of_clinical_records_is_trained_with_tokens_of_its_own(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    small = {**TINY["expert"], "max_length": 64}  # type: ignore[dict-item]
    name = "uci-diabetes-130"
    with pytest.raises(ConfigError, match="Raise max_length"):
        grid_of(tiny_folder, own, tmp_path / "few", expert=small, tokens_of_expert={}).experts((name,))
    grid = grid_of(tiny_folder, own, tmp_path / "more", expert=small, tokens_of_expert={name: 1200})
    assert grid.experts((name,)).names == (name,)


def test_printed_numbers_stand_in_the_columns_of_the_plans() -> None:
    for name, plan in PLANS.items():
        for table in papers_numbers(name).values():
            made = plan(load_profile("paper"))
            assert set(table["columns"]) <= {column.name for column in made.columns}
            assert set(table) - {"columns"} <= {line.name or line.method for line in made.lines}
            assert all(len(row) == len(table["columns"]) for row in table.values())


def test_table_5_has_the_three_metrics_of_the_papers_and_runs_each_cell_once() -> None:
    plan = PLANS["table5"](load_profile("cpu"))
    names = [column.name for column in plan.columns]
    assert sorted(names) == sorted(papers_numbers("table5")["staf-llm"]["columns"])
    for column in plan.columns:
        assert column.metric.endswith({"accuracy": "accuracy", "F1": "f1"}.get(column.name.split()[-1], "auc"))
    assert next(c.name for c in plan.columns if c.task == "readmission_uci") == "readmission"
    cells = cells_of(plan, load_profile("cpu"))
    assert len(cells) == len(set(cells)) == 3 * (3 * 5 + 3 + 1 + 3 * 2)  # classifiers, other systems, average, normal and new


def test_a_method_without_chance_is_one_run() -> None:
    plan = PLANS["table3"](Profile.model_validate(TINY))
    counts = {line.name or line.method: len(list(plan.cells(line, plan.columns[0], 5))) for line in plan.lines}
    assert counts["original"] == counts["average"] == counts["single"] == 1
    assert counts["lora"] == counts["few_shot"] == counts["normal"] == 5


def test_figures_leave_out_tasks_without_a_stand_in_and_tell_where_none_is_left() -> None:
    profile = load_profile("cpu", {"unseen_data": {"medquad": "medmcqa", "cliner": "ncbi_disease"}})
    assert [column.name for column in PLANS["fig6"](profile).columns] == ["cliner"]
    assert [column.name for column in PLANS["fig7"](profile).columns] == ["cliner", "medication"]
    assert [column.name for column in PLANS["fig8"](profile).columns] == ["medication", "readmission"]
    bare = load_profile("cpu", {"unseen_data": {"medquad": "medmcqa"}, "unseen_task": {"icd_coding": "icd_coding_top10_demo"}})
    for name in ("fig6", "fig7", "fig8", "cross-domain"):
        with pytest.raises(MissingData, match=rf"{name} is of the papers' .*only for .*medquad.*unseen_data or unseen_task"):
            PLANS[name](bare)
    with pytest.raises(ConfigError, match="unseen tasks are icd_coding, medication, readmission, found sepsis"):
        load_profile("cpu", {"unseen_task": {"sepsis": "readmission_uci"}})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLANS))
def test_every_plan_runs(tiny_folder: Path, own: Path, tmp_path: Path, name: str) -> None:
    grid = grid_of(tiny_folder, own, tmp_path)
    result, run = reproduce(name, "tiny", grid)
    assert json.loads((run.folder / "result.json").read_text())["lines"] == result["lines"]
    places = [place for line in result["lines"] for place in line["places"]]
    for place in places:
        assert place["mean"] is not None or place["missing"]
        assert all((grid.context.runs / folder / "result.json").is_file() for folder in place["runs"])
    assert any(place["mean"] is not None for place in places), {place.get("missing") for place in places}
    empty = {line["name"] for line in result["lines"] for place in line["places"] if place["mean"] is None}
    assert empty <= ({"encoder", *OUTSIDE} if name == "table5" else {"lorahub"} if find_spec("nevergrad") is None else set())


def test_a_table_goes_on_where_it_was_and_compares_by_item(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_of(tiny_folder, own, tmp_path, seeds=2)
    first, _ = reproduce("fig6", "tiny", grid)
    monkeypatch.setattr("staf.stages.evaluation.predict", None)  # nothing may be predicted again
    again, _ = reproduce("fig6", "tiny", grid_of(tiny_folder, own, tmp_path, seeds=2))
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
    place = RunContext(str(tiny_folder), own, tmp_path / "there" / "runs", "staf-llm", "float32")
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
        app, ["reproduce", "table4", "--profile", "paper", "--out", str(tmp_path / "o"), "--data-dir", str(tmp_path)]
    )
    assert isinstance(result.exception, MissingData)
    assert "base meta-llama/Llama-2-7b-hf" in str(result.exception)
    assert "task readmission: mimic-iii is not here" in str(result.exception)


def test_the_paper_profile_wants_the_corpora_of_table_1_and_no_stand_ins() -> None:
    own: dict[str, set[str]] = {}
    for _, _, kinds, _, names in CORPORA:
        for kind in kinds:
            own.setdefault(kind, set()).add(names[0])
    profile = load_profile("paper")
    assert {kind: set(names) for kind, names in profile.corpora.items()} == own
    assert set(profile.corpora) == set(profile.experts)


def test_a_strict_profile_tells_all_that_is_missing_at_once(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = load_profile("paper", {"base": str(tiny_folder)})
    grid = Grid(Context(str(tiny_folder), own, tmp_path / "runs", NullProgress(), "float32"), profile, tmp_path)
    monkeypatch.setattr(DataStore, "can_have", lambda self, name: name not in ("clicr", "emrqa", "conll-2003"))
    for package in ("peft", "cma", "nevergrad"):
        monkeypatch.setitem(sys.modules, package, None)

    def missing(name: str) -> list[str]:
        with pytest.raises(MissingData) as caught:
            refuse_missing(PLANS[name](profile), grid)
        return [line.strip() for line in str(caught.value).splitlines()[1:]]

    data = ["task emrqa: emrqa", "expert reading_comprehension: clicr", "expert reading_comprehension: emrqa"]
    packages = ["package peft", "package nevergrad", "package cma"]
    for line, start in zip(missing("table3"), [*data, *packages], strict=True):
        assert line.startswith(start)
    (encoder,) = (line for line in missing("table5") if line.startswith("encoder"))
    assert "-o encoder=" in encoder
    assert any(line.startswith("language model epfl-llm/meditron-7b") for line in missing("table5"))
    assert "expert conll-2003: none of conll-2003 is here (staf data list)" in missing("cross-domain")


def test_a_cell_that_fails_leaves_its_place_empty_and_the_others_go_on(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Grid.run

    def diverge(self: Grid, cell: Cell) -> Scored:
        if cell.shots == 2:
            raise TrainingFailed("no loss was a number. Try lower rates.")
        return run(self, cell)

    monkeypatch.setattr(Grid, "run", diverge)
    result, _ = reproduce("fig6", "tiny", grid_of(tiny_folder, own, tmp_path, seeds=1))
    first, second = result["lines"]
    assert {place["missing"] for place in first["places"]} == {"no loss was a number. Try lower rates."}
    assert any(place["mean"] is not None for place in second["places"])


def test_an_expert_that_cannot_be_trained_is_tried_once(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fail(context: Context, name: str, settings: object, out: Path) -> None:
        tried.append(name)
        raise TrainingFailed(f"{name} diverged.")

    monkeypatch.setattr("staf.experiments.cells.train_stage", fail)
    result, _ = reproduce("fig6", "tiny", grid_of(tiny_folder, own, tmp_path))
    assert tried == ["entity_relation"]
    assert {place["missing"] for line in result["lines"] for place in line["places"]} == {"entity_relation diverged."}


def test_an_expert_that_fails_on_a_cluster_leaves_places_empty(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, list[str]] = {}

    def on_cluster(title: str, queue: Sequence[Work], failures: dict[str, BaseException], progress: Progress) -> None:
        given[title] = [job.name for job in queue]
        if title == "train experts":
            failures["entity_synonymy"] = TrainingFailed("no loss was a number.")

    monkeypatch.setattr("staf.experiments.running.spread", on_cluster)
    grid = grid_of(tiny_folder, own, tmp_path, seeds=1, unseen_task={"readmission": "readmission_uci"})
    place = RunContext(str(tiny_folder), own, tmp_path / "runs", "staf-llm", "float32")
    plan = PLANS["fig8"](grid.profile)
    spread_cells(plan, grid, place)
    assert set(given["train experts"]) == {"entity_relation", "entity_synonymy"}
    cells = given[plan.title]
    assert any("original" in name for name in cells)
    assert any("1 experts" in name for name in cells)
    assert not any("2 experts" in name for name in cells)
    with pytest.raises(TrainingFailed, match=r"expert entity_synonymy was not trained\. TrainingFailed: no loss"):
        grid.run(Cell("readmission_uci", "normal", experts=("entity_synonymy",)))


def test_classifiers_of_table_5_are_fitted_on_what_the_new_expert_sees(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    grid = grid_of(tiny_folder, own, tmp_path)
    lines = PLANS["table5"](grid.profile).lines
    assert all(line.changes == {"records": True} for line in lines if line.method in CLASSIFIERS)
    counts = {}
    for records in (False, True):
        result, _ = grid.run(Cell("readmission_uci", "tfidf", records=records))
        counts[records] = result["adaptation_examples"]
    seen = training_examples(grid.context, "uci-diabetes-130", grid.profile.of_expert("uci-diabetes-130"))
    assert counts[False] == grid.profile.normal_shots
    assert counts[True] == counts[False] + sum(example.task_type == "readmission" for example in seen) > counts[False]


def test_another_systems_row_is_empty_until_its_answers_are_named(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    cell = Cell("readmission_uci", "g_bert")
    with pytest.raises(MissingData, match=r"ClinicalBERT \+ G-BERT is not run by staf.*-o 'outside=\{g_bert: FOLDER\}'"):
        grid_of(tiny_folder, own, tmp_path).run(cell)
    grid = grid_of(tiny_folder, own, tmp_path, outside={"g_bert": str(tmp_path)})
    items = sample(task_examples(find_task(cell.task), "test", grid.context.store), grid.profile.evaluation.limit)
    lines = [json.dumps({"id": item.id, "scores": {"yes": -1.0, "no": -0.5}}) for item in items]
    (tmp_path / "readmission_uci.jsonl").write_text("\n".join(lines))
    result, _ = grid.run(cell)
    assert (result["method"], result["setting"]) == ("g_bert", "external")


def test_a_wrong_profile_or_name_is_told(tmp_path: Path, tiny_folder: Path, own: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**TINY, "seed": 3}))
    with pytest.raises(ConfigError, match="seed is not a setting"):
        load_profile(str(file))
    with pytest.raises(UnknownName, match="Did you mean 'table3'"):
        reproduce("tabel3", "tiny", grid_of(tiny_folder, own, tmp_path))
    with pytest.raises(MissingData, match="fig6 is of the papers' pubmedqa, cliner, mednli"):
        reproduce("fig6", "tiny", grid_of(tiny_folder, own, tmp_path, unseen_data={"emrqa": "covid_qa"}))


def test_the_normal_setting_takes_all_examples_where_there_are_fewer_than_the_profile_says(
    tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    counts = {}
    for most in (6, 100_000):
        grid = grid_of(tiny_folder, own, tmp_path / str(most), normal_shots=most)
        result, _ = grid.run(Cell("icd10_chapter", "tfidf"))
        assert result["setting"] == "normal"
        counts[most] = result["adaptation_examples"]
    assert counts[6] == 6 < counts[100_000] < 100_000


def test_a_difference_within_chance_is_a_tie() -> None:
    assert [verdict(0.1, 0.01), verdict(-0.1, 0.01), verdict(0.1, 0.2), verdict(0.0, 0.01)] == ["win", "loss", "tie", "tie"]
