"""Reproduced tables on the page: cells with their papers and runs, figures, confusion matrices, and what is damaged."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from reproduced_results import (
    CLINICAL,
    NEAR,
    TABLE3,
    alike,
    cell,
    compared,
    curve,
    each_cell,
    read,
    read_cell,
    reproduced,
    without_cells,
    world,
)
from test_report import TASK, Page, evaluated, scored, trained, write

from staf.errors import DamagedFile
from staf.report import figures, page, tables
from staf.report.claims import load_claims
from staf.report.confusion import confusion_table
from staf.report.formatting import cell_text, method_title, papers_text
from staf.report.reproduced import comparison_rows, cost_rows, table_rows
from staf.report.results import Evaluation, Table, load_results, tables_of

CLAIMS = load_claims().claims


def one(result: dict[str, Any]) -> Table:
    return read({"": result})[""]


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_a_cell_shows_ours_the_interval_and_the_papers():
    result = reproduced("table3", {"normal": {"emrqa": 0.7, "mednli": None}})
    result["rows"][0]["cells"][0] |= {"papers": {"staf-llm": 78.0, "sa-mdkif": 78.4}, "interval": [0.68, 0.72]}
    (row,), notes = table_rows(one(result))
    emrqa, mednli = list(row.cells.values())[1:]
    assert emrqa == "70.0 ± 1.0 (3 seeds)\n68.0 to 72.0\nSTAF-LLM 78.0, SA-MDKIF 78.4"
    assert mednli == "-\nnote 1"
    assert notes == ["its data is not here."]
    header = next(name for name in row.cells if name.startswith("emrqa"))
    assert row.runs_of(header) == tuple(f"evaluate/emrqa/normal/seed{seed}-a1b2" for seed in range(3))


def test_the_time_of_a_row_is_that_of_its_runs_and_of_several_metrics_of_a_task_once():
    scores = {
        "original": {"emrqa": 0.5, "emrqa F1": 0.5, "mednli": 0.5},
        "normal": {"emrqa": 0.7, "emrqa F1": 0.7, "mednli": None},
    }
    result = reproduced("table3", scores)
    result["columns"][1]["task"] = result["columns"][0]["task"]
    for own, seconds in zip(result["rows"][0]["cells"], (2.0, 2.0, 50.0), strict=True):
        own |= {"seconds": seconds, "seeds": 1}
    assert [list(row.cells.values()) for row in cost_rows(one(result))] == [
        ["original", "2", "26 s", "52 s"], ["normal", "3", "2.0 s", "6.0 s"], ["All rows", "5", "12 s", "58 s"],
    ]  # fmt: skip
    assert cost_rows(one(without_cells({"": result})[""])) == []


def test_one_run_shows_the_interval_of_the_test_items():
    single = read_cell(0.7, "x", "y", seeds=1)
    assert cell_text(single) == "70.0"
    assert single.ends == pytest.approx((0.69, 0.71))


def test_the_papers_are_named_in_order_and_once_where_they_agree():
    assert papers_text(read_cell(0.5, "x", "y", papers={"sa-mdkif": 80.0, "staf-llm": 78.0})) == "STAF-LLM 78.0, SA-MDKIF 80.0"
    assert papers_text(read_cell(0.5, "x", "y", papers={"sa-mdkif": 78.0, "staf-llm": 78.0})) == "both papers 78.0"
    assert papers_text(read_cell(0.5, "x", "y", papers={})) == ""


def test_a_result_of_an_earlier_version_is_read():
    old = reproduced("table3", {"normal": {"emrqa": 0.7}}, comparisons=[compared("emrqa", "normal", "average", 0.1)])
    for test in old["comparisons"]:
        test["verdict"] = test.pop("outcome")
    old["rows"] = [{**{k: v for k, v in row.items() if k != "cells"}, "places": row["cells"]} for row in old.pop("rows")]
    assert one(old).cell("normal", "emrqa").mean == 0.7
    assert one(old).comparisons[0].outcome == "win"


def test_tokens_are_those_of_the_prompt_with_examples_and_of_the_task_only():
    (in_context, few_shot), notes = table_rows(one(world()["tokens"]))
    assert in_context.cells["emrqa, tokens"] == "1,000\n6.5 of 32 examples shown"
    assert few_shot.cells["emrqa, tokens"] == "150\n0 examples shown"
    assert notes == []


def test_weights_are_shown_by_expert_with_their_spread():
    row = next(row for row in table_rows(one(world()["fig7"]))[0] if row.cells["Expert"] == NEAR[0])
    assert row.cells["pubmedqa, weight"] == "0.700 ± 0.000 (3 seeds)"
    assert row.cells["cliner, weight"] == "0.100 ± 0.000 (3 seeds)"


def test_wins_ties_and_losses_of_our_routers_are_counted():
    rows = comparison_rows(one(world()["table3"]))
    against = {(row.cells["Row"], row.cells["Against"]): row for row in rows}
    assert against["normal", "average"].cells["Wins / ties / losses"] == "6 / 0 / 0"
    assert against["few shot", "normal"].cells["Wins / ties / losses"] == "0 / 0 / 6"
    assert ("normal", "few shot") not in against  # shown once
    shown = against["normal", "average"].cells["emrqa, better by"]
    assert shown == "+10.0 win\n9.0 to 11.0\np\u00a0=\u00a00.001\nHolm p\u00a0=\u00a00.018"
    mean = against["normal", "average"].cells["Mean difference"]
    assert mean == "accuracy +10.0 win\n9.6 to 10.4\np\u00a0<\u00a00.001\nHolm p\u00a0<\u00a00.001"
    assert "Holm" not in against["normal", "ia3"].cells["emrqa, better by"]  # not a primary comparison
    assert set(against["normal", "average"].runs_of("emrqa, better by")) == {
        f"evaluate/emrqa/{name}/seed{seed}-a1b2" for name in ("normal", "average") for seed in range(3)
    }


def test_of_two_runs_of_a_table_the_one_with_more_answers_is_shown():
    small = one(reproduced("fig6", curve({"32": 0.2}, ("mednli",)), run="reproduce/fig6/cpu/seed0-0000"))
    large = one({**world()["fig6"], "method": "other"})
    assert tables_of([small, large]) == {"fig6": large}
    text = page.page_text([small, large])
    assert "profile other" in text
    assert "also run:" in text
    assert small.cell("64", "mednli").missing == "fig6 was run without a row '64'"


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_figures_have_their_numbers_and_tables_have_none():
    found = read(world())
    alts = {name: figure.alt for name, table in found.items() if (figure := figures.paper_figure(table))}
    assert set(alts) == {"fig5", "fig6", "fig7", "fig8"}
    assert "few shot: 10 90.0, 20 88.0, 30 87.0" in alts["fig5"]
    assert "pubmedqa: 8 50.0, 16 60.0, 32 70.0, 64 71.0" in alts["fig6"]
    assert "question answering 0.70" in alts["fig7"]
    assert "emrqa: 0 30.0, 3 50.0, 6 60.0, 9 70.0, 12 80.0" in alts["fig8"]
    assert all(figures.paper_figure(table) is None for table in read(without_cells(world())).values())


def test_a_figure_of_one_seed_shows_the_interval_of_its_run():
    single = read(each_cell(world(), lambda own: {**own, "deviation": None, "low": None, "high": None, "seeds": 1}))
    single["fig6"].rows[0].cells[0].interval = (0.3, 0.9)
    assert figures.paper_figure(single["fig6"]) != figures.paper_figure(read(world())["fig6"])


# ---- confusion matrices ----------------------------------------------------------------------------------------------


def predicted(folder: Path, answers: list[tuple[int, int]], labels: int = 3) -> None:
    lines = [{"id": str(i), "gold": g, "scores": [float(a == k) for k in range(labels)]} for i, (g, a) in enumerate(answers)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_best_router_is_counted_label_by_label(tmp_path):
    write(
        tmp_path,
        evaluated("normal", value=0.6, output_type="multiple_choice"),
        evaluated("few_shot", value=0.3, output_type="multiple_choice"),
    )
    results = load_results(tmp_path)
    by_method = {result.method: tmp_path / result.run for result in results}
    predicted(by_method["normal"], [(0, 0), (0, 1), (1, 1), (2, 0)])
    predicted(by_method["few_shot"], [(0, 2)])
    found = confusion_table(tmp_path, results, "icd10_chapter")
    assert found is not None
    title, rows = found
    assert title == "Normal router (gradient)"
    assert [list(row.cells.values()) for row in rows] == [
        ["label 1", "1", "1", "0"], ["label 2", "0", "1", "0"], ["label 3", "1", "0", "0"],
    ]  # fmt: skip
    assert list(rows[0].cells)[1:] == ["label 1", "label 2", "label 3"]
    for result in results:
        assert isinstance(result, Evaluation)
        result.labels = ["yes", "no", "maybe"]
    assert [next(iter(row.cells.values())) for row in (confusion_table(tmp_path, results, TASK) or ("", []))[1]] == [
        "yes", "no", "maybe",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"output_type": "multi_label"}, {"metrics": {"accuracy": evaluated("normal")["metrics"]["accuracy"]}}]
)
def test_a_task_without_fixed_labels_has_no_matrix(tmp_path, change):
    write(tmp_path, evaluated("normal", **{"output_type": "multiple_choice", **change}))
    results = load_results(tmp_path)
    predicted(tmp_path / results[0].run, [(0, 0)])
    assert confusion_table(tmp_path, results, "icd10_chapter") is None


def test_other_numbers_of_labels_too_many_or_none_make_no_matrix(tmp_path):
    write(tmp_path, evaluated("normal", output_type="multiple_choice"))
    results = load_results(tmp_path)
    assert confusion_table(tmp_path, results, "icd10_chapter") is None
    path = tmp_path / results[0].run / "predictions.jsonl"
    for sizes, shown in (((2, 3), False), ((26,), False), ((25,), True)):
        path.write_text("".join(json.dumps({"gold": 0, "scores": [0.0] * size}) + "\n" for size in sizes))
        assert (confusion_table(tmp_path, results, "icd10_chapter") is not None) == shown


@pytest.mark.parametrize("line", ["{", "[]", '{"gold": 3, "scores": [1.0]}', '{"gold": 0, "scores": ["a"]}', '{"gold": true}'])
def test_damaged_predictions_name_file_and_line(tmp_path, line):
    write(tmp_path, evaluated("normal", output_type="multiple_choice"))
    results = load_results(tmp_path)
    (tmp_path / results[0].run / "predictions.jsonl").write_text('{"gold": 0, "scores": [1.0]}\n' + line + "\n")
    with pytest.raises(DamagedFile, match=r"predictions\.jsonl, line 2"):
        confusion_table(tmp_path, results, "icd10_chapter")


# ---- the page --------------------------------------------------------------------------------------------------------


def a_reproduced_set(runs: Path) -> Path:
    """The good world, with some of the evaluations behind its cells, and a choice of an expert, which is of no table."""
    found = world()
    empty = cell(None, "encoder", "readmission", papers={"sa-mdkif": 69.33})
    line = next(line for line in found["table5"]["rows"] if line["name"] == "encoder")
    line["cells"] = [*line["cells"][:4], empty, line["cells"][5]]
    write(runs, trained(), {"stage": "choose", "task": "mednli", "method": "single", "seed": 0, "settings": {"expert": "x"}})
    write(runs, *({key: value for key, value in result.items() if key != "run"} for result in found.values()))
    for task, methods in (("mednli", ("original", "normal", "few_shot", "lora")), ("emrqa", ("normal",))):
        write(
            runs,
            *(
                evaluated(name, value=0.9 if name == "normal" else 0.3, task=task, output_type="multiple_choice")
                for name in methods
            ),
        )
    predicted(runs / "evaluate/mednli/normal/seed0-a1b2", [(0, 0), (1, 0)], labels=2)
    return runs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("page")
    out = page.write_page(a_reproduced_set(folder / "runs"), folder / "report.html")
    return folder, out.read_text(encoding="utf-8")


def test_the_page_starts_with_the_claims_then_the_tables_then_the_tasks(made):
    _, text = made
    parsed = Page(text)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert not {"script", "iframe", "object", "form"} & set(parsed.tags)
    assert "http://" not in text
    assert "https://" not in text
    order = [text.index(f'id="{name}"') for name in ("claims", "reproduced", "table3", "fig5", "tokens", "task-1", "reading")]
    assert order == sorted(order)
    assert all(f'id="claim-{claim.id}"' in text for claim in CLAIMS)
    assert "✓ 37 held" in text
    assert "? 1 open" in text
    assert "– 1 not comparable" in text
    assert parsed.tags.count("caption") == parsed.tags.count("table")
    assert "Confusion matrix of Normal router (gradient)" in text


def test_every_number_of_a_reproduced_place_leads_to_its_runs(made):
    _, text = made
    links = {link for link in Page(text).links if not link.startswith(("#", "data:"))}
    assert {f"runs/reproduce/{name}/cpu/seed0-a1b2/" for name in world()} <= links
    assert {f"runs/evaluate/{column}/normal/seed{seed}-a1b2/" for column in TABLE3 for seed in range(3)} <= links
    assert {f"runs/evaluate/{column}/new/seed0-a1b2/" for column in CLINICAL} <= links


def test_a_missing_place_says_why_and_keeps_the_papers_number(made):
    _, text = made
    section = text[text.index('id="table5"') : text.index('id="fig5"')]
    assert "note 1" in section
    assert "<li>its data is not here.</li>" in section
    assert "SA-MDKIF 69.3" in section


def test_stages_that_only_put_together_are_not_counted_as_runs(made):
    folder, text = made
    results = load_results(folder / "runs")
    line = page.head_line(results)
    assert line == page.head_line([r for r in results if r.stage != "choose"])
    assert "1 expert" in line
    assert "choose, " not in text[text.index('id="settings"') : text.index("All runs")]
    assert "reproduce, cpu" in text


def test_claims_of_which_nothing_was_run_are_folded_after_the_others_with_their_numbers(made, tmp_path):
    whole = made[1]
    assert "Nothing was run for" not in whole
    shutil.copytree(made[0] / "runs" / "reproduce" / "tokens", tmp_path / "runs" / "reproduce" / "tokens")
    text = page.write_page(tmp_path / "runs", tmp_path / "report.html").read_text(encoding="utf-8")
    assert "tiny · 1 reproduced table · 0 finished runs" in text
    shown, folded = text.split(f"Nothing was run for {len(CLAIMS) - 1} more")
    for number, claim in enumerate(CLAIMS, start=1):
        item = re.compile(f'<li id="claim-{claim.id}" value="{number}">')
        assert len(item.findall(whole)) == 1
        assert len(item.findall(shown)) == (claim.tables == ("tokens",))
        assert len(item.findall(folded)) == (claim.tables != ("tokens",))


def test_a_page_without_reproduced_tables_has_no_claims(tmp_path):
    text = page.write_page(write(tmp_path / "runs", evaluated("normal")), tmp_path / "report.html").read_text()
    assert 'id="claims"' not in text
    assert 'id="reproduced"' not in text
    assert "not comparable" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"title": None}, "title: Field required"),
        ({"columns": [{"name": "emrqa"}]}, "columns.0.task: Field required"),
        ({"rows": {"normal": []}}, "rows: Input should be a valid list"),
        ({"comparisons": {"original": 0.2}}, "comparisons: Input should be a valid list"),
        ({"comparisons": [{**compared("emrqa", "a", "b", 0.1), "outcome": "draw"}]}, "comparisons.0.outcome: "),
        ({"over_columns": [{**compared("emrqa", "a", "b", 0.1), "outcome": "draw"}]}, "over_columns.0.outcome: "),
        ({"prompt_tokens": {"emrqa": "many"}}, "prompt_tokens.emrqa: "),
        ({"settings": ["seeds"]}, "settings: "),
        ({"columns": []}, "row 'normal' has 6 cells for 0 columns"),
    ],
)
def test_a_damaged_reproduced_result_says_what_is_wrong(tmp_path, change, words):
    write(tmp_path, {**reproduced("table3", alike({"normal": 0.7}, TABLE3, True)), **change})
    with pytest.raises(DamagedFile, match=re.escape(words)):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": "high"}, "mean: "),
        ({"mean": None}, ": Value error, mean is null and 'missing' does not say why"),
        ({"seeds": "many"}, "seeds: "),
        ({"runs": "all"}, "runs: "),
        ({"papers": []}, "papers: "),
        ({"papers": {"staf-llm": None}}, "papers.staf-llm: "),
        ({"interval": 0.1}, "interval: "),
        ({"interval_of_one_seed": [0.1]}, "interval_of_one_seed"),
        ({"weights": [{"entity_relation": None}]}, "weights.0.entity_relation: "),
    ],
)
def test_a_damaged_cell_is_named_by_row_and_column(tmp_path, change, words):
    result = reproduced("table3", alike({"original": 0.3, "normal": 0.7}, TABLE3, True))
    result["rows"][1]["cells"][2] |= change
    write(tmp_path, result)
    with pytest.raises(DamagedFile, match=r"rows\.1\.cells\.2\.?" + re.escape(words)):
        load_results(tmp_path)


# ---- methods next to each other ------------------------------------------------------------------------------------


def test_a_baseline_is_named_with_its_setting():
    both = [scored("lora", setting=s, settings={"router": {"shots": n}}) for s, n in (("normal", None), ("few-shot", 32))]
    elsewhere = scored("lora", setting="normal", task="other")
    once = [scored("ia3", setting="normal"), scored("original")]
    titles = [row.cells["Method"] for row in tables.task_table([*both, elsewhere, *once], TASK)]
    assert titles == ["Base model", "LoRA, few-shot", "LoRA, normal", "IA3, normal"]
    other = tables.task_table([*both, elsewhere, *once], "other")
    assert [row.cells["Method"] for row in other] == ["LoRA, normal"]


def test_routers_of_other_numbers_of_examples_or_experts_are_named_by_them():
    shots = [scored("few_shot", adaptation_examples=n, settings={"router": {"shots": n}}) for n in (8, 64)]
    titles = [row.cells["Method"] for row in tables.task_table(shots, TASK)]
    assert titles == ["Few-shot router (CMA-ES, 8)", "Few-shot router (CMA-ES, 64)"]
    experts = [{f"expert_{i}": 1 / count for i in range(count)} for count in (3, 12)]
    routers = [scored("normal", weights=own, experts_fingerprint=str(len(own))) for own in experts]
    titles = [row.cells["Method"] for row in tables.task_table(routers, TASK)]
    assert titles == [f"Normal router (gradient): number of experts {count}" for count in (3, 12)]
    drawn = figures.weights_figure(routers, TASK)
    assert drawn
    assert "Normal router (gradient): number of experts 12" in drawn.alt
    assert "number of experts 3" not in drawn.alt


def test_variants_of_routers_and_baselines_have_printed_names():
    titles = [method_title(name, 16) for name in ("few_shot_unconstrained", "few_shot_l2_scaled", "normal_scaled", "full")]
    assert titles == [
        "Few-shot router (CMA-ES, 16) with unconstrained weights",
        "Few-shot router (CMA-ES, 16) with l2 weights and learned scale",
        "Normal router with learned scale",
        "Full fine-tuning",
    ]


def test_prompt_tokens_are_a_column_where_a_run_counted_them():
    counted = scored("in_context", details={"prompt_tokens_mean": 1204.4})
    rows = tables.task_table([scored("original"), counted], TASK)
    assert [row.cells["Prompt tokens"] for row in rows] == ["-", "1,204"]
    assert "Prompt tokens" not in tables.task_table([scored("original")], TASK)[0].cells
