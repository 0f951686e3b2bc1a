"""The report reads result files written here by hand, and shows them without inventing, mixing or losing a number."""

from __future__ import annotations

import json
import re
import statistics
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from staf.errors import DamagedFile, MissingData
from staf.report import figures, formatting, page, tables
from staf.report.formatting import METHODS
from staf.report.results import Evaluation, Training, load_results

TASK = "icd10_chapter"


def metric(value: float | None, spread: float = 0.05) -> dict[str, Any]:
    ends = {"low": None, "high": None} if value is None else {"low": value - spread, "high": value + spread}
    return {"value": value, **ends, "examples": 300, "higher_is_better": True}


def evaluated(method: str, seed: int = 0, value: float | None = 0.31, task: str = TASK, **changes: Any) -> dict[str, Any]:
    return {
        "stage": "evaluate",
        "task": task,
        "task_title": "ICD-10-CM chapter from a disease title",
        "unseen": True,
        "method": method,
        "setting": "-",
        "seed": seed,
        "metrics": {"accuracy": metric(value), "macro_f1": metric(0.2), "macro_auc": None},
        "primary_metric": "accuracy",
        "tunable_parameters": 10,
        "adaptation_examples": 32,
        "seconds": 123.0,
        "peak_memory_bytes": 1.2e9,
        "weights": None,
        "weight_total": None,
        "comparisons": {},
        "stop_reason": None,
        "base": {"name": "tiny", "fingerprint": "3fa1"},
        "experts_fingerprint": "91be",
        "data_fingerprint": "77aa",
        "settings": {"router": {"steps": 40}, "seed": seed},
        "versions": {"staf": "0.1.0"},
        **changes,
    }


def trained(expert: str = "entity_relation", **changes: Any) -> dict[str, Any]:
    return {
        "stage": "train",
        "task": expert,
        "method": "adalora",
        "seed": 0,
        "metrics": {},
        "steps": 80,
        "examples": 960,
        "loss_first": 3.21,
        "loss_last": 0.84,
        "tokens": 123456,
        "tokens_per_second": 683.2,
        "seconds": 74.2,
        "peak_memory_bytes": 8.5e8,
        "trainable_parameters": 3_700_000,
        "final_rank_average": 2.5,
        "ranks": {"layers.0.q_proj": 4, "layers.0.up_proj": 0, "layers.1.q_proj": 5, "layers.1.up_proj": 1},
        "curve": [[0, 3.2], [40, 1.4], [80, 0.8]],
        **changes,
    }


def scored(*args: Any, **changes: Any) -> Evaluation:
    """An evaluation as it is read."""
    return Evaluation.model_validate(evaluated(*args, **changes))


def expert(*args: Any, **changes: Any) -> Training:
    """A training as it is read."""
    return Training.model_validate(trained(*args, **changes))


def write(runs: Path, *results: dict[str, Any], suffix: str = "a1b2") -> Path:
    for result in results:
        method = re.sub(r"\W", "_", result["method"])
        folder = runs / result["stage"] / result["task"] / method / f"seed{result['seed']}-{suffix}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return runs


def a_full_set(runs: Path) -> Path:
    above = {"original": {"difference": 0.23, "low": 0.18, "high": 0.28, "p_value": 0.0001}}
    unsure = {"average": {"difference": -0.01, "low": -0.04, "high": 0.02, "p_value": 0.41}}
    weights = {"entity_relation": 0.7, "multiple_choice": 0.23}
    own = "entity_relation-held-out"
    return write(
        runs,
        evaluated("original", value=0.08, tunable_parameters=0, adaptation_examples=0),
        evaluated("average", value=0.32),
        evaluated("normal", weights=weights, weight_total=0.93, comparisons={**above, **unsure}),
        *(evaluated("few_shot", seed, 0.25 + seed / 100, weights=weights, data_fingerprint=str(seed)) for seed in range(3)),
        evaluated("original", value=0.5, task=own, unseen=False),
        evaluated("single", value=0.73, task=own, unseen=False, comparisons=above),
        trained(),
    )


# ---- collect ---------------------------------------------------------------------------------------------------------


def test_an_unfinished_run_is_ignored(tmp_path):
    runs = write(tmp_path, evaluated("normal"))
    unfinished = tmp_path / "evaluate" / TASK / "few_shot" / "seed0-ffff"
    unfinished.mkdir(parents=True)
    (unfinished / "config.json").write_text("{}")
    (unfinished / ".result.json.x.tmp").write_text("{")
    assert [(r.method, r.run) for r in load_results(runs)] == [("normal", f"evaluate/{TASK}/normal/seed0-a1b2")]


