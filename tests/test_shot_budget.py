"""What calibrates several labels is part of a seed's draw, and nothing is learned from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_examples, three_experts
from hypothesis import given
from hypothesis import strategies as st

from staf.baselines.methods import with_shots
from staf.baselines.peft import Tuning
from staf.baselines.settings import BaselineSettings
from staf.data.example import Example
from staf.data.selection import task_examples
from staf.data.splits import few_shot
from staf.data.task import Task
from staf.evaluate.answer import calibrate
from staf.evaluate.calibrate import Draw, draw
from staf.evaluate.score import Method, best_single, router_method
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import Expert, ExpertSet
from staf.lm.base import Base
from staf.log import NullProgress
from staf.routing.adapt import adaptation_digest
from staf.routing.objective import RouterObjective
from staf.routing.recipe import RouterRecipe
from staf.routing.searchless import zero_shot_router
from staf.stages.adaptation import adapt_stage, planned_adaptation
from staf.stages.context import Context
from staf.stages.evaluation import baseline_stage, evaluate_stage, lorahub_stage, named_method
from staf.stages.named import evaluate_named

LABELS, SHOTS, SEED = ["fever", "cough", "rash"], 8, 1
SETTINGS = EvaluationSettings(limit=3, max_length=300, resamples=100)
LEARNERS = ("cma", "gradient", "best_expert", "zero_shot", "lora", "full", "in_context", "lorahub")


def pool_of(count: int, output_type: str = "multi_label") -> list[Example]:
    return [replace(example, output_type=output_type) for example in make_examples(count, "adaptation")]


def ids(examples: Sequence[Example]) -> set[str]:
    return {example.id for example in examples}


@given(st.integers(2, 200), st.integers(0, 5), st.data())
def test_a_draw_of_several_labels_is_learned_from_but_for_a_part(count: int, seed: int, data: st.DataObject) -> None:
    pool, shots = pool_of(count), data.draw(st.none() | st.integers(2, count))
    learned, calibrating = draw(pool, shots, seed)
    whole = pool if shots is None else few_shot(pool, shots, seed)
    assert not ids(learned) & ids(calibrating)
    assert [e for e in whole if e in learned] == learned
    assert [e for e in whole if e in calibrating] == calibrating
    assert len(learned) + len(calibrating) == len(whole)
    assert 1 <= len(calibrating) <= len(learned)
    if shots is not None:
        assert draw(reversed(pool), shots, seed) == (learned, calibrating)


@pytest.mark.parametrize(
    ("shots", "aside"), [(2, 1), (5, 2), (8, 4), (12, 4), (16, 4), (32, 8), (64, 16), (128, 32), (200, 32)]
)
def test_a_quarter_is_put_aside_but_no_fewer_than_four_and_no_more_than_thirty_two(shots: int, aside: int) -> None:
    assert [len(part) for part in draw(pool_of(200), shots, 0)] == [shots - aside, aside]


@given(st.lists(st.booleans(), min_size=2, max_size=40), st.integers(0, 5))
def test_a_right_label_is_in_what_calibrates_where_there_is_one(labelled: list[bool], seed: int) -> None:
    pool = [replace(e, answer=e.answer if own else "none") for e, own in zip(pool_of(len(labelled)), labelled, strict=True)]
    learned, calibrating = draw(pool, None, seed)
    assert any(example.answer != "none" for example in calibrating) == any(labelled)
    assert len(learned) + len(calibrating) == len(pool)
    assert not ids(learned) & ids(calibrating)


@pytest.mark.parametrize("output_type", ["multiple_choice", "span", "ner", "generate_until"])
def test_where_one_answer_is_right_all_of_the_draw_is_learned_from(output_type: str) -> None:
    pool = pool_of(40, output_type)
    assert draw(pool, 32, 3) == Draw(few_shot(pool, 32, 3), [])
    assert draw(pool, None, 3) == Draw(pool, [])


# ---- every method ----------------------------------------------------------------------------------------------------


@pytest.fixture
def context(tiny_folder: Path, own: Path, tmp_path: Path) -> Context:
    return Context(str(tiny_folder), own, tmp_path / "runs", NullProgress(), "float32")


def task_of(context: Context, output_type: str = "multi_label") -> Task:
    found = [sorted({LABELS[n % 3], LABELS[n % 2]}) for n in range(40)]
    if output_type == "multiple_choice":
        found = [labels[:1] for labels in found]
    rows = [{"note": f"visit {n} of someone with {' and '.join(own)}", "found": "; ".join(own)} for n, own in enumerate(found)]
    made = Task.from_table(rows, text="note", label="found", output_type=output_type, name=output_type, keep_overlap=True)
    return context.find_task(made)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The ids of the examples that a method learned from, and of those that calibrated it."""
    found: dict[str, set[str]] = {"learned": set(), "calibrating": set()}

    def watch(target: str, kind: str, at: int | str, make: Any) -> None:
        def watched(*args: Any, **more: Any) -> Any:
            found[kind] |= ids(more[at] if isinstance(at, str) else args[at])
            return make(*args, **more)

        monkeypatch.setattr(target, watched)

    watch("staf.evaluate.answer.calibrate", "calibrating", 1, calibrate)
    watch("staf.stages.adaptation.calibrate", "calibrating", 1, calibrate)
    watch("staf.routing.objective.RouterObjective.loss_on", "learned", 1, RouterObjective.loss_on)
    watch("staf.stages.adaptation.zero_shot_router", "learned", 3, zero_shot_router)
    watch("staf.baselines.peft.Tuning.__init__", "learned", 2, Tuning.__init__)
    watch("staf.baselines.methods.with_shots", "learned", 1, with_shots)
    watch("staf.stages.evaluation.lorahub", "learned", 2, without_search)
    watch("staf.stages.evaluation.best_single", "learned", 3, best_single)
    return found


