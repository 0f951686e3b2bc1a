"""Reproduced tables on the page: places with their papers and runs, figures, confusion matrices, and what is damaged."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from reproduced_results import (
    CLINICAL,
    NEAR,
    TABLE3,
    alike,
    compared,
    curve,
    each_place,
    place,
    reproduced,
    without_places,
    world,
)
from test_report import TASK, Page, evaluated, trained, write

from staf.errors import DamagedFile
from staf.report import curves, figures, page, tables
from staf.report.claims import CLAIMS
from staf.report.collect import load_results
from staf.report.confusion import confusion_of, count_answers
from staf.report.names import mid_sentence
from staf.report.places import experiments, interval_of, papers_of, place_of, score_of
from staf.report.reproduced import comparison_rows, score_rows, token_rows, weight_rows
from staf.report.reproduced import reproduced as reproduced_tables

# ---- tables ----------------------------------------------------------------------------------------------------------


def test_a_place_shows_ours_the_interval_and_the_papers():
    result = reproduced("table3", {"normal": {"emrqa": 0.7, "mednli": None}})
    result["lines"][0]["places"][0]["papers"] = {"staf-llm": 78.0, "sa-mdkif": 78.4}
    notes: list[str] = []
    (row,) = score_rows(result, notes)
    emrqa, mednli = list(row.cells.values())[1:]
    assert emrqa == "70.0 ± 1.0 (3 seeds)\n68.0 to 72.0\nSTAF-LLM 78.0, SA-MDKIF 78.4"
    assert mednli == "-\nnote 1"
    assert notes == ["its data is not here."]
    header = next(name for name in row.cells if name.startswith("emrqa"))
    assert row.runs_of(header) == tuple(f"evaluate/emrqa/normal/seed{seed}-a1b2" for seed in range(3))


def test_one_run_shows_the_interval_of_the_test_items():
    single = place(0.7, "x", "y", seeds=1)
    assert score_of(single) == "70.0"
    assert interval_of(single) == pytest.approx((0.69, 0.71))


def test_an_interval_over_few_seeds_stays_within_shares():
    assert interval_of({**place(0.5, "x", "y", seeds=2), "low": -2.9, "high": 3.4}) == (0.0, 1.0)


def test_the_papers_are_named_in_order_and_once_where_they_agree():
    assert papers_of(place(0.5, "x", "y", papers={"sa-mdkif": 80.0, "staf-llm": 78.0})) == "STAF-LLM 78.0, SA-MDKIF 80.0"
    assert papers_of(place(0.5, "x", "y", papers={"sa-mdkif": 78.0, "staf-llm": 78.0})) == "both papers 78.0"
    assert papers_of(place(0.5, "x", "y", papers={})) == ""


def test_tokens_are_those_of_the_prompt_with_examples_and_of_the_task_alone():
    notes: list[str] = []
    in_context, few_shot = token_rows(world()["tokens"], notes)
    assert in_context.cells["emrqa, tokens"] == "1,000\n6.5 of 32 examples shown"
    assert few_shot.cells["emrqa, tokens"] == "150\n0 examples shown"
    assert notes == []


def test_weights_are_shown_by_expert_with_their_spread():
    row = next(row for row in weight_rows(world()["fig7"], []) if row.cells["Expert"] == NEAR[0])
    assert row.cells["pubmedqa, weight"] == "0.700 ± 0.000 (3 seeds)"
    assert row.cells["cliner, weight"] == "0.100 ± 0.000 (3 seeds)"


def test_wins_ties_and_losses_of_our_routers_are_counted():
    rows = comparison_rows(world()["table3"])
    against = {(row.cells["Row"], row.cells["Against"]): row for row in rows}
    assert against["normal", "average"].cells["Wins / ties / losses"] == "6 / 0 / 0"
    assert against["few shot", "normal"].cells["Wins / ties / losses"] == "0 / 0 / 6"
    assert ("normal", "few shot") not in against  # told once
    cell = against["normal", "average"].cells["emrqa, better by"]
    assert cell == "+10.0 win\n9.0 to 11.0\np\u00a0=\u00a00.001"
    assert against["normal", "average"].cells["Mean difference"] == "+10.0 win\n9.6 to 10.4\np\u00a0<\u00a00.001"
    assert set(against["normal", "average"].runs_of("emrqa, better by")) == {
        f"evaluate/emrqa/{name}/seed{seed}-a1b2" for name in ("normal", "average") for seed in range(3)
    }


def test_of_two_runs_of_a_table_the_one_with_more_answers_is_shown():
    small = reproduced("fig6", curve({"32": 0.2}, ("mednli",)), run="reproduce/fig6/cpu/seed0-0000")
    large = {**world()["fig6"], "method": "other"}
    assert experiments([small, large])["fig6"] is large
    (shown,) = reproduced_tables([small, large])
    assert (shown.profile, shown.also) == ("other", ("reproduce/fig6/cpu/seed0-0000",))
    assert place_of(small, "64", "mednli")["missing"] == "fig6 was run without a row '64'"


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_figures_tell_their_numbers_and_tables_have_none():
    found = world()
    assert "few shot: 10 90.0, 20 88.0, 30 87.0" in curves.reproduced_figure(found["fig5"])
    assert "pubmedqa: 8 50.0, 16 60.0, 32 70.0, 64 71.0" in curves.reproduced_figure(found["fig6"])
    assert "question answering 0.70" in curves.reproduced_figure(found["fig7"])
    assert "emrqa: 0 30.0, 3 50.0, 6 60.0, 9 70.0, 12 80.0" in curves.reproduced_figure(found["fig8"])
    assert curves.reproduced_figure(found["table3"]) == ""
    assert all(curves.reproduced_figure(result) == "" for result in without_places(found).values())


def test_a_figure_of_one_seed_shows_the_interval_of_its_run():
    found = each_place(world(), lambda one: {**one, "deviation": None, "low": None, "high": None, "seeds": 1})
    assert curves.reproduced_figure(found["fig6"]) != curves.reproduced_figure(world()["fig6"])


# ---- confusion matrices ----------------------------------------------------------------------------------------------


def predicted(folder: Path, answers: list[tuple[int, int]], labels: int = 3) -> None:
    lines = [{"id": str(i), "gold": g, "scores": [float(a == k) for k in range(labels)]} for i, (g, a) in enumerate(answers)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_best_router_is_counted_label_by_label(tmp_path):
    write(tmp_path, evaluated("normal", value=0.6, form="choice"), evaluated("few_shot", value=0.3, form="choice"))
    results = load_results(tmp_path)
    by_method = {result["method"]: tmp_path / result["run"] for result in results}
    predicted(by_method["normal"], [(0, 0), (0, 1), (1, 1), (2, 0)])
    predicted(by_method["few_shot"], [(0, 2)])
    matrix = confusion_of(tmp_path, results, "icd10_chapter")
    assert matrix is not None
    assert matrix.counts == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert matrix.labels == ["label 1", "label 2", "label 3"]
    assert [matrix.shade(0, column) for column in range(3)] == [50, 50, 0]
    named = [{**result, "labels": ["yes", "no", "maybe"]} for result in results]
    assert getattr(confusion_of(tmp_path, named, "icd10_chapter"), "labels", None) == ["yes", "no", "maybe"]


@pytest.mark.parametrize("change", [{"form": "several"}, {"metrics": {"accuracy": evaluated("normal")["metrics"]["accuracy"]}}])
def test_a_task_without_fixed_labels_has_no_matrix(tmp_path, change):
    write(tmp_path, evaluated("normal", **{"form": "choice", **change}))
    results = load_results(tmp_path)
    predicted(tmp_path / results[0]["run"], [(0, 0)])
    assert confusion_of(tmp_path, results, "icd10_chapter") is None


def test_other_numbers_of_labels_too_many_or_none_make_no_matrix(tmp_path):
    write(tmp_path, evaluated("normal", form="choice"))
    assert confusion_of(tmp_path, load_results(tmp_path), "icd10_chapter") is None
    two, three = {"gold": 0, "scores": [1.0, 0.0]}, {"gold": 0, "scores": [1.0, 0.0, 0.0]}
    assert count_answers([two, three]) is None
    assert count_answers([{"gold": 0, "scores": [0.0] * 26}]) is None
    assert count_answers([{"gold": 0, "scores": [0.0] * 25}]) is not None


@pytest.mark.parametrize("line", ["{", "[]", '{"gold": 3, "scores": [1.0]}', '{"gold": 0, "scores": ["a"]}', '{"gold": true}'])
def test_damaged_predictions_name_file_and_line(tmp_path, line):
    write(tmp_path, evaluated("normal", form="choice"))
    results = load_results(tmp_path)
    (tmp_path / results[0]["run"] / "predictions.jsonl").write_text('{"gold": 0, "scores": [1.0]}\n' + line + "\n")
    with pytest.raises(DamagedFile, match=r"predictions\.jsonl, line 2"):
        confusion_of(tmp_path, results, "icd10_chapter")


# ---- the page --------------------------------------------------------------------------------------------------------


def a_reproduced_set(runs: Path) -> Path:
    """The good world, with some of the evaluations behind its places, and a choice of an expert, which is of no table."""
    found = world()
    empty = place(None, "encoder", "readmission", papers={"sa-mdkif": 69.33})
    line = next(line for line in found["table5"]["lines"] if line["name"] == "encoder")
    line["places"] = [*line["places"][:4], empty, line["places"][5]]
    write(runs, trained(), {"stage": "choose", "task": "mednli", "method": "single", "seed": 0, "settings": {"expert": "x"}})
    write(runs, *({key: value for key, value in result.items() if key != "run"} for result in found.values()))
    for task, methods in (("mednli", ("original", "normal", "few_shot", "lora")), ("emrqa", ("normal",))):
        write(runs, *(evaluated(name, value=0.9 if name == "normal" else 0.3, task=task, form="choice") for name in methods))
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
    assert not {"script", "img", "iframe", "object", "form"} & set(parsed.tags)
    assert "http://" not in text
    assert "https://" not in text
    order = [text.index(f'id="{name}"') for name in ("claims", "reproduced", "table3", "fig5", "tokens", "task-1", "reading")]
    assert order == sorted(order)
    assert all(f'id="claim-{claim.name}"' in text for claim in CLAIMS)
    assert "✓ 30 held" in text
    assert "? 1 cannot be judged here" in text
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
    assert line == page.head_line([r for r in results if r["stage"] not in ("reproduce", "choose")])
    assert "1 expert" in line
    assert "choose, " not in text[text.index('id="settings"') : text.index("All runs")]
    assert "reproduce, cpu" in text


def test_claims_of_which_nothing_was_run_are_folded_after_the_others_with_their_numbers(made, tmp_path):
    whole = made[1]
    assert "Nothing was run for" not in whole
    shutil.copytree(made[0] / "runs" / "reproduce" / "tokens", tmp_path / "runs" / "reproduce" / "tokens")
    text = page.write_page(tmp_path / "runs", tmp_path / "report.html").read_text(encoding="utf-8")
    assert "1 reproduced table · 0 finished runs" in text
    shown, folded = text.split(f"Nothing was run for {len(CLAIMS) - 1} more")
    for number, claim in enumerate(CLAIMS, start=1):
        item = re.compile(f'<li id="claim-{claim.name}" class="[a-z-]+" value="{number}">')
        assert len(item.findall(whole)) == 1
        assert len(item.findall(shown)) == (claim.needs == ("tokens",))
        assert len(item.findall(folded)) == (claim.needs != ("tokens",))


def test_a_page_without_reproduced_tables_has_no_claims(tmp_path):
    text = page.write_page(write(tmp_path / "runs", evaluated("normal")), tmp_path / "report.html").read_text()
    assert 'id="claims"' not in text
    assert 'id="reproduced"' not in text
    assert "cannot be judged" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"title": None}, "'title' is not a text"),
        ({"columns": [{"name": "emrqa"}]}, "'columns' is not a list of objects"),
        ({"lines": {"normal": []}}, "'lines' is not a list of objects"),
        ({"comparisons": {"original": 0.2}}, "'comparisons' is not a list"),
        ({"comparisons": [{**compared("emrqa", "a", "b", 0.1), "verdict": "draw"}]}, "'comparisons' is not a list"),
        ({"over_columns": [{**compared("emrqa", "a", "b", 0.1), "verdict": "draw"}]}, "'over_columns' is not a list"),
        ({"prompt_tokens": {"emrqa": "many"}}, "'prompt_tokens' does not hold"),
        ({"settings": ["seeds"]}, "'settings' is not an object"),
    ],
)
def test_a_damaged_reproduced_result_says_what_is_wrong(tmp_path, change, words):
    write(tmp_path, {**reproduced("table3", alike({"normal": 0.7}, TABLE3, True)), **change})
    with pytest.raises(DamagedFile, match=re.escape(words)):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": "high"}, "'mean' is not a number"),
        ({"mean": None}, "'mean' is null and 'missing' does not say why"),
        ({"seeds": None}, "the number of seeds"),
        ({"runs": "all"}, "'runs' is not a list of folders"),
        ({"papers": None}, "'papers' does not hold"),
        ({"papers": {"staf-llm": None}}, "'papers' does not hold"),
        ({"interval_of_one_seed": [0.1]}, "'interval_of_one_seed' is not"),
        ({"weights": [{"entity_relation": None}]}, "'weights' is not a list"),
    ],
)
def test_a_damaged_place_is_named_by_row_and_number(tmp_path, change, words):
    result = reproduced("table3", alike({"original": 0.3, "normal": 0.7}, TABLE3, True))
    result["lines"][1]["places"][2] |= change
    write(tmp_path, result)
    with pytest.raises(DamagedFile, match=re.escape("line 'normal', place 3: ") + ".*" + re.escape(words)):
        load_results(tmp_path)


# ---- methods beside each other ---------------------------------------------------------------------------------------


def test_a_baseline_that_was_run_in_both_settings_tells_which():
    both = [evaluated("lora", setting=s, settings={"router": {"shots": n}}) for s, n in (("normal", None), ("few-shot", 32))]
    elsewhere = evaluated("lora", setting="normal", task="other")
    once = [evaluated("ia3", setting="normal"), evaluated("original")]
    titles = [row.cells["Method"] for row in tables.task_table([*both, elsewhere, *once], TASK)]
    assert titles == ["Original model", "LoRA, few-shot", "LoRA, normal", "IA3"]
    other = tables.task_table([*both, elsewhere, *once], "other")
    assert [row.cells["Method"] for row in other] == ["LoRA, normal"]


def test_routers_of_other_numbers_of_examples_or_experts_are_named_by_them():
    shots = [evaluated("few_shot", adaptation_examples=n, settings={"router": {"shots": n}}) for n in (8, 64)]
    titles = [row.cells["Method"] for row in tables.task_table(shots, TASK)]
    assert titles == ["Few-shot router (CMA-ES, 8)", "Few-shot router (CMA-ES, 64)"]
    experts = [{f"expert_{i}": 1 / count for i in range(count)} for count in (3, 12)]
    routers = [evaluated("normal", weights=own, experts_fingerprint=str(len(own))) for own in experts]
    titles = [row.cells["Method"] for row in tables.task_table(routers, TASK)]
    assert titles == [f"Normal router (gradient): number of experts {count}" for count in (3, 12)]
    assert figures.weights_figure(routers, TASK).count("Normal router (gradient): number of experts 12") >= 1
    assert "number of experts 3" not in figures.weights_figure(routers, TASK)


def test_variants_of_routers_and_peers_have_printed_names():
    titles = [
        tables.method_title(name, 16) for name in ("few_shot_unconstrained", "few_shot_unit_scaled", "normal_scaled", "full")
    ]
    assert titles == [
        "Few-shot router (CMA-ES, 16) with free weights",
        "Few-shot router (CMA-ES, 16) with weights of length 1 and learned scale",
        "Normal router with learned scale",
        "Full fine-tuning",
    ]
    assert [mid_sentence(title) for title in ("Normal router (gradient)", "LoRA, few-shot", "CNN", "zebra")] == [
        "the normal router (gradient)", "LoRA, few-shot", "CNN", "'zebra'",
    ]  # fmt: skip


def test_prompt_tokens_are_a_column_where_a_run_counted_them():
    counted = evaluated("in_context", details={"prompt_tokens_mean": 1204.4})
    rows = tables.task_table([evaluated("original"), counted], TASK)
    assert [row.cells["Prompt tokens"] for row in rows] == ["-", "1,204"]
    assert "Prompt tokens" not in tables.task_table([evaluated("original")], TASK)[0].cells