def test_no_finished_run_says_which_command_to_run(tmp_path):
    (tmp_path / "evaluate" / TASK / "normal" / "seed0-ffff").mkdir(parents=True)
    with pytest.raises(MissingData, match=r"1 unfinished.*staf evaluate"):
        load_results(tmp_path)
    with pytest.raises(MissingData, match="no such folder"):
        load_results(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "should be a valid dictionary"),
        (json.dumps({"stage": "evaluate"}), "task: Field required.*method: Field required"),
        (json.dumps(evaluated("normal", metrics={})), "primary_metric"),
        (json.dumps(evaluated("normal", metrics={"accuracy": 0.3})), "accuracy"),
        (json.dumps(evaluated("normal", seconds="long")), "seconds"),
        (json.dumps(evaluated("normal", value=float("nan"))), "accuracy"),
        (json.dumps(evaluated("normal", weights={"entity_relation": None})), "weights"),
        (json.dumps(evaluated("normal", comparisons={"original": 0.2})), "comparisons.original"),
        (json.dumps(trained(curve=[[0]])), "curve"),
    ],
)
def test_a_damaged_result_names_its_file(tmp_path, content, words):
    folder = tmp_path / "evaluate" / TASK / "normal" / "seed0-a1b2"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(content)
    with pytest.raises(DamagedFile, match=words) as caught:
        load_results(tmp_path)
    assert str(folder / "result.json") in str(caught.value)


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_one_seed_prints_its_interval_and_several_their_mean_and_deviation(tmp_path):
    rows = {row.cells["Method"]: row for row in tables.task_table(load_results(a_full_set(tmp_path)), TASK)}
    assert rows[METHODS["normal"]].cells["Accuracy, %"] == "31.0 (26.0 to 36.0)"
    assert statistics.stdev([25, 26, 27]) == 1.0
    assert rows["Few-shot router (CMA-ES, 32)"].cells["Accuracy, %"] == "26.0 ± 1.0 (3 seeds)"
    assert len(rows["Few-shot router (CMA-ES, 32)"].runs) == 3
    assert rows[METHODS["normal"]].cells["Time"] == "2 min 3 s"
    assert rows[METHODS["normal"]].cells["Peak memory"] == "1.2 GB"


def test_a_missing_cell_prints_a_dash_and_a_true_zero_prints_zero():
    empty = scored("normal", value=None, seconds=None, peak_memory_bytes=None, tunable_parameters=0)
    cells = tables.task_table([empty], TASK)[0].cells
    assert [cells[c] for c in ("Accuracy, %", "Macro AUC, %", "Time", "Peak memory")] == ["-"] * 4
    assert cells["Tunable parameters"] == "0"
    other = scored("normal", task="other", task_title="Other")
    overview = tables.overview_table([scored("original"), other], [TASK, "other"])
    assert [list(row.cells.values())[1:] for row in overview] == [
        ["31.0 (26.0 to 36.0)", "-"],
        ["-", "31.0 (26.0 to 36.0)"],
    ]


def test_methods_come_in_the_order_of_the_table_and_unknown_ones_last():
    results = [scored(m) for m in ("zebra", "normal", "alpha", "original", "few_shot")]
    titles = [row.cells["Method"] for row in tables.task_table(results, TASK)]
    shots, gradient = METHODS["few_shot"], METHODS["normal"]
    assert titles == ["Base model", shots, gradient, "alpha", "zebra"]


def test_the_few_shot_router_tells_how_many_examples_it_really_had():
    row = tables.task_table([scored("few_shot", adaptation_examples=16)], TASK)[0]
    assert row.cells["Method"] == "Few-shot router (CMA-ES, 16)"


def test_runs_with_other_settings_are_never_averaged():
    results = [scored("normal", seed, settings={"router": {"steps": s}}) for s in (40, 80) for seed in (0, 1)]
    titles = [row.cells["Method"] for row in tables.task_table(results, TASK)]
    assert titles == [f"Normal router (gradient): router.steps {steps}" for steps in (40, 80)]


def test_the_same_seed_on_other_data_is_another_row():
    rows = tables.task_table([scored("normal", data_fingerprint=d) for d in ("a", "b")], TASK)
    assert [row.cells["Method"].rsplit(":", 1)[1] for row in rows] == [" data a", " data b"]


