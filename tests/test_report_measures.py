"""The page compares like with like: one metric a task, sizes and examples told, curves of coverage, every number linked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from reproduced_results import place, reproduced, world
from test_report import TASK, Page, evaluated, metric, write

from staf.errors import DamagedFile
from staf.metrics.forms import statistics_of
from staf.report import figures, page, tables
from staf.report.collect import load_results
from staf.report.names import METRICS, MORE_METRICS
from staf.report.places import interval_of, shown_of, squared_error
from staf.report.reproduced import reproduced as reproduced_tables
from staf.report.reproduced import score_rows, sizes_text

BOTH = {"accuracy": metric(0.9), "macro_auc": metric(0.4)}
AGAINST = {"original": {"difference": 0.5, "low": 0.4, "high": 0.6, "p_value": 0.001}}

# ---- one metric a task -----------------------------------------------------------------------------------------------


def of_two_times(runs: Path, newest: str = "macro_auc") -> Path:
    """Runs of a task whose metric became another one; the original model's is the old one."""
    other = {"accuracy": "macro_auc", "macro_auc": "accuracy"}[newest]
    write(
        runs,
        evaluated("original", metrics=BOTH, primary_metric=other),
        evaluated("few_shot", metrics=BOTH, primary_metric=other, comparisons=AGAINST),
        evaluated("normal", metrics={**BOTH, "macro_auc": metric(0.6)}, primary_metric=newest, comparisons=AGAINST),
        evaluated("original", task="other", task_title="Other"),
    )
    for age, method in enumerate(("normal", "few_shot", "original")):
        os.utime(runs / "evaluate" / TASK / method / "seed0-a1b2" / "result.json", (1_000_000 - age, 1_000_000 - age))
    return runs


@pytest.mark.parametrize(("newest", "given"), [("macro_auc", None), ("accuracy", {TASK: "macro_auc"})])
def test_all_runs_of_a_task_are_told_by_one_metric(tmp_path, newest, given):
    results = load_results(of_two_times(tmp_path, newest), given)
    assert {r["primary_metric"] for r in results if r["task"] == TASK} == {"macro_auc"}
    overview = tables.overview_table(results, [TASK, "other"])
    column = "ICD-10-CM chapter from a disease title"
    assert [row.cells[column].split()[0] for row in overview] == ["40.0", "40.0", "60.0"]
    assert [row.cells["Other"].split()[0] for row in overview] == ["31.0", "-", "-"]
    assert all(list(row.cells)[2] == "Macro AUC, %" for row in tables.task_table(results, TASK))
    said = page.summary(results, TASK).text
    assert said.startswith("The normal router (gradient) scores 60.0")
    assert "90.0" not in said


def test_a_comparison_by_another_metric_is_not_told(tmp_path):
    results = load_results(of_two_times(tmp_path))
    assert [said.text.split(":")[0] for said in page.comparisons(results, TASK)] == ["The normal router (gradient)"]
    by_accuracy = load_results(tmp_path, {TASK: "accuracy"})
    assert [said.text.split(":")[0] for said in page.comparisons(by_accuracy, TASK)] == ["The few-shot router (CMA-ES, 32)"]


def test_the_page_takes_the_metrics_of_the_tasks(tmp_path):
    of_two_times(tmp_path / "runs", "accuracy")
    out = page.write_page(tmp_path / "runs", tmp_path / "report.html", {TASK: "macro_auc"})
    assert "The normal router (gradient) scores 60.0" in out.read_text()


def test_a_run_without_the_metric_has_no_score(tmp_path):
    write(tmp_path, evaluated("original", metrics={"accuracy": metric(0.9)}), evaluated("normal", metrics=BOTH))
    results = load_results(tmp_path, {TASK: "macro_auc"})
    original, normal = tables.task_table(results, TASK)
    assert (original.cells["Macro AUC, %"], normal.cells["Macro AUC, %"]) == ("-", "40.0 (35.0 to 45.0)")
    assert page.summary(results, TASK).text == "The normal router (gradient) scores 40.0."


# ---- details ---------------------------------------------------------------------------------------------------------


