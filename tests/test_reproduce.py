"""Reproducing: every plan is made of cells that run, cells hold ours next to the papers', and what is missing is said."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from staf.baselines.classifiers import CLASSIFIERS
from staf.baselines.settings import BaselineSettings
from staf.cli import app
from staf.compute import ComputeOptions
from staf.data.paper_tables import paper_tables
from staf.data.selection import task_examples
from staf.data.store import DataStore
from staf.data.task import builtin_tasks, find_task
from staf.errors import ConfigError, MissingData, TrainingFailed, UnknownName
from staf.evaluate.score import sample
from staf.experiments.plan import EXTERNAL, RunSpec, declared_experiments, find_experiment
from staf.experiments.profile import Profile, load_profile
from staf.experiments.reproduce import refuse_missing, reproduce, run_shard, write_tables
from staf.experiments.run import Runner, parse_shard, run_on_cluster
from staf.experts.launch import Failures, Job
from staf.log import NullProgress, Progress
from staf.report.reproduced import table_rows
from staf.report.results import TABLES, Table
from staf.stages.context import Context, RunContext
from staf.stages.evaluation import Scored
from staf.stages.training import training_examples

TINY = {
    "experts": ["entity_relation", "entity_synonymy", "named_entity_recognition"],
    "expert": {"steps": 3, "tinit": 1, "tfinal": 1, "batch_size": 2, "max_length": 900, "initial_rank": 2,
               "target_rank": 1},
    "expert_max_length": {"uci-diabetes-130": 1200, "mimic-iii-demo": 1200},
    "few_shot": {"method": "cma", "shots": 4, "max_evaluations": 4, "max_length": 900},
    "normal": {"method": "gradient", "epochs": 1, "max_length": 900},
    "extra_routers": {
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
    "foreign_expert": "ncbi-disease",
}  # fmt: skip


TOKENS = {"mimic-iii": (900, 300), "mimic-iii-demo": (676, 245), "uci-diabetes-130": (546, 51)}
"""Longest query and answer that an expert of clinical records trains on: counted with the default base; the first estimated."""
TOKENS_OF_LABEL, LONGEST_LABEL = {"icd_coding": 15, "medication_recommendation": 5, "icd10_section": 10}, 30
"""Of a label in a query, by kind, and of a label that is scored; counted with the default base."""


def runner_of(tiny_folder: Path, own: Path, out: Path, **changes: object) -> Runner:
    sizes = Profile.model_validate({**TINY, **changes})
    return Runner(Context(str(tiny_folder), own, out / "runs", NullProgress(), "float32"), sizes, out)


@pytest.mark.parametrize("name", ["cpu", "paper"])
def test_the_profiles_that_come_with_staf_fit_every_experiment(name: str) -> None:
    profile = load_profile(name)
    assert len(profile.experts) == 12
    for table in TABLES:
        found = find_experiment(table, profile)
        for row in found.rows:
            for column in found.columns:
                assert column.task in builtin_tasks()
                for spec in found.cell(row, column, profile.seeds):
                    for expert in spec.experts or profile.experts:
                        assert profile.of_expert(expert).max_length > sum(TOKENS.get(expert, (0, 0))), expert
                    own, task = profile.of_task(spec.task), builtin_tasks()[spec.task]
                    query = TOKENS_OF_LABEL.get(task.task_type, 0) * (task.top_labels or 0)
                    for sizes in (own.evaluation, own.few_shot, own.normal):
                        assert sizes.max_length > query + LONGEST_LABEL, spec.task


def test_a_task_with_a_longer_query_has_sizes_of_its_own() -> None:
    sizes = {
        "medication_demo": {"max_length": 384, "shots": 8, "normal_shots": 12},
        "readmission_uci": {"limit": 200, "shots": 8},
    }
    profile = load_profile("cpu", {"task_sizes": sizes})
    own = profile.of_task("medication_demo")
    assert (own.evaluation.max_length, own.few_shot.max_length, own.normal.max_length) == (384,) * 3
    assert all(router.max_length == 384 for router in own.extra_routers.values())
    assert (own.few_shot.shots, own.normal.shots, own.normal_shots) == (8, None, 12)
    assert {router.shots for router in own.extra_routers.values()} == {8}
    assert profile.of_task("pubmedqa") is profile
    rare = profile.of_task("readmission_uci")
    assert rare.evaluation == profile.evaluation.model_copy(update={"limit": 200})
    assert rare.few_shot == profile.few_shot.model_copy(update={"shots": 8})


def test_the_profile_for_two_cores_has_the_sizes_of_the_protocol() -> None:
    profile = load_profile("cpu")
    assert set(profile.task_sizes) <= set(builtin_tasks())
    least = {"trial_effect": 600, "causal_language": 600, "ncbi_disease": 940} | dict.fromkeys(
        profile.label_counts.values(), 1000
    )
    least |= dict.fromkeys(profile.unseen_task.values(), 1000)
    for task in (*profile.unseen_data.values(), *least):
        assert profile.of_task(task).evaluation.limit == least.get(task, 500)
    assert (profile.few_shot.shots, profile.normal_shots, profile.training_set) == (32, 200, True)
    lora = BaselineSettings.model_validate({**profile.baseline, "shots": 32})
    assert lora.passes(32) * 32 / lora.batch_size == 80


def test_rows_on_the_training_set_have_three_seeds_and_spans_five() -> None:
    profile = load_profile("cpu")
    plan = find_experiment("table3", profile)
    tasks = {column.name: column for column in plan.columns}
    counts = {row.name: len([*plan.cell(row, tasks["mednli"], profile.seeds)]) for row in plan.rows}
    for name in ("few_shot", "normal", "few_shot_informed", "in_context", "lora_few", "lorahub"):
        assert counts[name] == 8
    for name in ("prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full", "full_experts", "tfidf"):
        assert counts[name] == 3
    assert counts["original"] == 1
    for row in plan.rows:
        found = [*plan.cell(row, tasks["emrqa"], profile.seeds)]
        assert [spec.seed for spec in found] == [*range(min(counts[row.name], 5))]
        assert [*plan.cell(row, tasks["emrqa"], 2)] == found[:2]


def test_a_task_with_one_right_label_has_the_metrics_that_are_defined_for_it() -> None:
    open_data, papers = (find_experiment("table5", load_profile(name)) for name in ("cpu", "paper"))
    shown = [{column.name: column.metric for column in plan.columns} for plan in (open_data, papers)]
    wanted = {"": "macro_auc", " accuracy": "accuracy", " F1": "macro_f1"}
    assert {more: shown[0][f"icd_coding{more}"] for more in wanted} == wanted
    assert shown[1]["icd_coding"] == "micro_auc"
    assert shown[0]["medication F1"] == shown[1]["medication F1"] == "micro_f1"
    assert {column.metric for column in find_experiment("table4", load_profile("cpu")).columns} == {"macro_auc"}
    assert find_experiment("fig6", load_profile("cpu")).columns[0].metric == "macro_f1"  # PubMedQA


def test_the_answers_of_covid_qa_are_in_what_is_read_and_can_be_written() -> None:
    own = load_profile("cpu").of_task("covid_qa").evaluation
    longest_answer, deepest_answer = 77, 576  # tokens of the default base: of an answer, and of a prompt up to its end
    assert own.max_new_tokens >= longest_answer
    assert own.max_length - own.max_new_tokens >= deepest_answer


def test_experts_on_longer_texts_have_fewer_steps_and_more_tokens() -> None:
    profile = load_profile("cpu")
    own = {name: profile.of_expert(name) for name in (*profile.experts, "uci-diabetes-130")}
    assert {(recipe.steps, recipe.tinit, recipe.tfinal) for recipe in own.values()} == {(800, 160, 260), (200, 40, 65)}
    for name, recipe in own.items():
        kept = {"steps": profile.expert.steps, "tinit": 160, "tfinal": 260, "max_length": profile.expert.max_length}
        assert recipe.model_copy(update=kept) == profile.expert
        assert (recipe.steps == 200) == (recipe.max_length >= 512) == (name in profile.expert_steps)


def test_an_expert_of_clinical_records_is_trained_with_tokens_of_its_own(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    small = {**TINY["expert"], "max_length": 64}  # type: ignore[dict-item]
    name = "uci-diabetes-130"
    with pytest.raises(ConfigError, match="Raise max_length"):
        runner_of(tiny_folder, own, tmp_path / "few", expert=small, expert_max_length={}).experts((name,))
    runner = runner_of(tiny_folder, own, tmp_path / "more", expert=small, expert_max_length={name: 1200})
    assert runner.experts((name,)).names == (name,)


def test_the_papers_numbers_are_in_the_package() -> None:
    text = (resources.files("staf") / "experiments" / "papers.yaml").read_text(encoding="utf-8")
    assert set(yaml.safe_load(text)) == {*TABLES, "methods", "metrics"}
    data = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert "**/*.yaml" in data["tool"]["setuptools"]["package-data"]["staf"]
    assert {n for n, one in declared_experiments().items() if one.printed} == {"table3", "table4", "table5", "cross-domain"}
    assert declared_experiments()["table3"].printed["staf-llm"]["normal"] == [78.0, 84.1, 83.0, 85.2, 75.2, 84.9]


def test_printed_numbers_have_the_columns_and_rows_of_the_experiments() -> None:
    for name in TABLES:
        made = find_experiment(name, load_profile("paper"))
        for table in made.printed.values():
            assert set(table["columns"]) <= {column.name for column in made.columns}
            assert set(table) - {"columns"} <= {row.name for row in made.rows}
            assert all(len(row) == len(table["columns"]) for row in table.values())


def test_table_5_has_the_three_metrics_of_the_papers_and_runs_each_spec_once() -> None:
    plan = find_experiment("table5", load_profile("cpu"))
    names = [column.name for column in plan.columns]
    assert sorted(names) == sorted(plan.printed["staf-llm"]["columns"])
    for column in plan.columns:
        assert column.metric.endswith(
            {"accuracy": ("accuracy", "one_minus_hamming_loss"), "F1": "f1"}.get(column.name.split()[-1], "auc")
        )
    assert next(c.name for c in plan.columns if c.task == "readmission_even_uci") == "readmission"
    specs = plan.runs(3)
    assert [spec.seed for spec in specs] == sorted(spec.seed for spec in specs)
    assert len(specs) == len(set(specs)) == 3 * (3 * 7 + 3 + 1 + 3 * 2)  # classifiers, other systems, average, normal and new


def test_the_unseen_track_removes_the_expert_of_the_tasks_own_kind() -> None:
    profile = load_profile("cpu")
    plan = find_experiment("unseen", profile)
    assert [column.task for column in plan.columns] == [*plan.without] == [*declared_experiments()["unseen"].without]
    for column in plan.columns:
        kind = builtin_tasks()[column.task].task_type
        assert set(plan.without[column.task]) == {kind} & set(profile.experts)
        for row in plan.rows:
            for spec in plan.cell(row, column, 2):
                assert kind not in spec.needs(profile)
                assert len(spec.needs(profile)) in (0, 12 - len(plan.without[column.task]))
    original = find_experiment("table3", profile).runs(1)[0]
    assert replace(original, task="hallmarks") in plan.runs(1)  # rows without experts are the same runs as elsewhere


def test_a_deterministic_method_is_one_run() -> None:
    plan = find_experiment("table3", Profile.model_validate(TINY))
    counts = {row.name: len(list(plan.cell(row, plan.columns[0], 5))) for row in plan.rows}
    assert counts["original"] == counts["average"] == counts["single"] == 1
    assert counts["lora"] == counts["few_shot"] == counts["normal"] == 5


def test_figures_leave_out_tasks_that_the_profile_lacks_and_refuse_where_none_is_left() -> None:
    profile = load_profile("cpu", {"unseen_data": {"medquad": "medmcqa", "cliner": "ncbi_disease"}})
    assert [column.name for column in find_experiment("fig6", profile).columns] == ["cliner"]
    assert [column.name for column in find_experiment("fig7", profile).columns] == ["cliner", "medication"]
    assert [column.name for column in find_experiment("fig8", profile).columns] == ["medication", "readmission"]
    bare = load_profile("cpu", {"unseen_data": {"medquad": "medmcqa"}, "unseen_task": {"icd_coding": "icd_coding_top10_demo"}})
    for name in ("fig6", "fig7", "fig8", "cross-domain"):
        with pytest.raises(MissingData, match=rf"{name} is of the papers' .*only for .*medquad.*unseen_data or unseen_task"):
            find_experiment(name, bare)
    with pytest.raises(
        ConfigError, match=r"unseen_task.sepsis.* should match pattern '\^\(icd_coding\|medication\|readmission\)"
    ):
        load_profile("cpu", {"unseen_task": {"sepsis": "readmission_uci"}})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_experiment_runs(tiny_folder: Path, own: Path, tmp_path: Path, name: str) -> None:
    runner = runner_of(tiny_folder, own, tmp_path)
    result, run = reproduce(name, "tiny", runner)
    assert Table.model_validate_json((run.folder / "result.json").read_text()) == result
    cells = [cell for row in result.rows for cell in row.cells]
    for cell in cells:
        assert cell.mean is not None or cell.missing
        assert all((runner.context.runs / folder / "result.json").is_file() for folder in cell.runs)
    assert any(cell.mean is not None for cell in cells), {cell.missing for cell in cells}
    pairs = [(row, column, cell) for row in result.rows for column, cell in zip(result.columns, row.cells, strict=True)]
    answered = [pair for pair in pairs if pair[0].method not in CLASSIFIERS or find_task(pair[1].task).fixed_labels]
    empty = {row.name for row, _, cell in answered if cell.mean is None}
    assert empty <= ({"encoder", *EXTERNAL} if name == "table5" else {"lorahub"} if find_spec("nevergrad") is None else set())


def test_an_interrupted_table_resumes_and_compares_by_item(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_of(tiny_folder, own, tmp_path, seeds=2)
    first, _ = reproduce("fig6", "tiny", runner)
    monkeypatch.setattr("staf.stages.evaluation.finish", None)  # nothing may be predicted again
    again, _ = reproduce("fig6", "tiny", runner_of(tiny_folder, own, tmp_path, seeds=2))
    assert again == first
    assert {test.outcome for test in first.comparisons} <= {"win", "loss", "tie"}
    pairs = {(test.ours, test.other, test.column): test.difference for test in first.comparisons}
    assert pairs["2", "4", "mednli"] == pytest.approx(-pairs["4", "2", "mednli"])


@pytest.mark.slow
def test_runs_on_a_cluster_are_those_of_one_process(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    here, there = (runner_of(tiny_folder, own, tmp_path / name, seeds=1) for name in ("here", "there"))
    place = RunContext(str(tiny_folder), own, tmp_path / "there" / "runs", "staf-llm", ComputeOptions(dtype="float32"))
    expected = reproduce("fig6", "tiny", here)[0].rows
    found = reproduce("fig6", "tiny", there, place)[0].rows
    assert [[cell.mean for cell in row.cells] for row in found] == [[cell.mean for cell in row.cells] for row in expected]


def test_seeds_are_run_one_after_the_other_and_missing_data_leaves_cells_empty(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[int] = []

    def refuse(self: Runner, spec: RunSpec) -> None:
        met.append(spec.seed)
        raise MissingData("not here. Get it.")

    monkeypatch.setattr(Runner, "run", refuse)
    result, _ = reproduce("table4", "tiny", runner_of(tiny_folder, own, tmp_path))
    assert met == sorted(met)
    assert {cell.missing for row in result.rows for cell in row.cells} == {"not here. Get it."}
    assert result.comparisons == []
    rows, notes = table_rows(result)
    assert list(rows[0].cells.values())[2] == "-\nnote 1\nboth papers 29.6"
    assert notes == ["not here. Get it."]
    write_tables(result, tmp_path)
    assert (tmp_path / "table4.csv").read_text().startswith("Method,Setting,")
    assert "| Base model | - | -<br>note 1<br>both papers 29.6 |" in (tmp_path / "table4.md").read_text()
    assert "note 1: not here. Get it." in (tmp_path / "table4.md").read_text()


def test_the_paper_profile_refuses_with_all_that_is_missing(tmp_path: Path, own: Path) -> None:
    result = CliRunner().invoke(
        app, ["reproduce", "table4", "--profile", "paper", "--out", str(tmp_path / "o"), "--data-dir", str(tmp_path)]
    )
    assert isinstance(result.exception, MissingData)
    assert "base meta-llama/Llama-2-7b-hf" in str(result.exception)
    assert "task readmission: mimic-iii is not here" in str(result.exception)


def test_the_paper_profile_wants_the_corpora_of_table_1_and_no_stand_ins() -> None:
    own: dict[str, set[str]] = {}
    for row in paper_tables()["corpora"]:
        for kind in row["task_types"]:
            own.setdefault(kind, set()).add(row["datasets"][0])
    profile = load_profile("paper")
    assert {kind: set(names) for kind, names in profile.corpora.items()} == own
    assert set(profile.corpora) == set(profile.experts)


def test_a_strict_profile_reports_all_that_is_missing_at_once(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = load_profile("paper", {"base": str(tiny_folder)})
    runner = Runner(Context(str(tiny_folder), own, tmp_path / "runs", NullProgress(), "float32"), profile, tmp_path)
    monkeypatch.setattr(DataStore, "can_have", lambda self, name: name not in ("clicr", "emrqa", "conll-2003"))
    for package in ("peft", "cma", "nevergrad"):
        monkeypatch.setitem(sys.modules, package, None)

    def missing(name: str) -> list[str]:
        with pytest.raises(MissingData) as caught:
            refuse_missing(find_experiment(name, profile), runner)
        return [line.strip() for line in str(caught.value).splitlines()[1:]]

    data = ["task emrqa: emrqa", "expert reading_comprehension: clicr", "expert reading_comprehension: emrqa"]
    packages = ["package peft", "package nevergrad", "package cma"]
    for line, start in zip(missing("table3"), [*data, *packages], strict=True):
        assert line.startswith(start)
    (encoder,) = (line for line in missing("table5") if line.startswith("encoder"))
    assert "-o encoder=" in encoder
    assert any(line.startswith("language model epfl-llm/meditron-7b") for line in missing("table5"))
    assert "expert conll-2003: none of conll-2003 is here (staf data list)" in missing("cross-domain")


def test_a_run_that_fails_leaves_its_cell_empty_and_the_others_finish(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner.run

    def diverge(self: Runner, spec: RunSpec) -> Scored:
        if spec.shots == 2:
            raise TrainingFailed("no loss was a number. Try lower rates.")
        return run(self, spec)

    monkeypatch.setattr(Runner, "run", diverge)
    result, _ = reproduce("fig6", "tiny", runner_of(tiny_folder, own, tmp_path, seeds=1))
    first, second = result.rows
    assert {cell.missing for cell in first.cells} == {"no loss was a number. Try lower rates."}
    assert any(cell.mean is not None for cell in second.cells)


def test_an_expert_that_cannot_be_trained_is_tried_once(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fail(context: Context, name: str, settings: object, out: Path) -> None:
        tried.append(name)
        raise TrainingFailed(f"{name} diverged.")

    monkeypatch.setattr("staf.stages.training.train_stage", fail)
    result, _ = reproduce("fig6", "tiny", runner_of(tiny_folder, own, tmp_path))
    assert tried == ["entity_relation"]
    assert {cell.missing for row in result.rows for cell in row.cells} == {"entity_relation diverged."}


def test_an_expert_that_fails_on_a_cluster_leaves_cells_empty(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, list[str]] = {}

    def on_cluster(title: str, jobs: Sequence[Job], progress: Progress) -> Failures:
        given[title] = [job.name for job in jobs]
        return {"entity_synonymy": TrainingFailed("no loss was a number.")} if title == "train experts" else {}

    monkeypatch.setattr("staf.experiments.run.run_ray", on_cluster)
    monkeypatch.setattr("staf.stages.training.run_ray", on_cluster)
    runner = runner_of(tiny_folder, own, tmp_path, seeds=1, unseen_task={"readmission": "readmission_uci"})
    place = RunContext(str(tiny_folder), own, tmp_path / "runs", "staf-llm", ComputeOptions(dtype="float32"))
    plan = find_experiment("fig8", runner.profile)
    run_on_cluster(plan, runner, place, 1)
    assert set(given["train experts"]) == {"entity_relation", "entity_synonymy"}
    cells = given[plan.title]
    assert any("original" in name for name in cells)
    assert any("1 experts" in name for name in cells)
    assert not any("2 experts" in name for name in cells)
    with pytest.raises(TrainingFailed, match=r"expert entity_synonymy was not trained\. TrainingFailed: no loss"):
        runner.run(RunSpec("readmission_uci", "normal", experts=("entity_synonymy",)))


def test_classifiers_of_table_5_are_fitted_on_what_the_new_expert_sees(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    runner = runner_of(tiny_folder, own, tmp_path)
    rows = find_experiment("table5", runner.profile).rows
    assert all(row.run == {"records": True} for row in rows if row.method in CLASSIFIERS)
    counts = {}
    for records in (False, True):
        result, _ = runner.run(RunSpec("readmission_uci", "tfidf", records=records))
        counts[records] = result["adaptation_examples"]
    seen = training_examples(runner.context, "uci-diabetes-130", runner.profile.of_expert("uci-diabetes-130"))
    assert counts[False] == runner.profile.normal_shots
    assert counts[True] == counts[False] + sum(example.task_type == "readmission" for example in seen) > counts[False]


def test_tables_have_rows_without_a_language_model_and_on_request_the_papers_training_sets(
    tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    few, all_of_it = (
        {row.name: row for row in find_experiment("table4", Profile.model_validate({**TINY, "training_set": given})).rows}
        for given in (False, True)
    )
    assert {"majority", "nearest_label", "tfidf", "tfidf_few", "embedding", "embedding_few"} <= few.keys()
    assert {name: few[name].setting for name in ("lora", "tfidf", "full")} == dict.fromkeys(("lora", "tfidf", "full"), "normal")
    assert all_of_it.keys() - few.keys() == {"lora_normal", "full_experts"}
    assert all_of_it["full_experts"].run == {"pooled": True}
    learned = {name for name, row in all_of_it.items() if row.setting == "training set"}
    assert learned == {"prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full", "tfidf", "embedding"}
    assert all(all_of_it[name].run == {"records": True} for name in learned)
    assert (all_of_it["lora_normal"].run, all_of_it["lora_normal"].setting) == ({}, "normal")
    assert all_of_it["lora_few"] == few["lora_few"]

    runner = runner_of(tiny_folder, own, tmp_path)
    settings = {}
    for name in ("tfidf", "tfidf_few"):
        result, _ = runner.run(RunSpec("readmission_uci", "tfidf", **few[name].run))
        settings[name] = result["setting"], result["adaptation_examples"]
    assert settings == {"tfidf": ("normal", runner.profile.normal_shots), "tfidf_few": ("few-shot", TINY["few_shot"]["shots"])}  # type: ignore[index]
    assert runner.run(RunSpec("readmission_uci", "tfidf", records=True))[0]["setting"] == "training set"
    pooled = runner.records(RunSpec("readmission_uci", "full", pooled=True))
    own_shares = [training_examples(runner.context, name, runner.profile.of_expert(name)) for name in runner.profile.experts]
    assert pooled == [example for share in own_shares for example in share]
    assert {example.task_type for example in pooled} == set(runner.profile.experts)


def test_another_systems_row_is_empty_until_its_answers_are_named(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    spec = RunSpec("readmission_uci", "g_bert")
    with pytest.raises(MissingData, match=r"ClinicalBERT \+ G-BERT is not run by staf.*-o 'external=\{g_bert: FOLDER\}'"):
        runner_of(tiny_folder, own, tmp_path).run(spec)
    runner = runner_of(tiny_folder, own, tmp_path, external={"g_bert": str(tmp_path)})
    items = sample(task_examples(find_task(spec.task), "test", runner.context.store), runner.profile.evaluation.limit)
    lines = [json.dumps({"id": item.id, "scores": {"yes": -1.0, "no": -0.5}}) for item in items]
    (tmp_path / "readmission_uci.jsonl").write_text("\n".join(lines))
    result, _ = runner.run(spec)
    assert (result["method"], result["setting"]) == ("g_bert", "external")


def test_a_wrong_profile_or_name_is_reported(tmp_path: Path, tiny_folder: Path, own: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**TINY, "seed": 3}))
    with pytest.raises(ConfigError, match="seed is not a setting"):
        load_profile(str(file))
    file.write_text(yaml.safe_dump({**TINY, "beyond": {}}))
    with pytest.raises(ConfigError, match="beyond is now extra_routers"):
        load_profile(str(file))
    with pytest.raises(UnknownName, match="Did you mean 'table3'"):
        reproduce("tabel3", "tiny", runner_of(tiny_folder, own, tmp_path))
    with pytest.raises(MissingData, match="fig6 is of the papers' pubmedqa, cliner, mednli"):
        reproduce("fig6", "tiny", runner_of(tiny_folder, own, tmp_path, unseen_data={"emrqa": "covid_qa"}))


def test_the_normal_setting_takes_all_examples_where_there_are_fewer_than_the_profile_says(
    tiny_folder: Path, own: Path, tmp_path: Path
) -> None:
    counts = {}
    for most in (6, 100_000):
        runner = runner_of(tiny_folder, own, tmp_path / str(most), normal_shots=most)
        result, _ = runner.run(RunSpec("icd10_chapter", "tfidf"))
        assert result["setting"] == "normal"
        counts[most] = result["adaptation_examples"]
    assert counts[6] == 6 < counts[100_000] < 100_000


# ---- shards ----------------------------------------------------------------------------------------------------------


def test_shards_split_the_runs_and_the_table_is_written_from_all_of_them(
    tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: dict[int, list[RunSpec]] = {}
    whole = runner_of(tiny_folder, own, tmp_path)

    def note(self: Runner, spec: RunSpec) -> Scored:
        met.setdefault(self.shard[0], []).append(spec)
        raise MissingData("not here.")

    monkeypatch.setattr(Runner, "run", note)
    for index in range(3):
        assert run_shard("fig6", replace(whole, shard=parse_shard(f"{index}/3"))) == (0, len(met[index]))
    found = [spec for own in met.values() for spec in own]
    assert len(found) == len(set(found))
    assert set(found) == set(find_experiment("fig6", whole.profile).runs(2))
    assert not (tmp_path / "runs" / "reproduce").exists()


@pytest.mark.parametrize("text", ["", "1", "3/3", "-1/2", "a/b"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected i/n"):
        parse_shard(text)


def test_a_shard_leaves_experts_to_the_shard_that_trains_them(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    first, second = (replace(runner_of(tiny_folder, own, tmp_path), shard=(index, 2)) for index in range(2))
    with pytest.raises(MissingData, match="expert entity_synonymy is trained by another shard"):
        first.experts(("entity_relation", "entity_synonymy"))
    assert [path.parent.name for path in (tmp_path / "experts").glob("*/staf.json")] == ["entity_relation"]
    again = replace(first, cache={})
    assert second.experts(("entity_synonymy",)).names == ("entity_synonymy",)
    assert again.experts(("entity_relation", "entity_synonymy")).names == ("entity_relation", "entity_synonymy")