def test_a_loss_is_not_printed_in_percent():
    loss = {**metric(1.234), "higher_is_better": False}
    cells = tables.task_table([scored("normal", metrics={"loss": loss}, primary_metric="loss")], TASK)[0].cells
    assert cells["loss (lower is better)"] == "1.234 (1.184 to 1.284)"


def test_the_held_out_table_compares_the_expert_with_the_base_model(tmp_path):
    (row,) = tables.held_out_table(load_results(a_full_set(tmp_path)))
    assert row.cells["Expert"] == "entity_relation"
    assert row.cells["Base model"] == "50.0 (45.0 to 55.0)"
    assert row.cells["With its expert"] == "73.0 (68.0 to 78.0)"
    assert row.cells["Difference"] == "+23.0 (18.0 to 28.0)"
    only_original = scored("original", task="x-held-out")
    assert tables.held_out_table([only_original])[0].cells["With its expert"] == "-"


def test_the_training_table_shows_what_an_expert_cost():
    (row,) = tables.training_table([expert(loss_last=None)])
    shown = ("Steps", "Tokens", "Tokens/s", "Trainable parameters", "Average rank", "Time", "Peak memory")
    assert [row.cells[c] for c in shown] == ["80", "123,456", "683", "3.7M", "2.5", "74 s", "850 MB"]
    assert row.cells["Loss, first to last"] == "-"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.count_text(1234), "1,234"),
        (formatting.count_text(0), "0"),
        (formatting.count_text(3.7e6), "3.7M"),
        (formatting.time_text(0.42), "0.4 s"),
        (formatting.time_text(9.96), "10 s"),
        (formatting.time_text(74.2), "74 s"),
        (formatting.time_text(119.6), "2 min 0 s"),
        (formatting.time_text(3900), "1 h 5 min"),
        (formatting.memory_text(8.5e8), "850 MB"),
        (formatting.number_text(-0.0001, 100), "0.0"),
    ],
)
def test_numbers_are_printed_for_people(text, expected):
    assert text == expected


def test_a_name_in_brackets_is_printed_as_it_is(capsys):
    tables.print_table(tables.task_table([scored("[red]x[/red]")], TASK))
    assert "[red]x[/red]" in capsys.readouterr().out


def test_a_table_is_written_as_csv_and_markdown():
    rows = [tables.Row({"Method": "a|b", "F1, %": "31.0\n26.0 to 36.0"}, ()), tables.Row({"Method": "c", "F1, %": "-"}, ())]
    assert tables.csv_text(rows) == 'Method,"F1, %"\na|b,"31.0\n26.0 to 36.0"\nc,-\n'
    assert tables.markdown_text(rows) == "| Method | F1, % |\n| --- | --- |\n| a\\|b | 31.0<br>26.0 to 36.0 |\n| c | - |\n"


# ---- figures ---------------------------------------------------------------------------------------------------------


def text_of(drawn: figures.Figure | None) -> str:
    assert drawn is not None
    return "".join(ElementTree.fromstring(drawn.svg).itertext())


def test_figures_are_well_formed_and_say_what_they_show(tmp_path):
    results = load_results(a_full_set(tmp_path))
    one = next(r for r in results if isinstance(r, Training))
    drawn = [
        figures.scores_figure(results, TASK), figures.weights_figure(results, TASK), figures.rank_map(one),
        figures.learning_curve(one),
    ]  # fmt: skip
    assert all(text_of(figure) for figure in drawn)
    alts = [figure.alt for figure in drawn if figure]
    assert "Normal router (gradient) 31.0 (26.0 to 36.0)" in alts[0]
    assert "entity relation 0.70" in alts[1]
    assert "from 0 to 5" in alts[2]
    assert "3.20 at step 0, 0.80 at step 80" in alts[3]


def test_a_figure_without_numbers_is_none():
    nothing = [scored("original", value=None)]
    assert figures.scores_figure(nothing, TASK) is figures.weights_figure(nothing, TASK) is None
    assert figures.rank_map(expert(ranks={})) is figures.learning_curve(expert(curve=None)) is None


def test_names_that_look_like_formulas_or_markup_are_drawn_as_they_are():
    text = text_of(figures.scores_figure([scored("$x$"), scored("<script>"), scored('"&')], TASK))
    assert all(name in text for name in ("$x$", "<script>", '"&'))


