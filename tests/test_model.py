"""The Python face: load, adapt, answer, score, save, export; models that are shared; nothing heavy at import."""

from __future__ import annotations

import copy
import csv
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
import yaml
from conftest import make_examples, three_experts

import staf
from staf.data.fetch import cache_folder
from staf.errors import BadData, BaseMismatch, ConfigError, ExpertMismatch, MissingData, UnknownName
from staf.evaluate.answer import Answerer, calibrate
from staf.evaluate.settings import EvaluationSettings
from staf.experts.sets import write_set
from staf.experts.store import ExpertSet
from staf.lm.base import DEFAULT_BASE, Base, resolve
from staf.log import NullProgress, Terminal
from staf.routing.recipe import RouterRecipe
from staf.routing.router import uniform
from staf.routing.store import Router
from staf.stages.budget import FULL

WORDS = ("hoof", "wing", "tail", "horn", "beak", "fin", "mane", "claw")
NOTES = ["The tail of beast 3 is fine.", "The fin of beast 8 is broken.", "The claw of beast 13 itches."]
QUICK = {"max_evaluations": 6, "max_length": 128}


def write_task(folder: Path, **changes: Any) -> Path:
    """A task of forty notes in a CSV file."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "notes.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["note", "outcome", "patient"])
        for n in range(40):
            state = "broken and hurts" if n % 3 else "fine"
            writer.writerow([f"The {WORDS[n % 8]} of beast {n} is {state}.", "urgent" if n % 3 else "routine", f"p{n}"])
    values = {
        "task": "triage", "dataset_path": "csv", "dataset_kwargs": {"data_files": "notes.csv"},
        "output_type": "multiple_choice", "doc_to_text": "Is this note urgent or routine?", "doc_to_context": "{{note}}",
        "doc_to_target": "outcome", "doc_to_choice": ["routine", "urgent"], "group_column": "patient",
        "test_split": {"size": 0.3}, "metric_list": ["macro_f1", "accuracy"], **changes,
    }  # fmt: skip
    path = folder / f"{values['task']}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write_task(tmp_path)


@pytest.fixture
def model(base: Base, tmp_path: Path) -> staf.Model:
    """The tiny base with three experts; not loaded again."""
    write_set(tmp_path / "experts", three_experts(base).experts)
    found = staf.load_model(tmp_path / "experts", str(base.folder), dtype="float32", device="cpu", runs=tmp_path / "runs")
    found.context.__dict__["base"] = base
    return found


def test_five_lines_from_a_task_to_scores(model: staf.Model, task: Path) -> None:
    adapted = model.adapt(staf.load_task(task), shots=8, **QUICK)
    probs = adapted.predict_proba(NOTES)
    assert probs.shape == (3, 2)
    assert probs.sum(1) == pytest.approx(1)
    assert adapted.labels == ("routine", "urgent")
    assert adapted.predict(NOTES) == [adapted.labels[i] for i in probs.argmax(1)]
    scores = adapted.evaluate()
    assert set(scores) >= {"accuracy", "macro_f1"}
    metric = scores["accuracy"]
    assert metric.low <= metric.value <= metric.high
    assert metric.examples == 12
    assert scores.primary == scores["macro_f1"]
    assert "* macro_f1" in repr(scores)
    assert "few-shot, 8 examples" in repr(scores)
    assert "task='triage', method='cma', examples=8" in repr(adapted)


def test_answers_are_those_that_are_scored(model: staf.Model, task: Path) -> None:
    adapted = model.adapt(task, shots=8, **QUICK)
    rows = pandas.read_csv(task.parent / "notes.csv")
    scores = adapted.evaluate()
    saved = scores.run.predictions()
    ids = [int(row["id"].split("/")[1]) - 1 for row in saved]
    expected = torch.tensor([row["scores"] for row in saved]).softmax(1).numpy()
    assert adapted.predict_proba(rows.iloc[ids]) == pytest.approx(expected, abs=1e-5)
    assert adapted.predict_proba(rows["note"].iloc[ids]) == pytest.approx(expected, abs=1e-5)


def test_two_that_are_adapted_give_their_own_answers_in_turns_and_in_threads(model: staf.Model, task: Path) -> None:
    first, second = (model.adapt(task, shots=8, method="cma", seed=seed, **QUICK) for seed in (0, 1))
    assert first.model.context.base is second.model.context.base
    expected = [one.predict_proba(NOTES) for one in (first, second)]
    assert np.abs(expected[0] - expected[1]).max() > 1e-4
    original = model.evaluate(task)["accuracy"]
    for one, probs in zip((first, second), expected, strict=True):
        assert one.predict_proba(NOTES) == pytest.approx(probs, abs=1e-6)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: (first, second)[n % 2].predict_proba(NOTES), range(8)))
    for n, probs in enumerate(found):
        assert probs == pytest.approx(expected[n % 2], abs=1e-6)
    assert model.evaluate(task)["accuracy"] == original


def test_the_same_call_reads_what_is_there_in_a_private_folder(model: staf.Model, task: Path) -> None:
    adapted = model.adapt(task, shots=8, **QUICK)
    assert adapted.router.record["seconds"] == model.adapt(task, shots=8, **QUICK).router.record["seconds"]
    assert model.adapt(task, shots=7, **QUICK).router.record["examples"] == 7
    folder = cache_folder() / "python"
    assert folder.stat().st_mode & 0o077 == 0
    assert all("beast" not in str(path) for path in folder.rglob("*"))


def test_more_shots_than_there_are_take_all_of_them(model: staf.Model, task: Path) -> None:
    assert model.adapt(task, shots=500, method="best_expert").router.record["examples"] == 28
    assert model.adapt(task, None, method="gradient", epochs=1).router.record["examples"] == 28


def test_saved_and_loaded_it_answers_the_same(model: staf.Model, task: Path, tmp_path: Path) -> None:
    adapted = model.adapt(task, shots=8, **QUICK)
    folder = adapted.save(tmp_path / "triage")
    options = {"dtype": "float32", "device": "cpu"}
    again = staf.load_adapted(folder, **options)
    assert again.predict_proba(NOTES) == pytest.approx(adapted.predict_proba(NOTES), abs=1e-6)
    with pytest.raises(MissingData, match=r"Give the task: evaluate\(task='triage'"):
        again.evaluate()
    assert again.evaluate(task=task)["accuracy"] == adapted.evaluate()["accuracy"]
    other = write_task(tmp_path / "other", task="other")
    with pytest.raises(ConfigError, match="is of the task 'triage', not of 'other'"):
        again.evaluate(task=other)
    loaded = model.needed_experts
    two = staf.load_model(ExpertSet(loaded.experts[:2]), model.context.base_name)
    with pytest.raises(ExpertMismatch, match="'synonymy' is missing"):
        two.load(folder)
    in_memory = staf.load_model(ExpertSet(loaded.experts), model.context.base_name, **options)
    moved = in_memory.load(folder).save(tmp_path / "elsewhere" / "triage").parent.rename(tmp_path / "moved")
    again = staf.load_adapted(moved / "triage", **options)
    assert again.predict_proba(NOTES) == pytest.approx(adapted.predict_proba(NOTES), abs=1e-6)


def test_it_can_be_copied_and_pickled_without_its_weights(model: staf.Model, task: Path) -> None:
    adapted = model.adapt(task, shots=8, **QUICK)
    expected = adapted.predict_proba(NOTES)
    for again in (pickle.loads(pickle.dumps(adapted)), copy.deepcopy(adapted)):  # noqa: S301
        assert "base" not in again.model.context.__dict__
        again.model.context.__dict__["base"] = model.context.base
        assert again.predict_proba(NOTES) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("granularity", ["task", "layer"])
def test_exported_it_is_one_adapter_or_one_model_with_the_same_logits(
    model: staf.Model, task: Path, tmp_path: Path, granularity: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapted = model.adapt(task, shots=8, method="gradient", epochs=1, granularity=granularity, learning_rate=3.0)
    ids = torch.tensor([[5, 9, 33, 70, 12], [8, 8, 41, 2, 90]])
    context = model.context
    context.mixture(model.needed_experts).set_weights(adapted.router.weights, granularity)
    with torch.no_grad():
        expected = context.base.model(input_ids=ids, use_cache=False).logits
        context.base.lora.set_rank_scale({})
        load = AutoModelForCausalLM.from_pretrained
        merged = load(adapted.export(tmp_path / "merged"), dtype=torch.float32)
        plain = load(context.base_name, dtype=torch.float32)
        changed = (plain(input_ids=ids).logits - expected).abs().max()
        adapter = PeftModel.from_pretrained(plain, str(adapted.export(tmp_path / "lora", format="peft")))
        found = [one(input_ids=ids, use_cache=False).logits for one in (merged, adapter)]
    assert changed > 1e-2
    for logits in found:
        assert (logits - expected).abs().max() < 1e-4
    with pytest.raises(UnknownName, match="no format 'gguff'"):
        adapted.export(tmp_path / "x", format="gguff")


def test_what_is_missing_or_wrong_is_said(model: staf.Model, task: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseMismatch, match="trained on SmolLM2-135M-Instruct"):
        staf.load_model("reference", model.context.base_name)
    with pytest.raises(MissingData, match="no base model at"):
        staf.load_model(None, tmp_path / "nowhere")
    first = model.needed_experts.experts[0]
    assert repr(model.needed_experts).count("\n") == 0
    other = ExpertSet((replace(first, base={"name": "another", "fingerprint": "0" * 16}),))
    with pytest.raises(BaseMismatch, match="trained on another"):
        staf.load_model(other, model.context.base_name)
    alone = staf.load_model(None, model.context.base_name)
    with pytest.raises(MissingData, match=r"load_model\(experts=FOLDER\)"):
        alone.adapt(task)
    with pytest.raises(ConfigError, match="did you mean 'max_length'"):
        model.adapt(task, max_lenght=3)
    with pytest.raises(UnknownName, match="no method 'orginal'"):
        model.evaluate(task, "orginal")
    adapted = model.adapt(task, shots=8, method="best_expert")
    for inputs, message in (
        ("one text", "a list of texts or rows"),
        ([3], "row 1 is of type int"),
        ([{"note": 3, "a": 1}], None),
    ):
        if message is None:
            assert adapted.predict(inputs)[0] in ("routine", "urgent")
        else:
            with pytest.raises(BadData, match=message):
                adapted.predict(inputs)
    assert adapted.predict([]) == []
    assert adapted.predict_proba([]).shape == (0, 2)


def test_a_task_of_several_labels_has_a_column_of_probabilities_for_each(model: staf.Model) -> None:
    examples = [
        replace(e, answer="; ".join(sorted({"blue", "red"} - {e.answer}) if n % 2 else ["red"]), output_type="multi_label")
        for n, e in enumerate(make_examples(12, "adaptation"))
    ]
    base, experts, recipe = model.context.base, model.needed_experts, RouterRecipe(shots=12, max_length=128)
    router = Router.of(base, experts, "colours", examples, recipe, uniform(3), torch.zeros(6), {"run": "r"})
    calibration = calibrate(Answerer(base, EvaluationSettings()), examples).model_dump()
    adapted = staf.Adapted(model, replace(router, calibration=calibration))
    probs, answers = adapted.predict_proba(["sky", "grass"]), adapted.predict(["sky", "grass"])
    assert probs.shape == (2, 3)
    assert ((probs > 0) & (probs < 1)).all()
    assert all(isinstance(answer, list) and set(answer) <= set(adapted.labels) for answer in answers)
    with pytest.raises(ConfigError, match="Use predict"):
        adapted.predict_proba([{"context": "sky", "query": "Which?", "labels": ["blue", "red"]}])


def test_a_comparison_prints_its_table_and_its_advice(
    model: staf.Model, task: Path, tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FULL, "evaluations", 8)
    monkeypatch.setitem(FULL, "epochs", 1)
    found = staf.compare(model, task, shots=8, limit=6, encoder=str(tiny_encoder))
    assert {row["name"] for row in found["rows"]} >= {"majority", "tfidf", "original", "few_shot"}
    lines = repr(found).splitlines()
    assert lines[0] == "triage: 8 labelled examples"
    assert len([line for line in lines if line.startswith(("Majority", "Few-shot router"))]) == 2
    assert lines[-1] == found["recommendation"]
    assert found.save(tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert (tmp_path / "runs" / "compare" / "triage" / "comparison.json").is_file()


def test_bars_are_shown_where_someone_watches(model: staf.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    base = model.context.base_name
    assert type(staf.load_model(None, base).context.progress) is NullProgress
    assert type(staf.load_model(None, base, progress=True).context.progress) is Terminal
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)  # as Python and IPython set it in a session
    assert type(staf.load_model(None, base).context.progress) is Terminal
    assert type(staf.load_model(None, base, progress=False).context.progress) is NullProgress


def test_a_task_in_memory_may_change_and_is_not_pickled(model: staf.Model) -> None:
    rows = [{"note": f"The {WORDS[n % 8]} of beast {n}.", "kind": "ab"[n % 2]} for n in range(24)]
    first, second = (
        staf.Task.from_table(rows[start:], text="note", label="kind", test_size=0.4, name="kinds") for start in (0, 4)
    )
    adapted = model.adapt(first, shots=6, method="best_expert")
    assert model.adapt(second, shots=6, method="best_expert").router.record["run"] != adapted.router.record["run"]
    assert adapted.evaluate()["accuracy"].examples == 10
    stored = pickle.dumps(adapted)
    assert b"beast" not in stored
    assert pickle.loads(stored).task is None  # noqa: S301


def test_the_default_base_is_known_by_the_name_that_routers_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("staf.lm.base.fetch_package", lambda package: tmp_path)
    monkeypatch.setattr("staf.lm.base.from_gguf", lambda path: path)
    assert resolve(None) == resolve(DEFAULT_BASE)


def test_import_is_quick_and_the_public_names_are_there() -> None:
    code = (
        "import sys, staf; assert not {'torch', 'sklearn', 'transformers', 'pandas'} & set(sys.modules); "
        "print(all(getattr(staf, name) for name in staf.__all__), sorted(set(staf.__all__) - set(dir(staf))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        staf.nothing  # noqa: B018
