"""The name of a result: every input that its predictions or metrics depend on changes it, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_examples, random_expert

from staf.baselines.settings import BaselineSettings, ClassifierSettings
from staf.data.example import Example
from staf.data.task import Task
from staf.evaluate.score import Method
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.log import NullProgress
from staf.runs import Run
from staf.stages import evaluation
from staf.stages.context import Context
from staf.stages.evaluation import baseline_stage, classifier_stage, evaluate_stage, lorahub_stage, select_single_expert

TASK = Task(task="colour", title="Colours", task_type="colour", fixed_labels=True)
SETTINGS, LORA, WORDS = EvaluationSettings(), BaselineSettings(shots=4), ClassifierSettings()
IDENTITY = {"name": "tiny", "fingerprint": "1", "tokenizer": "2"}


class Named(Exception):
    """A result was named."""


@pytest.fixture
def name_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def at(runs: Path, stage: str, task: str, method: str, seed: int, digest: str) -> Run:
        raise Named(stage, task, method, seed, digest)

    monkeypatch.setattr(Run, "at", at)

    def name(
        stage: Callable[..., Any], *arguments: Any, identity: dict[str, str] = IDENTITY, dtype: str | None = None,
        changed: Callable[[Example], Example] = lambda example: example, splits: tuple[str, ...] = ("test", "adaptation"),
        **options: Any,
    ) -> str:  # fmt: skip
        context = Context(None, tmp_path, tmp_path, NullProgress(), dtype)
        context.__dict__["identity"] = identity

        def task_examples(task: Task, split: str, store: object) -> list[Example]:
            made = [replace(e, output_type=task.output_type) for e in make_examples(8, split)]
            return [changed(made[0]), *made[1:]] if split in splits else made

        monkeypatch.setattr(evaluation, "task_examples", task_examples)
        for module in ("data.selection", "stages.adaptation"):
            monkeypatch.setattr(f"staf.{module}.task_examples", task_examples)
        with pytest.raises(Named) as caught:
            stage(context, *arguments, **options)
        return "/".join(map(str, caught.value.args))

    return name


def of_everyone(name_of: Callable[..., str], *arguments: Any) -> list[str]:
    """Names of a result whose base, tokenizer, dtype, and an example's parts in turn are others."""
    found = [name_of(*arguments)]
    found += [name_of(*arguments, identity={**IDENTITY, key: "other"}) for key in ("fingerprint", "tokenizer")]
    found += [name_of(*arguments, dtype=dtype) for dtype in ("float32", "bfloat16")]
    for field, value in (("context", "x"), ("query", "x"), ("labels", ("red", "blue", "green", "x")), ("id", "x")):
        found.append(name_of(*arguments, changed=lambda e, f=field, v=value: replace(e, **{f: v})))
    assert name_of(*arguments, identity={**IDENTITY, "name": "elsewhere"}) == found[0]
    return found


def test_a_routers_result(name_of: Callable[..., str], base: Base, experts: ExpertSet) -> None:
    method, other = Method("few_shot", torch.ones(1, 3)), ExpertSet((*experts.experts[:2], random_expert(base, "synonymy", 9)))
    found = of_everyone(name_of, evaluate_stage, TASK, experts, method, SETTINGS)
    found.append(name_of(evaluate_stage, TASK, other, method, SETTINGS))
    for changed in ({"weights": torch.zeros(1, 3)}, {"granularity": "layer"}, {"name": "normal"}, {"seed": 1}):
        found.append(name_of(evaluate_stage, TASK, experts, replace(method, **changed), SETTINGS))
    for update in ({"limit": 3}, {"max_length": 99}, {"scoring": "sum"}, {"resamples": 7}):
        found.append(name_of(evaluate_stage, TASK, experts, method, SETTINGS.model_copy(update=update)))
    for update in ({"metric_list": ("macro_f1",)}, {"output_type": "multi_label"}, {"fixed_labels": False}, {"task": "shade"}):
        found.append(name_of(evaluate_stage, TASK.model_copy(update=update), experts, method, SETTINGS))
    assert len(set(found)) == len(found)


def test_the_best_expert_s_selection(name_of: Callable[..., str], experts: ExpertSet) -> None:
    found = of_everyone(name_of, select_single_expert, TASK, experts, SETTINGS)
    found.append(name_of(select_single_expert, TASK, ExpertSet(experts.experts[:2]), SETTINGS))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("splits", [("test",), ("adaptation",)])
def test_a_baselines_result(name_of: Callable[..., str], experts: ExpertSet, splits: tuple[str, ...]) -> None:
    found = of_everyone(name_of, baseline_stage, TASK, LORA, SETTINGS)
    for changed in ({"rank": 3}, {"seed": 1}, {"shots": 5}, {"method": "ia3"}, {"learning_rates": (0.1,)}):
        found.append(name_of(baseline_stage, TASK, LORA.model_copy(update=changed), SETTINGS))
    found.append(name_of(baseline_stage, TASK, LORA, SETTINGS, search_seed=3))
    found.append(name_of(baseline_stage, TASK, LORA, SETTINGS, records=make_examples(2, "train")))
    found.append(name_of(baseline_stage, TASK, LORA, SETTINGS, changed=lambda e: replace(e, context="y"), splits=splits))
    found += [name_of(lorahub_stage, TASK, some, LORA, SETTINGS) for some in (experts, ExpertSet(experts.experts[:2]))]
    assert len(set(found)) == len(found)


def test_a_classifiers_result(name_of: Callable[..., str], tmp_path: Path) -> None:
    found = of_everyone(name_of, classifier_stage, TASK, "tfidf", 4, WORDS, SETTINGS)
    found.append(name_of(classifier_stage, TASK, "cnn", 4, WORDS, SETTINGS))
    found.append(name_of(classifier_stage, TASK, "tfidf", 4, WORDS.model_copy(update={"folds": 3}), SETTINGS))
    found.append(name_of(classifier_stage, TASK, "tfidf", 4, WORDS, SETTINGS, records=make_examples(2, "train")))
    (tmp_path / "config.json").write_text("{}")
    for content in (b"one", b"two"):  # of the same folder
        (tmp_path / "model.safetensors").write_bytes(content)
        named = WORDS.model_copy(update={"encoder": str(tmp_path)})
        found.append(name_of(classifier_stage, TASK, "encoder", 4, named, SETTINGS))
        found.append(name_of(classifier_stage, TASK, "embedding", 4, named, SETTINGS))
    described = named.model_copy(update={"label_texts": {"A": "infections"}})
    found.append(name_of(classifier_stage, TASK, "embedding", 4, described, SETTINGS))
    assert len(set(found)) == len(found)


def test_what_was_computed_otherwise_is_said_when_it_is_reused(tmp_path: Path) -> None:
    said: list[str] = []
    progress = NullProgress()
    progress.log = said.append  # type: ignore[method-assign]
    context = Context(None, tmp_path, tmp_path, progress, "float32")
    context.say_if_computed_otherwise("the result", None)
    context.say_if_computed_otherwise("the result", {"dtype": "float32", "versions": {"torch": torch.__version__}})
    assert said == []
    context.say_if_computed_otherwise("the result", {"dtype": "bfloat16", "versions": {"torch": "1.0"}})
    assert said == [
        f"the result was computed with dtype bfloat16 (now float32), torch 1.0 (now {torch.__version__}). Delete it to compute "
        "it again."
    ]