def test_every_metric_that_is_measured_has_a_printed_name():
    choice = [{"id": i, "gold": i % 2, "scores": [0.1, 0.2]} for i in range(4)]
    several = [{"id": i, "gold": [i % 2], "answer": [0], "scores": [0.1, -0.2]} for i in range(4)]
    span = [{"id": 1, "gold": ["two"], "answer": "two", "confidence": 1.0}]
    entities = [{"id": 1, "gold": [{"type": "a", "text": "b"}], "answer": []}]
    forms = {"choice": choice, "several": several, "span": span, "entities": entities, "text": span}
    measured = {name for form, rows in forms.items() for name in statistics_of(form, rows, fixed_labels=form == "choice")}
    assert measured == set(METRICS) | set(MORE_METRICS)


def test_further_metrics_are_details_of_a_task():
    loss = {**metric(0.2), "higher_is_better": False}
    with_more = evaluated("normal", metrics={"exact_match": metric(0.3), "token_f1": metric(0.5), "brier_score": loss})
    with_more["primary_metric"] = "exact_match"
    without = evaluated("original", metrics={"exact_match": metric(0.3)}, primary_metric="exact_match")
    original, normal = tables.details_table([with_more, without], TASK)
    assert normal.cells == {
        "Method": "Normal router (gradient)", "Token F1, %": "50.0 (45.0 to 55.0)",
        "Brier score (lower is better)": "0.200 (0.150 to 0.250)",
    }  # fmt: skip
    assert list(original.cells.values()) == ["Original model", "-", "-"]
    assert original.cells.keys() == normal.cells.keys()
    assert not {"Token F1, %", "Brier score (lower is better)"} & tables.task_table([with_more], TASK)[0].cells.keys()
    assert tables.details_table([without], TASK) == []
    text = page.page_text([{**with_more, "run": "evaluate/a/normal/seed0-a"}])
    assert "More metrics" in text
    assert "Token F1" in text


# ---- coverage --------------------------------------------------------------------------------------------------------


def covering(*values: float) -> list[dict[str, Any]]:
    return [
        {"coverage": (i + 1) / len(values), "value": value, "low": 0.0, "high": 1.0, "confidence": 0.5}
        for i, value in enumerate(values)
    ]


def test_quality_by_coverage_is_drawn_as_the_mean_over_seeds():
    seeds = [evaluated("normal", seed, form="choice", selective=covering(0.9 + seed / 10, 0.6)) for seed in (0, 1)]
    svg = figures.selective_figure([*seeds, evaluated("original", selective=None)], TASK)
    assert "Accuracy of the answers given by coverage" in svg
    assert "Normal router (gradient) 95.0 at 50\u00a0%, 60.0 at 100\u00a0%." in svg
    assert "Original model" not in svg
    text = page.page_text([{**result, "run": f"evaluate/a/normal/seed{i}-a"} for i, result in enumerate(seeds)])
    assert "95.0 at 50\u00a0%" in text
    assert figures.selective_figure([evaluated("normal", selective=None), evaluated("original")], TASK) == ""


def test_at_most_six_methods_are_drawn_ours_first_then_the_best():
    others = ("prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full")
    peers = [evaluated(name, selective=covering(0.9, 0.1 * i)) for i, name in enumerate(others)]
    ours = [evaluated(name, selective=covering(0.1, 0.0)) for name in ("original", "few_shot", "normal")]
    few = evaluated("few_shot", selective=covering(1.0, 1.0), adaptation_examples=8)
    svg = figures.selective_figure([few, *ours, *peers], TASK)
    label = re.search(r'aria-label="([^"]*)"', svg)
    assert label
    assert re.findall(r"([A-Z][^;.]*?) \d+\.\d at 50", label[1].split("title. ")[-1]) == [
        "Original model", "Few-shot router (CMA-ES, 32)", "Normal router (gradient)", "LoRA", "IA3", "Full fine-tuning",
    ]  # fmt: skip


@pytest.mark.parametrize("selective", [{"coverage": 1.0}, [{"coverage": 0.5}], [[0.5, 0.9]], [{"coverage": 1, "value": "all"}]])
def test_a_damaged_curve_is_told(tmp_path, selective):
    write(tmp_path, evaluated("normal", selective=selective))
    with pytest.raises(DamagedFile, match="'selective' is not a list of objects with coverage and value"):
        load_results(tmp_path)


# ---- intervals of places ---------------------------------------------------------------------------------------------


