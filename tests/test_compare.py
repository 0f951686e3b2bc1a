"""A comparison: its rows, its time, its advice, its page; stopped, it resumes."""

from __future__ import annotations

import csv
import fcntl
import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Interrupted, random_expert
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from staf.baselines import peft
from staf.cli import app
from staf.data.selection import task_examples
from staf.data.task import Task
from staf.errors import ConfigError, MissingData, TestLeak
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet, save_expert
from staf.io import locked
from staf.lm import scoring
from staf.lm.base import Base
from staf.log import Bar, Progress
from staf.model.comparison import Comparison
from staf.report.comparison import comparison_page, curve_cells, notes, row_cells
from staf.stages import budget, comparison
from staf.stages.budget import END, FULL, OVERRUN, SLACK, Budget, Costs
from staf.stages.comparison import ROWS, SIMPLE, compare
from staf.stages.context import Context
from staf.stages.deadline import Deadline, OutOfTime
from staf.stages.recommendation import recommendation

SIGNS = {"heart": "systole murmur", "lung": "cough wheeze", "skin": "rash itch"}


def write_task(folder: Path, **changes: Any) -> Path:
    """A task of 60 notes that a simple classifier learns."""
    with (folder / "notes.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["note", "organ", "reply"])
        for n in range(60):
            label = list(SIGNS)[n * 7 % 3]
            writer.writerow([f"the patient came with {SIGNS[label].split()[n % 2]} again number{n}", label, f"see {label}"])
    values = {
        "task": "organs", "dataset_path": "csv", "dataset_kwargs": {"data_files": "notes.csv"}, "doc_to_text": "Which organ?",
        "doc_to_context": "{{note}}", "doc_to_target": "organ", "doc_to_choice": list(SIGNS), "test_split": {"size": 0.4},
    }  # fmt: skip
    (folder / "organs.yaml").write_text(yaml.safe_dump({k: v for k, v in {**values, **changes}.items() if v is not None}))
    return folder / "organs.yaml"


@pytest.fixture
def context(tiny_folder: Path, tmp_path: Path) -> Context:
    return Context(str(tiny_folder), None, tmp_path / "runs", dtype="float32")


@pytest.fixture
def task(context: Context, tmp_path: Path) -> Task:
    return context.find_task(str(write_task(tmp_path)))


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little training and search."""
    monkeypatch.setitem(FULL, "evaluations", 14)
    monkeypatch.setitem(FULL, "epochs", 1)
    monkeypatch.setitem(FULL, "tune_steps", 3)


def no_peft(*_: object, **__: object) -> None:
    raise MissingData("no peft")


def names(found: dict[str, Any], part: str = "rows") -> list[str]:
    return [row["name"] for row in found[part]]


@pytest.mark.usefixtures("_quick")
def test_every_row_answers_the_same_items_and_a_second_call_reads_all(
    context: Context, task: Task, base: Base, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts = ExpertSet(tuple(random_expert(base, f"e{seed}", seed) for seed in range(2)))
    found = compare(context, task, experts, shots=12, encoder=str(tiny_encoder))
    assert names(found) == list(ROWS)
    assert (found["left_out"], found["reduced"]) == ([], [])
    assert {row["test_rows"] for row in found["rows"]} == {24}
    for row in found["rows"]:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["seconds"] > 0
        assert row["memory_bytes"] > 0
        assert (row["to_majority"] is None) == (row["name"] == "majority")
        assert (row["to_simple"] is None) == (row["name"] == found["reference"])
        assert (context.runs / row["run"] / "result.json").is_file()
    values = {row["name"]: row["value"] for row in found["rows"]}
    assert found["reference"] in SIMPLE
    assert values[found["reference"]] == max(values[name] for name in SIMPLE)
    for row in found["rows"][1:]:
        assert row["to_majority"]["difference"] == pytest.approx(row["value"] - values["majority"])
    assert [[point["shots"] for point in line["points"]] for line in found["curve"]] == [[8, 12, 16, 32, 36]] * 2
    out = context.runs / "compare" / "organs"
    assert json.loads((out / "comparison.json").read_text()) == json.loads(json.dumps(found, allow_nan=False))
    assert (out / "router" / "router.json").is_file()
    again = Context(str(tmp_path.parent), None, context.runs, dtype="float32")
    again.__dict__["identity"] = context.identity  # no base is there to load
    again.find_task(str(tmp_path / "organs.yaml"))
    assert compare(again, task, experts, shots=12, encoder=str(tiny_encoder))["rows"] == found["rows"]


@pytest.mark.usefixtures("_quick")
def test_without_experts_it_works_and_says_where_to_get_some(context: Context, task: Task, tiny_encoder: Path) -> None:
    found = compare(context, task, shots=12, encoder=str(tiny_encoder))
    assert names(found) == [*SIMPLE, "original", "in_context", "linear_probe", "lora"]
    assert names(found, "left_out") == ["single", "few_shot", "route_then_tune"]
    assert all("--experts" in row["reason"] and "reference" in row["reason"] for row in found["left_out"])
    assert "Best single expert, Few-shot router" in "\n".join(notes(found))


@pytest.mark.usefixtures("_quick")
def test_of_answers_in_words_only_rows_that_can_answer_are_shown(context: Context, tmp_path: Path) -> None:
    written = write_task(tmp_path, output_type="generate_until", doc_to_target="reply", doc_to_choice=None)
    found = compare(context, context.find_task(str(written)), shots=6, limit=4)
    assert names(found) == ["original", "in_context", "lora"]
    assert found["reference"] == "original"
    assert {row["reason"] for row in found["left_out"] if row["name"] in SIMPLE} == {
        "it answers labels, and this task's answers are words of a text"
    }
    assert "to the base model" in row_cells(found)[0]
    assert "to the majority" not in row_cells(found)[0]
    assert curve_cells(found) == []
    assert found["recommendation"]
    assert "data-column" in comparison_page(found)


@pytest.mark.usefixtures("_quick")
def test_several_labels_and_entities_are_compared_too(context: Context, own: Path, tmp_path: Path, tiny_encoder: Path) -> None:
    written = write_task(tmp_path, output_type="multi_label")
    found = compare(context, context.find_task(str(written)), shots=12, limit=8, encoder=str(tiny_encoder))
    assert names(found) == [*SIMPLE, "original", "in_context", "linear_probe", "lora"]
    assert found["metric"] == "micro_f1"
    other = Context(context.base_name, own, tmp_path / "runs", dtype="float32")
    found = compare(other, other.find_task("ncbi_disease"), shots=4, limit=2)
    assert found["rows"][0]["name"] == "original"
    assert found["metric"] == "entity_f1"


@pytest.mark.usefixtures("_quick")
def test_labels_of_their_own_leave_classifiers_out(context: Context, tmp_path: Path, tiny_encoder: Path) -> None:
    written = write_task(tmp_path, doc_to_choice="{{ [organ, 'bone'] | sort }}")
    found = compare(context, context.find_task(str(written)), shots=6, limit=4, encoder=str(tiny_encoder))
    assert names(found)[:2] == ["majority", "nearest_label"]
    assert {"tfidf", "embedding"} <= set(names(found, "left_out"))


def test_a_stopped_comparison_resumes_at_the_item_with_the_same_plan(
    context: Context, task: Task, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "baseline_stage", no_peft)
    monkeypatch.setattr(comparison, "base_probe_stage", no_peft)
    calls = Interrupted(monkeypatch, size=2, at=15).batches  # 1 + 8 batches measure the speed
    with pytest.raises(KeyboardInterrupt):
        compare(context, task, shots=12, encoder=str(tiny_encoder))
    plan = json.loads((context.runs / "compare" / "organs" / "plan.json").read_text())
    assert plan["begun"] == ["original"]
    found = compare(context, task, shots=12, encoder=str(tiny_encoder))
    assert len(calls) == 15 + 12 - 5  # five batches of twelve were answered before
    assert names(found) == [*SIMPLE, "original"]
    assert json.loads((context.runs / "compare" / "organs" / "plan.json").read_text())["costs"] == plan["costs"] | {
        "answer": pytest.approx(plan["costs"]["answer"], rel=100)
    }


def test_a_leak_ends_it_and_a_row_that_fails_is_named(
    context: Context, task: Task, base: Base, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = frozenset(key for e in task_examples(task, "test", context.store) for key in e.dedup_keys)
    leaking = random_expert(base, "leaking", 0)
    object.__setattr__(leaking, "dedup_keys", trained)
    monkeypatch.setattr(comparison, "baseline_stage", no_peft)
    with pytest.raises(TestLeak):
        compare(context, task, ExpertSet((leaking,)), shots=12, encoder=str(tiny_encoder))
    found = compare(context, task, shots=12, encoder=str(tiny_encoder))
    assert {row["name"]: row["reason"] for row in found["left_out"]}["lora"] == "no peft"


def test_all_rows_are_judged_on_the_rows_that_the_language_model_had_time_for(
    context: Context, task: Task, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costs, "measured", lambda *_: Costs(10.0, 1.0, 1.0, 150.0))
    monkeypatch.setattr(budget, "REDUCTIONS", ({"test_rows": 8},))
    monkeypatch.setattr(comparison, "baseline_stage", no_peft)
    monkeypatch.setattr(comparison, "base_probe_stage", no_peft)
    found = compare(context, task, shots=12, minutes=3, encoder=str(tiny_encoder))
    assert names(found) == [*SIMPLE, "original"]
    assert {row["test_rows"] for row in found["rows"]} == {8} == {found["test_rows"]}
    values = {row["name"]: row["value"] for row in found["rows"]}
    for row in found["rows"]:
        assert row["value"] * 8 == pytest.approx(round(row["value"] * 8))
        if row["to_simple"] is not None:
            assert row["to_simple"]["difference"] == pytest.approx(row["value"] - values[found["reference"]])
    for line in found["curve"]:
        assert {p["shots"]: p["value"] for p in line["points"]}[12] == values[line["name"]]
    assert any("8 of 24 test rows" in text for text in found["reduced"])
    assert found["recommendation"].startswith("On 8 test rows")


def test_rows_without_a_language_model_end_with_their_part_of_the_time(
    context: Context, task: Task, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "baseline_stage", no_peft)
    monkeypatch.setattr(comparison, "base_probe_stage", no_peft)
    with monkeypatch.context() as patch:
        patch.setattr(comparison, "SIMPLE_SHARE", 0.0)
        found = compare(context, task, shots=12, limit=4, encoder=str(tiny_encoder), out=context.runs / "none")
    assert names(found) == ["majority", "original"]
    reasons = {row["name"]: row["reason"] for row in found["left_out"]}
    assert all("Raise --minutes" in reasons[name] for name in SIMPLE[1:])
    real = comparison._Comparing._step

    def step(self: Any, what: str) -> None:
        if "36 labelled" in what:
            raise OutOfTime("no time")
        real(self, what)

    monkeypatch.setattr(comparison._Comparing, "_step", step)
    found = compare(context, task, shots=12, limit=4, encoder=str(tiny_encoder))
    assert names(found) == [*SIMPLE, "original"]
    assert [[point["shots"] for point in line["points"]] for line in found["curve"]] == [[8, 12, 16, 32]] * 2
    assert sum("not fitted on 36 labelled examples" in text for text in found["reduced"]) == 2


def test_simple_rows_show_what_they_do_and_the_time_that_is_left(
    context: Context, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(context.progress, "log", lines.append)
    monkeypatch.setattr(comparison, "baseline_stage", no_peft)
    monkeypatch.setattr(comparison, "SIMPLE", ("majority", "tfidf"))
    monkeypatch.setattr(comparison, "CURVE", ("tfidf",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(context, task, shots=6, limit=4)
    shown = [line for line in lines if "s are left" in line and line.startswith("TF-IDF, logistic regression, 36 labelled")]
    assert len(shown) == 1


# ---- its time --------------------------------------------------------------------------------------------------------

costs = st.builds(
    Costs, answer=st.floats(0.001, 5), learn=st.floats(0.05, 60), unshared=st.floats(1, 5), shot_tokens=st.floats(5, 500)
)
MODELS = ["original", "in_context", "linear_probe", "lora", "single", "few_shot", "route_then_tune"]


def planned(tmp: Path, found: Costs, minutes: float, now: list[float]) -> Budget:
    made = Budget(tmp / "plan.json", "x", 60 * minutes, 400, 32, 12, 0, costs=found, started=0.0)
    made.save = lambda: None  # type: ignore[method-assign]
    return made


@given(costs, st.floats(1, 60))
def test_rows_that_cost_what_was_estimated_end_within_the_minutes(found: Costs, minutes: float) -> None:
    now = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget.time, "perf_counter", lambda: now[0])
        plan = planned(Path(), found, minutes, now)
        for number, row in enumerate(MODELS):
            given = plan.begin(row, MODELS[number:])
            if given is None:
                assert plan.left_out[row] > 0
                continue
            now[0] += plan.cost(row)
        assert now[0] <= SLACK * plan.seconds + 1e-6
        assert "few_shot" in plan.begun or "route_then_tune" not in plan.begun


def test_what_costs_most_and_matters_least_is_lowered_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])
    plan = planned(tmp_path, Costs(0.01, 0.2, 1.2, 150.0), 60, now)
    assert plan.begin("original", MODELS) == {**FULL, "shown": 32, "choosing": 32, "test_rows": 400}
    plan = planned(tmp_path, Costs(0.2, 6.4, 1.2, 150.0), 10, now)
    for number, name in enumerate(MODELS):
        assert (plan.begin(name, MODELS[number:]) is None) == (name == "route_then_tune")
        now[0] += plan.cost(name) if name in plan.begun else 0
    assert plan.fixed["rates"] == 1
    assert 50 <= plan.fixed["test_rows"] <= 100
    assert 22 <= plan.fixed["evaluations"] < 64
    now[0] *= 3
    assert plan.begin("lora", MODELS[3:]) is not None  # what has begun is not left out later


def test_a_row_without_time_is_left_out_with_its_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget.time, "perf_counter", lambda: 0.0)
    plan = planned(tmp_path, Costs(1.0, 60.0, 1.0, 150.0), 2, [0.0])
    assert plan.begin("original", MODELS) is not None
    assert plan.begin("lora", MODELS[3:]) is None
    assert plan.left_out["lora"] > 120


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(budget.time, "perf_counter", lambda: self.now)


def steps_until_the_end(bar: Bar, clock: Clock, *steps: float) -> int:
    for number, seconds in enumerate(steps):
        clock.now += seconds
        try:
            bar.advance(1)
        except OutOfTime:
            return number
    return len(steps)


def test_work_ends_before_the_step_that_would_be_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with Deadline(Progress(), 10).bar("score", 9) as bar:
        assert steps_until_the_end(bar, clock, 4, 3, 2, 2) == 2  # at 9 s, and the last step took 2 s
    with Deadline(Progress(), 10).bar("score", 3) as bar:
        assert steps_until_the_end(bar, clock, 1, 3, 9) == 3  # all is done
    deadline = Deadline(Progress(), 10)
    with deadline.bar("score", 5) as outer, deadline.bar("learn", 2) as inner:
        clock.now += 6
        inner.advance(0)  # loading the base took 6 s, which no step takes
        assert steps_until_the_end(inner, clock, 1, 1) == 2
        assert steps_until_the_end(outer, clock, 0.5, 0.4, 0.9) == 2
    with Deadline(Progress(), 10).bar("learn", 1) as bar:
        bar.advance(0)
        clock.now += 11
        with pytest.raises(OutOfTime):
            bar.advance(0)


@given(costs, st.floats(1, 60), st.lists(st.floats(0.3, 30), min_size=len(MODELS), max_size=len(MODELS)))
def test_rows_that_take_longer_than_planned_are_ended_in_time(found: Costs, minutes: float, slower: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        plan = planned(Path(), found, minutes, [])
        for number, (row, factor) in enumerate(zip(MODELS, slower, strict=True)):
            plan.costs = found
            if plan.begin(row, MODELS[number:]) is None:
                continue
            took, limit = factor * plan.cost(row), plan.limit(row, MODELS[number:])
            assert limit >= min(OVERRUN * plan.cost(row), plan.left) - 1e-9
            clock.now += min(took, limit)
            if took > limit:
                plan.stop(row, "late")
                assert (row in plan.begun, plan.begin(row, MODELS[number:])) == (False, None)
        assert clock.now <= END * plan.seconds + 1e-6


def test_a_row_that_was_stopped_is_planned_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    plan = Budget(tmp_path / "plan.json", "x", 600, 400, 32, 12, 0, costs=Costs(0.05, 1.0, 1.0, 150.0))
    assert plan.begin("original", MODELS) is not None
    clock.now += 500
    assert plan.begin("lora", MODELS[3:]) is None
    plan.stop("original", "late")
    again = Budget(tmp_path / "plan.json", "x", 600, 400, 32, 12, 0).load()
    assert (again.stopped, again.begun, again.spent) == ({"original": "late"}, [], 500)
    assert (again.begin("original", MODELS), plan.is_measured) == (None, False)
    given = again.begin("few_shot", MODELS[5:])
    assert given is not None
    assert given["test_rows"] < 400  # decided anew by the row that comes next
    assert again.limit("few_shot", MODELS) == pytest.approx(again.limit("few_shot", MODELS[1:]))


@pytest.mark.usefixtures("_quick")
def test_a_row_that_takes_too_long_is_stopped_and_the_others_have_what_is_left(
    context: Context, task: Task, base: Base, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, learned, score, logprobs = Clock(monkeypatch), [0], scoring.score_batch, peft.model_logprobs

    def scored(base: Base, requests: Any, prefix: Any = None) -> Any:
        clock.now += 0.2 * len(requests)
        return score(base, requests, prefix)

    def trained(*given: Any) -> Any:
        clock.now, learned[0] = clock.now + 20.0, learned[0] + 1
        return logprobs(*given)

    monkeypatch.setattr(scoring, "score_batch", scored)
    monkeypatch.setattr(peft, "model_logprobs", trained)
    monkeypatch.setattr(comparison, "router_pass", lambda *_: 1.0)
    monkeypatch.setattr(Costs, "measured", lambda *_: Costs(0.2, 1.0, 1.0, 150.0))
    monkeypatch.setattr(budget, "REDUCTIONS", ({"choosing": 6}, {"evaluations": 7}))
    experts = ExpertSet(tuple(random_expert(base, f"e{seed}", seed) for seed in range(2)))
    asked: dict[str, Any] = {"experts": experts, "shots": 12, "encoder": str(tiny_encoder)}
    found = compare(context, task, **asked, minutes=5)
    assert names(found) == [name for name in ROWS if name != "lora"]
    assert names(found, "left_out") == ["lora"]
    reason = found["left_out"][0]["reason"]
    assert re.fullmatch(r"stopped: took longer than planned \([12]\d\d s, where \d+ s were planned\): raise --minutes", reason)
    assert found["seconds"] <= END * 300
    assert not list((context.runs / "evaluate" / "organs" / "lora").rglob("result.json"))
    before = learned[0]
    assert compare(context, task, **asked, minutes=5)["left_out"] == found["left_out"]
    assert learned[0] == before
    clock.now = 0.0
    assert "lora" in names(compare(context, task, **asked, minutes=60))


def test_on_a_slow_machine_the_speed_is_measured_with_fewer_rows(
    context: Context, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, score = Clock(monkeypatch), scoring.score_batch

    def scored(base: Base, requests: Any, prefix: Any = None) -> Any:
        clock.now += 3.0 * len(requests)
        return score(base, requests, prefix)

    monkeypatch.setattr(scoring, "score_batch", scored)
    test = task_examples(task, "test", context.store)
    quick = Costs.measured(context.base, test, test[:4], EvaluationSettings(), 3600)
    assert (quick.answer, clock.now) == (3.0, 3.0 * (2 + 2 * budget.PROBED))
    slow = Costs.measured(context.base, test, test[:4], EvaluationSettings(), 60)
    assert (slow.answer, clock.now) == (3.0, 3.0 * (4 + 2 * budget.PROBED))
    assert slow.learn == pytest.approx(budget.PASS_COST * 3.0 * 4)


# ---- its advice ------------------------------------------------------------------------------------------------------


def row(name: str, value: float, to_majority: float | None, to_simple: float | None, p: float = 0.001) -> dict[str, Any]:
    def against(by: float | None) -> dict[str, Any] | None:
        return None if by is None else {"difference": by, "low": by - 0.09, "high": by + 0.09, "p_value": p if by else 1.0}

    return {
        "name": name, "title": ROWS[name], "language_model": name not in SIMPLE, "value": value, "low": value - 0.1,
        "high": value + 0.1, "test_rows": 100, "to_majority": against(to_majority), "to_simple": against(to_simple),
        "seconds": 4.0, "memory_bytes": 5 * 10**8, "truncated": None,
    }  # fmt: skip


def advice(reference: str, *rows: dict[str, Any], curve: float | None = None) -> str:
    point = {"shots": 165, "value": curve, "low": 0.6, "high": 0.81}
    lines = [] if curve is None else [{"name": "tfidf", "points": [point]}]
    return recommendation({"rows": rows, "reference": reference, "shots": 32, "curve": lines, "left_out": []})


def test_the_advice_names_a_row_only_where_it_is_shown_to_be_better() -> None:
    majority, encoder = row("majority", 0.4, None, -0.2), row("embedding", 0.6, 0.2, None)
    better, level = row("few_shot", 0.75, 0.35, 0.15), row("few_shot", 0.57, 0.17, -0.03)
    found = advice("embedding", majority, encoder, better)
    assert found == (
        "On 100 test rows the few-shot router is above the sentence encoder with logistic regression "
        "(difference +15.0, +6.0 to +24.0): use it."
    )
    found = advice("embedding", majority, encoder, level)
    assert "no row of a language model is shown to be above it (the best, the few-shot router: difference -3.0" in found
    assert "so use it: it takes 4 s and no language model" in found
    assert found.startswith("On 100 test rows the sentence encoder with logistic regression is above the majority")
    by_chance = row("few_shot", 0.75, 0.35, 0.15, p=0.03)  # the best of two: 0.06
    assert ": use it." not in advice("embedding", majority, encoder, by_chance, row("lora", 0.5, 0.1, -0.1))


def test_the_advice_is_to_use_none_where_none_is_above_the_majority() -> None:
    constant = row("majority", 0.5, None, None)
    found = advice("majority", constant, row("tfidf", 0.45, -0.05, -0.05), row("lora", 0.5, 0.0, 0.0))
    assert "no row is shown to be above the majority (the best, LoRA: difference +0.0" in found
    assert "label more" in found
    found = advice("majority", constant, row("tfidf", 0.45, -0.05, -0.05), curve=0.707)
    assert found.endswith(
        "32 examples; with all 165 labelled examples TF-IDF with logistic regression reaches 70.7 (60.0 to 81.0)."
    )
    assert "165" not in advice("majority", constant, row("tfidf", 0.45, -0.05, -0.05), curve=0.4)
    shown = row("lora", 0.7, 0.2, 0.12, p=0.001)
    assert "LoRA is above the majority" in advice(
        "tfidf", constant, row("tfidf", 0.58, 0.08, None, p=0.2), shown | {"to_simple": shown["to_simple"] | {"p_value": 0.2}}
    )
    assert "above the majority" in advice("tfidf", constant, row("tfidf", 0.8, 0.3, None))
    words = advice("original", row("original", 0.2, None, None), row("lora", 0.2, None, -0.01))
    assert "so use the base model" in words
    assert "why each was left out" in recommendation({"rows": [], "left_out": [{"seconds": None}]})


def test_the_advice_says_that_no_row_of_a_language_model_was_run() -> None:
    constant, simple = row("majority", 0.5, None, -0.3), row("tfidf", 0.8, 0.3, None)
    assert "no row of a language model was run, so use it" in advice("tfidf", constant, simple)
    found = advice("majority", row("majority", 0.5, None, None), row("tfidf", 0.45, -0.05, -0.05))
    assert "no row of a language model was run: none has learned" in found


# ---- its page and its command ----------------------------------------------------------------------------------------


class Cells(HTMLParser):
    """Cells of tables without the name of their column, and tags that could make a page wider than its window."""

    def __init__(self) -> None:
        super().__init__()
        self.unnamed, self.wide, self.columns = 0, list[str](), set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "td":
            self.unnamed += not given.get("data-column")
            self.columns.add(str(given.get("data-column")))
        if tag in ("pre", "iframe", "video") or "width" in given or "nowrap" in str(given.get("style")):
            self.wide.append(tag)


def test_the_page_cuts_no_column_off_in_a_narrow_window_and_loads_nothing(tmp_path: Path) -> None:
    rows = [row("majority", 0.4, None, -0.2), row("embedding", 0.6, 0.2, None), row("few_shot", 0.57, 0.17, -0.03)]
    points = [{"shots": n, "value": n / 100, "low": 0.0, "high": 0.5} for n in (8, 32, 40)]
    found: dict[str, Any] = {
        "task_title": "<b>Triage</b>", "metric": "accuracy", "shots": 32, "labelled": 40, "test_rows": 100,
        "available_test_rows": 100, "minutes": 10.0, "seconds": 400.0, "base": "tiny", "experts": ["a"], "rows": rows,
        "reference": "embedding", "curve": [{"name": "embedding", "title": ROWS["embedding"], "points": points}],
        "reduced": ["LoRA: one learning rate"], "left_out": [{"name": "lora", "title": "LoRA", "reason": "no time"}],
    }  # fmt: skip
    page = comparison_page({**found, "recommendation": recommendation(found)})
    cells = Cells()
    cells.feed(page)
    assert (cells.unnamed, cells.wide) == (0, [])
    assert cells.columns >= {"Accuracy, %", "to the majority", "to the best simple row", "time", "memory", "8", "32", "40"}
    assert 'class="scroll"' not in page
    style = page[page.index("@media (max-width: 46rem)") :]
    assert "display: block" in style
    assert "attr(data-column)" in style
    assert "&lt;b&gt;Triage" in page
    assert "no time" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def asked_of(task: Path, base: Path, *more: object) -> list[str]:
    return [str(a) for a in ("compare", "--task", task, "--base", base, "--dtype", "float32", *more)]


def test_a_time_into_which_no_row_fits_is_said_on_page_and_screen(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costs, "measured", lambda *_: Costs(100.0, 100.0, 1.0, 150.0))
    task = write_task(tmp_path, output_type="generate_until", doc_to_target="reply", doc_to_choice=None)
    found = CliRunner().invoke(app, asked_of(task, tiny_folder, "--runs", tmp_path / "runs", "--minutes", 2, "--limit", 4))
    assert found.exit_code == 0, found.output
    said = "No row fits into 2 min: the shortest takes about 400 s. Run it again with --minutes 8 or more."
    assert said in found.stdout
    page = (tmp_path / "runs" / "compare" / "organs" / "comparison.html").read_text()
    assert said in page
    assert "<table" not in page
    kept = json.loads((tmp_path / "runs" / "compare" / "organs" / "comparison.json").read_text())
    assert repr(Comparison(kept)).endswith(said)


def test_a_table_in_the_place_of_a_task_is_told_how_to_become_one(context: Context, tmp_path: Path) -> None:
    for name in ("two_labels.csv", "two_labels.XLSX", "two_labels.jsonl.gz"):
        with pytest.raises(ConfigError, match=f"is a table.*: staf init .*{name}$"):
            context.find_task(str(tmp_path / name))


def test_a_second_process_says_that_it_waits(tmp_path: Path) -> None:
    target, lines = tmp_path / "comparison.json", list[str]()
    lock = target.with_name(".comparison.json.lock").open("w")
    lock.write("process 7")
    lock.flush()
    fcntl.flock(lock, fcntl.LOCK_EX)

    def log(text: str) -> None:
        lines.append(text)
        lock.close()  # the other process ends

    with locked(target, wait=True, log=log):
        assert lines == [f"{target} is being written by process 7: waiting for it"]


@pytest.mark.usefixtures("_quick")
def test_the_command_prints_table_notes_and_advice(tiny_folder: Path, tiny_encoder: Path, tmp_path: Path, base: Base) -> None:
    save_expert(tmp_path / "experts" / "one", random_expert(base, "one", 1))
    asked = asked_of(
        write_task(tmp_path), tiny_folder, "--encoder", tiny_encoder, "--runs", tmp_path / "runs", "--shots", 12, "--limit", 10,
        "--minutes", 5, "--out", tmp_path / "out",
    )  # fmt: skip
    first = CliRunner().invoke(app, asked, env={"COLUMNS": "80"})
    assert first.exit_code == 0, first.output
    for text in (
        "Sentence encoder",
        "to the majority",
        "Left out: Best single expert",
        "10 of 24 test rows",
        "On 10 test rows",
    ):
        assert text in first.stdout
    assert (tmp_path / "out" / "comparison.html").is_file()
    second = CliRunner().invoke(app, [*asked, "--experts", str(tmp_path / "experts"), "--json"])
    assert names(json.loads(second.stdout)) == list(ROWS)


def test_nothing_is_recommended_before_the_cheap_rows_have_run() -> None:
    late = {"name": "tfidf", "reason": "there is no time for it: raise --minutes.", "seconds": None}
    said = recommendation({"rows": [{"name": "majority"}], "left_out": [late], "minutes": 2.0})
    assert said.startswith("Nothing is recommended yet: there was no time for TF-IDF with logistic regression")
    assert "--minutes 4" in said
