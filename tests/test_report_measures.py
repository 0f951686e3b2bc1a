"""The page compares like with like: one metric a task, sizes and examples shown, curves of coverage, every number linked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from reproduced_results import cell, read, read_cell, reproduced, world
from test_report import TASK, Page, evaluated, metric, scored, write

from staf.errors import DamagedFile
from staf.metrics.by_output_type import measures_of
from staf.report import figures, page, tables
from staf.report.claims import MARKS
from staf.report.formatting import METRICS
from staf.report.reproduced import examples_text, sizes_text, table_rows
from staf.report.results import Cell, Evaluation, load_results

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
def test_all_runs_of_a_task_have_one_primary_metric(tmp_path, newest, given):
    results = load_results(of_two_times(tmp_path, newest), given)
    assert {r.primary_metric for r in results if isinstance(r, Evaluation) and r.task == TASK} == {"macro_auc"}
    overview = tables.overview_table(results, [TASK, "other"])
    column = "ICD-10-CM chapter from a disease title"
    assert [row.cells[column].split()[0] for row in overview] == ["40.0", "40.0", "60.0"]
    assert [row.cells["Other"].split()[0] for row in overview] == ["31.0", "-", "-"]
    assert all(list(row.cells)[2] == "Macro AUC, %" for row in tables.task_table(results, TASK))


def test_a_comparison_by_another_metric_is_left_out(tmp_path):
    results = load_results(of_two_times(tmp_path))
    assert [row.cells["Method"] for row in tables.comparison_table(results, TASK)] == ["Normal router (gradient)"]
    by_accuracy = load_results(tmp_path, {TASK: "accuracy"})
    assert [row.cells["Method"] for row in tables.comparison_table(by_accuracy, TASK)] == ["Few-shot router (CMA-ES, 32)"]


def test_the_page_takes_the_metrics_of_the_tasks(tmp_path):
    of_two_times(tmp_path / "runs", "accuracy")
    out = page.write_page(tmp_path / "runs", tmp_path / "report.html", {TASK: "macro_auc"})
    assert ">60.0 (55.0 to 65.0)<" in out.read_text()


def test_a_run_without_the_metric_has_no_score(tmp_path):
    write(tmp_path, evaluated("original", metrics={"accuracy": metric(0.9)}), evaluated("normal", metrics=BOTH))
    results = load_results(tmp_path, {TASK: "macro_auc"})
    original, normal = tables.task_table(results, TASK)
    assert (original.cells["Macro AUC, %"], normal.cells["Macro AUC, %"]) == ("-", "40.0 (35.0 to 45.0)")


# ---- details ---------------------------------------------------------------------------------------------------------


def test_every_metric_that_is_measured_has_a_printed_name():
    choice = [{"id": i, "gold": i % 2, "scores": [0.1, 0.2]} for i in range(4)]
    several = [{"id": i, "gold": [i % 2], "answer": [0], "scores": [0.1, -0.2]} for i in range(4)]
    span = [{"id": 1, "gold": ["two"], "answer": "two", "confidence": 1.0}]
    entities = [{"id": 1, "gold": [{"type": "a", "text": "b"}], "answer": [], "invented": 0}]
    output_types = {"multiple_choice": choice, "multi_label": several, "span": span, "ner": entities, "generate_until": span}
    measured = {
        name
        for output_type, rows in output_types.items()
        for name in measures_of(output_type, rows, fixed_labels=output_type == "multiple_choice").statistics
    }
    assert measured == set(METRICS)


def test_a_task_has_a_column_for_every_metric_of_any_method():
    loss = {**metric(0.2), "higher_is_better": False}
    more = {"exact_match": metric(0.3), "token_f1": metric(0.5), "brier_score": loss}
    results = [scored("normal", metrics=more, primary_metric="exact_match")]
    results.append(scored("original", metrics={"exact_match": metric(0.3)}, primary_metric="exact_match"))
    original, normal = tables.task_table(results, TASK)
    columns = ["Exact match, %", "Token F1, %", "Brier score (lower is better)"]
    assert [normal.cells[c] for c in columns] == ["30.0 (25.0 to 35.0)", "50.0 (45.0 to 55.0)", "0.200 (0.150 to 0.250)"]
    assert [original.cells[c] for c in columns[1:]] == ["-", "-"]
    assert list(normal.cells)[2:5] == columns
    assert original.cells.keys() == normal.cells.keys()
    assert "Token F1" in page.page_text(results)


# ---- coverage --------------------------------------------------------------------------------------------------------


def covering(*values: float) -> list[dict[str, Any]]:
    return [
        {"coverage": (i + 1) / len(values), "value": value, "low": 0.0, "high": 1.0, "confidence": 0.5}
        for i, value in enumerate(values)
    ]


def test_quality_by_coverage_is_drawn_as_the_mean_over_seeds():
    seeds = [scored("normal", seed, output_type="multiple_choice", selective=covering(0.9 + seed / 10, 0.6)) for seed in (0, 1)]
    drawn = figures.selective_figure([*seeds, scored("original", selective=None)], TASK)
    assert drawn
    assert "Accuracy of the answers given, %" in drawn.alt
    assert "Normal router (gradient): 50 95.0, 100 60.0." in drawn.alt
    assert "Base model" not in drawn.alt
    assert "50 95.0, 100 60.0" in page.page_text(seeds)
    assert figures.selective_figure([scored("normal", selective=None), scored("original")], TASK) is None


def test_at_most_six_methods_are_drawn_ours_first_then_the_best():
    others = ("prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full")
    baselines = [scored(name, selective=covering(0.9, 0.1 * i)) for i, name in enumerate(others)]
    ours = [scored(name, selective=covering(0.1, 0.0)) for name in ("original", "few_shot", "normal")]
    few = scored("few_shot", selective=covering(1.0, 1.0), adaptation_examples=8)
    drawn = figures.selective_figure([few, *ours, *baselines], TASK)
    assert drawn
    assert re.findall(r"([A-Z][^;.]*?): 50 ", drawn.alt.split("first. ")[-1]) == [
        "Base model", "Few-shot router (CMA-ES, 32)", "Normal router (gradient)", "LoRA", "IA3", "Full fine-tuning",
    ]  # fmt: skip


@pytest.mark.parametrize("selective", [{"coverage": 1.0}, [{"coverage": 0.5}], [[0.5, 0.9]], [{"coverage": 1, "value": "all"}]])
def test_a_damaged_curve_is_reported(tmp_path, selective):
    write(tmp_path, evaluated("normal", selective=selective))
    with pytest.raises(DamagedFile, match="selective"):
        load_results(tmp_path)


# ---- intervals of cells ----------------------------------------------------------------------------------------------


def test_a_cell_shows_the_interval_over_items_and_seeds():
    both = read_cell(0.5, "x", "y", interval=[0.41, 0.59])
    assert both.ends == (0.41, 0.59)
    assert both.squared_error == pytest.approx((0.09 / 1.96) ** 2)
    result = reproduced("table3", {"normal": {"emrqa": 0.5}})
    result["rows"][0]["cells"][0] |= {"interval": [0.41, 0.59]}
    (row,) = table_rows(read({"table3": result})["table3"])[0]
    assert "41.0 to 59.0" in list(row.cells.values())[1]


def test_a_cell_without_it_has_one_from_its_items_and_its_deviation():
    old = cell(0.5, "x", "y", deviation=0.01, interval_of_one_seed=[0.41, 0.59])
    for change in ({}, {"interval": [None, None]}):
        low, high = Cell.model_validate({**old, **change}).ends or (0.0, 0.0)
        assert low < 0.41
        assert high > 0.59
    assert read_cell(0.5, "x", "y", seeds=1, interval_of_one_seed=None).ends is None
    assert read_cell(0.5, "x", "y", interval_of_one_seed=[-2.9, 3.4]).ends == (0.0, 1.0)


# ---- sizes and examples ----------------------------------------------------------------------------------------------


def test_a_reproduced_table_has_its_sizes():
    result = reproduced("table3", {"original": {"emrqa": 0.5, "mednli": 0.5}, "normal": {"emrqa": 0.7, "mednli": None}})
    for own in result["rows"][0]["cells"]:
        own |= {"seeds": 1, "adaptation_examples": 0}
    result["rows"][0]["cells"][1] |= {"items": 1250}
    table = read({"table3": result})["table3"]
    assert sizes_text(table) == "100 to 1,250 test items; 0 to 32 adaptation examples; 1 to 3 seeds"
    assert f"Sizes: {sizes_text(table)}." in page.page_text([table])
    for line in result["rows"]:
        line["cells"] = [cell(None, "x", "y")] * 2
    empty = read({"table3": result})["table3"]
    assert sizes_text(empty) == ""
    assert "Sizes:" not in page.page_text([empty])


def test_a_row_of_in_context_learning_says_how_many_examples_it_shows_of_how_many():
    shown = cell(0.5, "in_context", "emrqa", shots_shown=6.5, adaptation_examples=32)
    assert examples_text(Cell.model_validate(shown)) == "6.5 of 32 examples shown"
    assert examples_text(Cell.model_validate({**shown, "adaptation_examples": None})) == "6.5 examples shown"
    assert examples_text(read_cell(0.5, "normal", "emrqa")) == ""
    result = reproduced("table3", {"in_context": {"emrqa": 0.5}, "normal": {"emrqa": 0.5}})
    result["rows"][0]["cells"] = [shown]
    table = read({"table3": result})["table3"]
    in_context, normal = (list(row.cells.values())[-1].split("\n") for row in table_rows(table)[0])
    assert in_context[2:] == ["6.5 of 32 examples shown", "STAF-LLM 50.0"]
    assert normal[2:] == ["STAF-LLM 50.0"]


# ---- links -----------------------------------------------------------------------------------------------------------


def test_time_memory_and_counts_are_linked_to_their_run(tmp_path):
    write(tmp_path / "runs", evaluated("normal"), *(evaluated("few_shot", seed, data_fingerprint="x") for seed in (0, 1)))
    text = page.write_page(tmp_path / "runs", tmp_path / "report.html").read_text()
    folder = f"runs/evaluate/{TASK}/normal/seed0-a1b2/"
    for number in ("2 min 3 s", "1.2 GB", "300", "32", "10"):
        assert re.search(rf'<a href="{folder}"[^>]*>{re.escape(number)}</a>', text), number
    assert re.search(r"few_shot/seed0-a1b2\nevaluate/.*few_shot/seed1-a1b2\">2 min 3 s</span>", text)
    for seed in (0, 1):
        assert f'<a href="runs/evaluate/{TASK}/few_shot/seed{seed}-a1b2/"' in text
    assert Page(text).open == []


@pytest.mark.parametrize(("values", "words"), [
    ((None, True), "Unseen: by the experts' records, none"), ((True, False), "Seen in training: by the experts' records"),
    ((None, None), "What the experts were trained on is not recorded"),
])  # fmt: skip
def test_whether_a_task_was_seen_in_training_comes_from_the_experts_records(values, words):
    results = [scored(method, unseen=value) for method, value in zip(("original", "normal"), values, strict=True)]
    assert words in page.page_text(results)


def test_a_table_wider_than_the_page_scrolls_and_shows_where_columns_are_hidden():
    text = page.page_text([scored("normal")])
    assert text.count('<div class="scroll" role="region" tabindex="0"') == text.count("<table>") == 1
    rule = text[text.index(".scroll {") : text.index("table { border")]
    assert "overflow-x: auto" in rule
    assert rule.count("linear-gradient") == 4


def test_the_page_says_by_what_and_over_what_is_tested():
    text = re.sub(r"\s+", " ", page.page_text([read(world())["table3"]]))
    assert "won where the paired test by the column's metric, over items and seeds, says so" in text
    assert "after Holm's correction for the primary comparisons" in text
    for outcome in MARKS:
        assert outcome in text.replace("&#39;", "'")
    assert "also where a column shows an AUC" not in text