def test_a_place_shows_the_interval_over_items_and_seeds():
    both = place(0.5, "x", "y", interval=[0.41, 0.59])
    assert interval_of(both) == (0.41, 0.59)
    assert squared_error(both) == pytest.approx((0.09 / 1.96) ** 2)
    result = reproduced("table3", {"normal": {"emrqa": 0.5}})
    result["lines"][0]["places"][0] |= {"interval": [0.41, 0.59]}
    (row,) = score_rows(result, [])
    assert "41.0 to 59.0" in list(row.cells.values())[1]


def test_a_result_from_before_counts_its_items_too():
    old = place(0.5, "x", "y", deviation=0.01, low=0.475, high=0.525, interval_of_one_seed=[0.41, 0.59])
    low, high = interval_of(old) or (0.0, 0.0)
    assert low < 0.411
    assert high > 0.589
    assert interval_of({**old, "interval": [None, None]}) == (low, high)
    assert interval_of({**old, "interval_of_one_seed": [None, None]}) == (0.475, 0.525)
    assert interval_of(place(0.5, "x", "y", seeds=1, interval_of_one_seed=None)) is None


def test_a_damaged_interval_of_a_place_is_told(tmp_path):
    result = reproduced("table3", {"normal": {"emrqa": 0.5}})
    result["lines"][0]["places"][0] |= {"interval": 0.1}
    write(tmp_path, result)
    with pytest.raises(DamagedFile, match=re.escape("'interval' is not [low, high]")):
        load_results(tmp_path)


# ---- sizes and examples ----------------------------------------------------------------------------------------------


def test_a_reproduced_table_tells_its_sizes():
    result = reproduced("table3", {"original": {"emrqa": 0.5, "mednli": 0.5}, "normal": {"emrqa": 0.7, "mednli": None}})
    (original, _), (normal, _) = (line["places"] for line in result["lines"])
    original |= {"seeds": 1, "adaptation_examples": 0}
    result["lines"][0]["places"][1] |= {"seeds": 1, "adaptation_examples": 0, "items": 1250}
    result["lines"][0]["setting"] = "-"
    normal |= {"adaptation_examples": 40}
    assert sizes_text(result) == (
        "test items: emrqa 100, mednli 1,250; adaptation examples: without a setting 0, normal 40; 1 to 3 seeds"
    )
    (shown,) = reproduced_tables([result])
    assert f"Sizes: {shown.sizes}." in page.page_text([result])
    for line in result["lines"]:
        line["places"] = [place(None, "x", "y")] * 2
    assert sizes_text(result) == ""
    assert "Sizes:" not in page.page_text([result])


def test_a_row_of_in_context_learning_tells_how_many_examples_it_shows_of_how_many():
    shown = place(0.5, "in_context", "emrqa", shots_shown=6.5, adaptation_examples=32)
    assert shown_of(shown) == "6.5 of 32 examples shown"
    assert shown_of({**shown, "adaptation_examples": None}) == "6.5 examples shown"
    assert shown_of(place(0.5, "normal", "emrqa")) == ""
    result = reproduced("table3", {"in_context": {"emrqa": 0.5}, "normal": {"emrqa": 0.5}})
    result["lines"][0]["places"] = [shown]
    in_context, normal = (list(row.cells.values())[-1].split("\n") for row in score_rows(result, []))
    assert in_context[2:] == ["6.5 of 32 examples shown", "STAF-LLM 50.0"]
    assert normal[2:] == ["STAF-LLM 50.0"]


# ---- links -----------------------------------------------------------------------------------------------------------


def test_time_memory_and_counts_are_linked_to_their_run(tmp_path):
    write(tmp_path / "runs", evaluated("normal"), *(evaluated("few_shot", seed, data_fingerprint="x") for seed in (0, 1)))
    text = page.write_page(tmp_path / "runs", tmp_path / "report.html").read_text()
    folder = f"runs/evaluate/{TASK}/normal/seed0-a1b2/"
    for number in ("2 min 3 s", "1.2 GB", "300", "32", "10"):
        assert re.search(rf'<a href="{folder}"[^>]*>{re.escape(number)}</a>', text), number
    several = re.search(r">2 min 3 s</span><small>\(.*?\)</small>", text)
    assert several
    assert [f"few_shot/seed{seed}-a1b2/" in several[0] for seed in (0, 1)] == [True, True]
    assert Page(text).open == []


def test_the_page_says_by_what_and_over_what_is_tested():
    text = re.sub(r"\s+", " ", page.page_text([world()["table3"]]))
    assert "The paired test is by the metric of the column, over the test items and, where a method has several runs" in text
    assert "also where a column shows an AUC" not in text