def without_search(base: Base, experts: ExpertSet, examples: Sequence[Example], **_: Any) -> tuple[Expert, dict[str, Any]]:
    """In place of LoraHub's search, whose package is not everywhere."""
    costs = dict.fromkeys(("tunable_parameters", "adaptation_seconds", "adaptation_memory_bytes"), 0)
    return experts.experts[0], {**costs, "adaptation_examples": len(examples)}


def answered(context: Context, task: Task, experts: ExpertSet, name: str, out: Path) -> dict[str, Any]:
    if name in ("original", "average", "single"):
        method = named_method(context, task, experts, name, SETTINGS, drawn=(SHOTS, SEED))
        return evaluate_stage(context, task, None if method.weights is None else experts, method, SETTINGS)[0]
    if name in ("cma", "gradient", "best_expert", "zero_shot"):
        values = {"method": name, "shots": SHOTS, "seed": SEED, "epochs": 1, "max_evaluations": 4, "max_length": 300}
        router = adapt_stage(context, task, experts, RouterRecipe.model_validate(values), out)
        assert (router.calibration is None) == (name == "zero_shot" or task.output_type != "multi_label")
        return evaluate_stage(context, task, experts, router_method(router), SETTINGS)[0]
    values = {
        "method": "lora" if name == "lorahub" else name,
        "shots": SHOTS,
        "seed": SEED,
        "epochs": 1,
        "learning_rates": (0.01,),
    }
    own = BaselineSettings.model_validate(values)
    if name == "lorahub":
        return lorahub_stage(context, task, experts, own, SETTINGS)[0]
    return baseline_stage(context, task, own, SETTINGS)[0]


@pytest.mark.parametrize("name", ["original", "average", "single", *LEARNERS])
def test_no_method_learns_from_what_calibrates_it_and_all_read_one_draw(
    context: Context, base: Base, read: dict[str, set[str]], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("staf.stages.adaptation.expert_examples", lambda *_: (make_examples(3), 0))
    task = task_of(context)
    learned, calibrating = draw(task_examples(task, "adaptation", context.store), SHOTS, SEED)
    result = answered(context, task, three_experts(base), name, tmp_path / "router")
    assert read["calibrating"] == ids(calibrating)
    assert not read["learned"] & read["calibrating"]
    assert result["calibration_examples"] == len(calibrating) == 4
    if name in LEARNERS:
        assert read["learned"] == ids(learned)
        assert result["adaptation_examples"] == (0 if name == "zero_shot" else len(learned))


@pytest.mark.parametrize("name", LEARNERS)
def test_with_one_right_label_every_method_learns_from_the_whole_draw(
    context: Context, base: Base, read: dict[str, set[str]], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("staf.stages.adaptation.expert_examples", lambda *_: (make_examples(3), 0))
    task = task_of(context, "multiple_choice")
    answered(context, task, three_experts(base), name, tmp_path / "router")
    assert read == {
        "learned": ids(few_shot(task_examples(task, "adaptation", context.store), SHOTS, SEED)), "calibrating": set()
    }  # fmt: skip


def test_an_adaptation_is_named_by_what_it_learns_from_and_by_what_calibrates_it(context: Context, base: Base) -> None:
    recipe, experts = RouterRecipe(method="cma", shots=SHOTS), three_experts(base)
    for output_type in ("multiple_choice", "multi_label"):
        task = task_of(context, output_type)
        drawn = few_shot(task_examples(task, "adaptation", context.store), SHOTS, 0)
        digest = context.named(adaptation_digest(context.identity, experts, task.name, drawn, recipe))
        assert (planned_adaptation(context, task, experts, recipe)[1] == digest) == (output_type == "multiple_choice")


def test_without_a_draw_of_its_own_a_row_is_calibrated_by_the_usual_one(context: Context, read: dict[str, set[str]]) -> None:
    task = task_of(context)
    pool = task_examples(task, "adaptation", context.store)
    assert len(pool) < 32
    result = evaluate_named(context, task, SETTINGS, "original")[0]
    assert read == {"learned": set(), "calibrating": ids(draw(pool, len(pool), 0).calibrating)}
    assert result["calibration_examples"] == len(pool) // 4
    fewer = SETTINGS.model_copy(update={"calibration_examples": 3})
    assert evaluate_stage(context, task, None, Method("original", None), fewer)[0]["calibration_examples"] == 3