def test_a_negative_weight_and_a_single_expert_are_drawn():
    drawn = figures.weights_figure([scored("normal", weights={"entity_relation": -0.2})], TASK)
    assert "-0.20" in text_of(drawn)


# ---- page ------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects what a browser would fetch or run, the links, and the order of open tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [given[name] or "" for name in ("src", "href") if name in given]
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag not in ("meta", "link", "img", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(tmp_path):
    text = page.write_page(a_full_set(tmp_path / "runs"), tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert not {"script", "iframe", "object", "form"} & set(parsed.tags)
    assert all(link.startswith(("#", "data:", "runs/")) for link in parsed.links)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert '<html lang="en">' in text
    assert "prefers-color-scheme: dark" in text
    assert parsed.tags.count("caption") == parsed.tags.count("table") == 4
    assert parsed.tags.count("img") == 4
    assert text.count('<div class="scroll"') == parsed.tags.count("table")  # no column is cut off


def test_every_run_is_linked_and_each_link_leads_to_a_run(tmp_path):
    out = page.write_page(a_full_set(tmp_path / "my runs"), tmp_path / "report.html")
    links = {link for link in Page(out.read_text()).links if not link.startswith(("#", "data:"))}
    folders = {path.parent for path in tmp_path.glob("my runs/*/*/*/*/result.json")}
    assert {tmp_path / link.replace("%20", " ") for link in links} == folders


def test_a_page_far_from_the_runs_names_the_runs_but_not_the_way_to_them(tmp_path):
    out = page.write_page(a_full_set(tmp_path / "here" / "runs"), tmp_path / "there" / "report.html")
    text = out.read_text()
    assert f'title="evaluate/{TASK}/normal/seed0-a1b2"' in text
    assert str(tmp_path) not in text
    assert all(link.startswith(("#", "data:")) for link in Page(text).links)


def test_comparisons_say_whether_a_difference_is_clear(tmp_path):
    results = load_results(a_full_set(tmp_path))
    base, average = (row.cells for row in tables.comparison_table(results, TASK))
    assert list(base.values())[1:] == ["Base model", "+23.0", "18.0 to 28.0", "p\u00a0<\u00a00.001", "above"]
    assert list(average.values())[1:] == ["Average of experts", "-1.0", "-4.0 to 2.0", "p\u00a0=\u00a00.410", "no"]
    assert page.head_line(results) == "tiny · 1 expert · 1 unseen task · 3 seeds · 9 finished runs"


def test_a_comparison_over_seeds_counts_the_variance_of_items_and_of_seeds():
    ends = [(0.1, 0.05, 0.15, 0.01), (0.2, -0.01, 0.4, 0.2)]
    keys = ("difference", "low", "high", "p_value")
    runs = [
        scored("normal", seed, comparisons={"original": dict(zip(keys, own, strict=True))}) for seed, own in enumerate(ends)
    ]
    (row,) = tables.comparison_table(runs, TASK)
    examples = runs[0].primary.examples
    items, seeds = (0.05**2 + 0.205**2) / 2 / 1.96**2, 0.005 / 2
    freedom = (items + seeds) ** 2 / (items**2 / (examples - 1) + seeds**2 / 1)
    reach = 100 * stats.t.ppf(0.975, freedom) * (items + seeds) ** 0.5
    p_value = 2 * stats.t.sf(0.15 / (items + seeds) ** 0.5, freedom)
    expected = ["+15.0", f"{15 - reach:.1f} to {15 + reach:.1f}", f"p\u00a0=\u00a0{p_value:.3f}", "no"]
    assert list(row.cells.values())[2:] == expected
    runs[1].comparisons["original"].low = None
    (row,) = tables.comparison_table(runs, TASK)
    assert list(row.cells.values())[2:] == ["+15.0", "-", "-", "-"]


def test_names_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    runs = write(
        tmp_path / "runs",
        evaluated(evil, task_title=evil, settings={evil: evil}, comparisons={evil: {"difference": 0.1, "p_value": 0.2}}),
        trained(evil.replace("/", "")),
    )
    text = page.write_page(runs, tmp_path / "report.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_the_same_runs_give_the_same_bytes(tmp_path):
    runs = a_full_set(tmp_path / "runs")
    first = page.write_page(runs, tmp_path / "one.html").read_bytes()
    assert page.write_page(runs, tmp_path / "two.html").read_bytes() == first
