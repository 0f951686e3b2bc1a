"""Peers as steps on folders: a search is done once for all seeds, what is finished is read, nothing sees a test item."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from conftest import Interrupted, random_expert

from staf.baselines.methods import check_external_name
from staf.baselines.peft import Choice, Tuning
from staf.baselines.settings import BaselineSettings, ClassifierSettings
from staf.data.selection import task_examples
from staf.data.task import find_task
from staf.errors import ConfigError
from staf.evaluate.score import Method, router_method
from staf.evaluate.settings import EvaluationSettings
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.log import Bar, NullProgress
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router
from staf.stages.context import Context
from staf.stages.evaluation import (
    baseline_stage,
    classifier_stage,
    evaluate_stage,
    external_stage,
    named_method,
)
from staf.stages.named import evaluate_named
from staf.stages.training import training_examples, training_records

EVALUATION = EvaluationSettings(limit=4, max_length=900, resamples=100)
TASK = find_task("icd10_chapter")


@pytest.fixture
def context(tiny_folder: Path, own: Path, tmp_path: Path) -> Context:
    return Context(str(tiny_folder), own, tmp_path / "runs", NullProgress(), "float32")


def lora(seed: int, **changed: object) -> BaselineSettings:
    wanted = {"method": "lora", "shots": 4, "epochs": 1, "learning_rates": (0.01, 0.02), "seed": seed}
    return BaselineSettings.model_validate({**wanted, **changed})


def test_one_search_serves_all_seeds_and_is_part_of_what_each_cost(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    choose = Tuning.choose

    def watched(self: Tuning) -> Choice:
        searched.append(self.settings.seed)
        return choose(self)

    monkeypatch.setattr(Tuning, "choose", watched)
    results = [baseline_stage(context, TASK, lora(seed), EVALUATION, search_seed=0)[0] for seed in (0, 1)]
    assert searched == [0]
    assert [len(result["details"]["trials"]) for result in results] == [2, 2]
    assert results[0]["details"]["learning_rate"] == results[1]["details"]["learning_rate"]
    sought = sum(trial["seconds"] for trial in results[1]["details"]["trials"])
    assert results[1]["seconds"] - results[1]["seconds_of_predicting"] > sought
    baseline_stage(context, TASK, lora(2), EVALUATION)
    assert searched == [0, 2]


def test_what_is_finished_is_read(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    first = baseline_stage(context, TASK, lora(0), EVALUATION)[1].result()
    counted = classifier_stage(context, TASK, "tfidf", 8, ClassifierSettings(), EVALUATION)[1].result()
    assert counted is not None
    monkeypatch.setattr(Tuning, "fit", None)
    monkeypatch.setattr("staf.stages.evaluation.classify", None)
    assert baseline_stage(context, TASK, lora(0), EVALUATION)[0] == first
    assert classifier_stage(context, TASK, "tfidf", 8, ClassifierSettings(), EVALUATION)[0] == counted
    assert counted["setting"] == "few-shot"


def test_answers_that_a_stop_left_behind_go_when_the_result_is_read(context: Context) -> None:
    """They may be words of patients; the process ended between writing the result and deleting them."""
    first, run = classifier_stage(context, TASK, "tfidf", 8, ClassifierSettings(), EVALUATION)
    (run.folder / "partial.jsonl").write_text("{}\n")
    assert classifier_stage(context, TASK, "tfidf", 8, ClassifierSettings(), EVALUATION)[0] == first
    assert sorted(path.name for path in run.folder.iterdir()) == ["config.json", "predictions.jsonl", "result.json"]


def test_every_result_says_what_was_cut_what_calibrated_and_how_it_was_computed(context: Context) -> None:
    task, settings = find_task("medication_demo"), EVALUATION.model_copy(update={"calibration_examples": 5})
    original = evaluate_stage(context, task, None, Method("original", None), settings)[0]
    assert original["calibration_examples"] == 5
    assert original["compute"]["dtype"] == "float32"
    assert 0 <= original["truncated_prompts"] <= 1
    constant = evaluate_named(context, task, settings, "majority")[0]
    assert (constant["calibration_examples"], constant["compute"], constant["truncated_prompts"]) == (0, None, None)
    assert constant["metrics"]["micro_auc"] is not None
    with pytest.raises(ConfigError, match="'logistic' is now 'tfidf'"):
        evaluate_named(context, task, settings, "logistic")


@pytest.mark.parametrize("method", ["original", "in_context"])
def test_a_killed_evaluation_resumes_at_the_item(context: Context, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Interrupted(monkeypatch, size=1, at=3).batches
    shots = 2 if method == "in_context" else None
    with pytest.raises(KeyboardInterrupt):
        evaluate_named(context, TASK, EVALUATION, method, shots=shots)
    run = evaluate_named(context, TASK, EVALUATION, method, shots=shots)[1]
    assert len(batches) == 5
    assert len({*batches[0], *batches[1], *batches[3], *batches[4]}) == len(run.predictions()) == 4
    assert not (run.folder / "partial.jsonl").exists()


def test_another_system_needs_a_name_of_its_own(context: Context, tmp_path: Path) -> None:
    ours = (
        "",
        "lora",
        "LoRA",
        "average",
        "tfidf",
        "lorahub",
        "in_context",
        "normal",
        "few_shot",
        "Zero_shot",
        "normal_l2",
    )
    for name in ours:
        with pytest.raises(ConfigError, match="a name of their own"):
            external_stage(context, TASK, name, tmp_path / "none.jsonl", EVALUATION)
    for name in ("G/BERT", "..", ".hidden", "G BERT", "G-BERT\n", "Gé", "a\\b"):
        with pytest.raises(ConfigError, match=r"letters, digits, '_', '-' and '\.'"):
            external_stage(context, TASK, name, tmp_path / "none.jsonl", EVALUATION)
    for name in ("G-BERT", "MedM-PLM_2.0", "normalised"):
        check_external_name(name)


def test_training_records_are_what_the_expert_sees_asked_as_the_task_asks(context: Context) -> None:
    task, settings = find_task("icd_coding_top10_uci"), ExpertRecipe(steps=8, batch_size=4)
    asked = task_examples(task, "test", context.store)[0]
    records = training_records(context, task, {"uci-diabetes-130": settings})
    seen = training_examples(context, "uci-diabetes-130", settings)
    assert {r.id for r in records} <= {e.id for e in seen if e.task_type == task.task_type}
    assert {r.labels for r in records} == {asked.labels}
    assert {r.split for r in records} == {"train"}
    assert len(records) < len(seen) == 32


def test_the_training_records_of_a_kind_that_feeds_no_expert_are_a_draw_of_the_tasks_own(context: Context) -> None:
    tested = {key for e in task_examples(TASK, "test", context.store) for key in e.dedup_keys}
    few, all_of_them = (
        training_records(context, TASK, {"icd-10-cm": ExpertRecipe(steps=steps, batch_size=2)}) for steps in (2, 10_000)
    )
    assert len(few) == len({e.id for e in few}) == 4 < len(all_of_them)
    assert {(e.split, e.task_type) for e in all_of_them} == {("train", TASK.task_type)}
    assert not tested & {key for e in all_of_them for key in e.dedup_keys}


def test_a_classifier_is_fitted_on_records_besides_the_adaptation_examples(context: Context) -> None:
    task, settings = find_task("readmission_uci"), ClassifierSettings()
    records = training_records(context, task, {"uci-diabetes-130": ExpertRecipe(steps=8, batch_size=4)})
    drawn_only = classifier_stage(context, task, "tfidf", 6, settings, EVALUATION, "normal")
    both = classifier_stage(context, task, "tfidf", 6, settings, EVALUATION, "normal", [*records, *records])
    assert drawn_only[1].folder != both[1].folder
    assert both[0]["adaptation_examples"] == 6 + len(records) > drawn_only[0]["adaptation_examples"] == 6


@pytest.mark.parametrize(
    ("method", "shots", "given", "expected"),
    [
        ("gradient", None, None, ("normal", "normal")),
        ("gradient", 32, None, ("normal", "few-shot")),
        ("gradient", 40, "normal", ("normal", "normal")),
        ("cma", 32, None, ("few_shot", "few-shot")),
        ("zero_shot", 32, "few-shot", ("zero_shot", "zero-shot")),
    ],
)
def test_a_routers_setting_says_how_many_examples_it_had_and_its_name_how_it_was_searched_for(
    method: str, shots: int | None, given: str | None, expected: tuple[str, str]
) -> None:
    settings = RouterRecipe.model_validate({"method": method, "shots": shots})
    record = {"tunable_parameters": 2, "examples": shots or 90, "seconds": 1.0, "stop_reason": "epochs"}
    router = cast(Router, SimpleNamespace(probe=None, recipe=settings, weights=torch.ones(1, 1), record=record))
    row = router_method(router, given)
    assert (row.name, row.setting) == expected


def test_a_bar_is_full_when_all_is_answered_also_what_scores_are_read_by(
    context: Context, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: dict[str, list[int]] = {}

    class Counted(NullProgress):
        @contextmanager
        def bar(self, title: str, total: int) -> Iterator[Bar]:
            count = bars.setdefault(title, [total, 0])
            yield SimpleNamespace(advance=lambda done, note="": count.__setitem__(1, count[1] + done))

    task, settings = (
        find_task("medication_demo"),
        EVALUATION.model_copy(update={"selection_limit": 3, "calibration_examples": 5}),
    )
    monkeypatch.setattr(context, "progress", Counted())
    experts = ExpertSet((random_expert(base, "a", 1), random_expert(base, "b", 2)))
    evaluate_stage(context, task, None, Method("original", None), settings)
    baseline_stage(context, task, lora(0, method="in_context"), settings)
    named_method(context, task, experts, "single", settings)
    assert len(bars) == 3
    for title, (total, done) in bars.items():
        assert done == total > 5, title
