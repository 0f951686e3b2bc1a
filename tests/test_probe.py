"""A linear probe of hidden states: what it reads, what it computes, what it chooses, and that a router keeps it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_examples, three_experts
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

import staf
from staf import Task
from staf.cli import app
from staf.errors import ConfigError, DamagedFile
from staf.evaluate.answer import Answerer, predictions_of
from staf.evaluate.probe import STRENGTH, Features, Probe, fit_probe, label_examples
from staf.evaluate.score import probe_of
from staf.evaluate.settings import EvaluationSettings
from staf.experts.sets import write_set
from staf.experts.store import load_experts
from staf.lm.base import load_base
from staf.lm.batches import encode_prompt
from staf.lm.model import Base
from staf.lm.pooling import pooled_states
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router, load_router, save_router
from staf.stages.context import Context
from staf.stages.named import evaluate_named
from staf.stages.probing import fitted_probe, probe_stage

LABELS = ("calm", "loud", "shrill")
COUNT, WIDTH = 24, 5


def features(count: int, seed: int = 0, several: bool = False) -> tuple[Features, np.ndarray]:
    """States of which the second depth tells the labels apart, and likelihoods that say nothing."""
    rng = np.random.default_rng(seed)
    gold = np.eye(3, dtype=bool)[rng.integers(0, 3, count)] if not several else rng.random((count, 3)) < 0.4
    states = rng.normal(size=(count, 3, WIDTH))
    states[:, 1, :3] += 6.0 * gold
    return Features(states, rng.normal(size=(count, 3)) - np.array([9.0, 2.0, 5.0])), gold


def folds(count: int = COUNT) -> list[list[int]]:
    return [list(range(start, count, 4)) for start in range(4)]


def test_the_states_are_the_means_of_those_that_transformers_gives(base: Base) -> None:
    examples = [replace(e, context="a red kite " * n) for e, n in zip(make_examples(4), (1, 2, 5, 3), strict=True)]
    found = pooled_states(base, examples, 300, 2000)
    for example, own in zip(examples, found, strict=True):
        tokens = encode_prompt(example, base.tokenizer, 300)
        out = base.model(input_ids=torch.tensor([tokens]), output_hidden_states=True).hidden_states
        text = base.tokenizer.decode(tokens)
        first = len(base.tokenizer(text[: text.index(example.context.rstrip())])["input_ids"])  # a token a byte
        for place, layer in ((0, 1), (2, 2)):  # of two layers two thirds is the first; the last state is after the norm
            assert torch.allclose(own[place], out[layer][0, first:].mean(0), atol=1e-5)


def test_the_states_of_an_item_do_not_depend_on_the_others(base: Base) -> None:
    examples = [replace(e, context=f"{e.context} {'x' * n}") for n, e in enumerate(make_examples(6))]
    together = pooled_states(base, examples, 300, 700)
    for example, own in zip(examples, together, strict=True):
        assert torch.allclose(pooled_states(base, [example], 300, 700)[0], own, atol=1e-5)


def test_an_item_without_a_context_is_read_whole(base: Base) -> None:
    example = replace(make_examples(1)[0], context="")
    assert torch.isfinite(pooled_states(base, [example], 300, 700)).all()


def test_it_computes_what_scikit_learn_does() -> None:
    shots, gold = features(COUNT)
    named, _ = features(3, seed=1)
    asked, _ = features(10, seed=2)
    probe = fit_probe(shots, gold, folds(), named, LABELS, several=False)
    assert probe.depth == 1  # which tells the labels apart
    known = shots.joined(named)
    blocks = [known.states[:, 1], *([known.scores] if probe.reads_scores else [])]
    new = [asked.states[:, 1], *([asked.scores] if probe.reads_scores else [])]
    scalers = [StandardScaler().fit(block) for block in blocks]
    columns, wanted = (
        np.hstack([s.transform(b) / np.sqrt(b.shape[1]) for s, b in zip(scalers, some, strict=True)]) for some in (blocks, new)
    )
    targets = np.concatenate([gold.argmax(1), np.arange(3)])
    reference = LogisticRegression(C=STRENGTH, max_iter=1000).fit(columns, targets).predict_log_proba(wanted)
    assert np.allclose(probe(asked), reference, atol=1e-6)


def test_of_two_labels_it_gives_both_probabilities() -> None:
    shots, gold = features(COUNT)
    gold = np.stack([gold[:, 0], ~gold[:, 0]], axis=1)
    two = Features(shots.states, shots.scores[:, :2])
    named = Features(two.states[:2], two.scores[:2])
    found = np.exp(fit_probe(two, gold, folds(), named, LABELS[:2], several=False)(two))
    assert np.allclose(found.sum(1), 1)
    assert (found.argmax(1) == gold.argmax(1)).mean() > 0.9


def test_likelihoods_that_know_the_answer_are_read_by_themselves() -> None:
    rng = np.random.default_rng(0)
    gold = np.eye(3, dtype=bool)[rng.integers(0, 3, COUNT)]
    offsets = np.array([-20.0, 0.0, -5.0])  # of the labels, larger than what tells items apart
    scores = offsets + 8.0 * gold + rng.normal(size=(COUNT, 3)) * 0.1
    shots = Features(rng.normal(size=(COUNT, 3, 40)), scores)
    named = Features(rng.normal(size=(3, 3, 40)), offsets + rng.normal(size=(3, 3)))
    probe = fit_probe(shots, gold, folds(), named, LABELS, several=False)
    assert probe.read_by == "likelihoods"
    assert (scores.argmax(1) == gold.argmax(1)).mean() < 0.8  # by themselves they prefer one label
    assert (probe(shots).argmax(1) == gold.argmax(1)).all()
    expected = scores - scores.mean(0) + np.log((gold.sum(0) + 1) / (COUNT + 3))
    expected -= np.log(np.exp(expected).sum(1, keepdims=True))
    assert np.allclose(probe(shots), expected)


def test_of_several_labels_it_gives_log_odds_and_a_threshold() -> None:
    shots, gold = features(60, several=True)
    named, _ = features(3, seed=1)
    probe = fit_probe(shots, gold, folds(60), named, LABELS, several=True)
    assert probe.depth == 1
    assert probe.threshold is not None
    assert ((probe(shots) >= probe.threshold) == gold).mean() > 0.9


def test_the_held_out_losses_are_those_of_what_was_not_fitted_on() -> None:
    shots, gold = features(COUNT)
    noise = Features(np.random.default_rng(1).normal(size=shots.states.shape), shots.scores)
    probe = fit_probe(noise, gold, folds(), features(3, seed=1)[0], LABELS, several=False)
    assert min(probe.losses.values()) > 0.7  # ln 3 is 1.1; on the fitted examples it would be near 0


def test_it_is_kept_and_read_as_it_was() -> None:
    shots, gold = features(COUNT)
    probe = fit_probe(shots, gold, folds(), features(3, seed=1)[0], LABELS, several=False)
    again = Probe.read(json.loads(json.dumps(probe.values())), probe.tensors())
    assert np.array_equal(again(shots), probe(shots))
    assert again.digest() == probe.digest()
    with pytest.raises(DamagedFile, match="Adapt again"):
        Probe.read(probe.values(), probe.tensors() | {"probe.bias": torch.zeros(7)})
    with pytest.raises(DamagedFile, match="Adapt again"):
        Probe.read(probe.values(), {})


def test_labels_are_examples_of_themselves() -> None:
    examples = make_examples(2)
    found = label_examples(examples, {examples[0].labels[0]: "described"})
    assert [e.answer for e in found] == list(examples[0].labels)
    assert [e.context for e in found] == ["described", *examples[0].labels[1:]]
    with pytest.raises(ConfigError, match="differ by item"):
        label_examples([examples[0], replace(examples[1], labels=("p", "q"))], {})


def test_predictions_are_those_of_the_probe(base: Base) -> None:
    examples = [*make_examples(6, split="test")]
    answerer = Answerer(base, EvaluationSettings(max_length=300, scoring="mean"))
    known = answerer.features(examples)
    labels = examples[0].labels
    gold = np.stack([np.isin(labels, [e.answer]) for e in examples])
    probe = fit_probe(known, gold, [[0, 1], [2, 3], [4, 5]], known[list(range(len(labels)))], labels, several=False)
    rows = predictions_of("multiple_choice", answerer, examples, calibrator=probe)
    assert np.allclose([row["scores"] for row in rows], probe(known), atol=1e-4)
    assert np.allclose(np.exp([row["scores"] for row in rows]).sum(1), 1, atol=1e-4)


# ---- its folder ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """Experts, and labelled notes of two sorts and of one with several labels."""
    folder, words = tmp_path_factory.mktemp("probe"), {"calm": "sleeps", "loud": "shouts", "shrill": "whistles"}
    write_set(folder / "experts", three_experts(load_base(str(tiny_folder), dtype="float32", device="cpu")).experts)
    rows = [f"bed {i}: the patient {word},{label},{label}; night" for i in range(40) for label, word in words.items()]
    (folder / "notes.csv").write_text("\n".join(["note,tone,tags", *rows]) + "\n")
    Task.from_csv(folder / "notes.csv", text="note", label="tone", name="tones").save(folder / "tones.yaml")
    return folder


@pytest.fixture
def common(home: Path, tiny_folder: Path) -> list[object]:
    return ["--base", tiny_folder, "--dtype", "float32", "--json"]


def run(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def adapt(home: Path, common: list[object], out: Path, *more: object) -> dict[str, Any]:
    few = ["--method", "best_expert", "--shots", "24"]
    return run("adapt", "--task", home / "tones.yaml", "--experts", home / "experts", *common, *few, "--out", out, *more)


def test_a_router_with_a_probe_is_made_once_and_answers_by_it(
    home: Path, common: list[object], tmp_path: Path, base: Base
) -> None:
    found = adapt(home, common, home / "one", "--probe")
    (kept,) = found["probed"]
    assert kept["labels"] == ["calm", "loud", "shrill"]
    assert len(kept["losses"]) == 7
    files = {path: path.read_bytes() for path in (home / "one" / "probe").rglob("*") if path.is_file()}
    assert adapt(home, common, home / "one", "--probe") == found
    assert {path: path.read_bytes() for path in files} == files
    router = load_router(home / "one" / "probe")
    assert load_router(home / "one").probe is None
    scored = run(
        "evaluate", "--task", home / "tones.yaml", "--router", home / "one" / "probe", "--runs", tmp_path / "runs", *common
    )
    assert (scored["method"], scored["setting"]) == ("linear_probe", "few-shot")
    assert scored["metrics"]["accuracy"]["value"] > 0.8  # the words tell the labels apart
    (tmp_path / "in.jsonl").write_text('{"note": "bed 90: the patient sleeps"}\n{"note": "bed 91: the patient shouts"}\n')
    run("predict", tmp_path / "in.jsonl", "--router", home / "one" / "probe", "--out", tmp_path / "out.jsonl", *common)
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in answers] == ["calm", "loud"]
    adapted = staf.load_adapted(home / "one" / "probe", base=str(base.folder), dtype="float32", device="cpu")
    notes = ["bed 90: the patient sleeps", "bed 91: the patient shouts"]
    assert adapted.predict(notes) == ["calm", "loud"]
    wanted = [[row["probabilities"][label] for label in router.prompt.labels or ()] for row in answers]
    assert np.allclose(adapted.predict_proba(notes), wanted, atol=1e-4)


def test_a_damaged_probe_is_named(home: Path, common: list[object], tmp_path: Path) -> None:
    adapt(home, common, home / "one", "--probe")
    router = load_router(home / "one" / "probe")
    save_router(tmp_path / "bad", replace(router, probe_tensors={}))
    with pytest.raises(DamagedFile, match="not the values of a probe"):
        probe_of(load_router(tmp_path / "bad"))


def test_the_base_itself_is_probed_by_name(home: Path, tiny_folder: Path, tmp_path: Path) -> None:
    context = Context(str(tiny_folder), None, tmp_path, dtype="float32")
    task = context.find_task(str(home / "tones.yaml"))
    settings = EvaluationSettings(max_length=200)
    result, first = evaluate_named(context, task, settings, "linear_probe", shots=24)
    assert result["metrics"]["accuracy"]["value"] > 0.8
    assert (result["adaptation_examples"], result["weights"], result["setting"]) == (24, None, "few-shot")
    assert evaluate_named(context, task, settings, "linear_probe", shots=24)[1].folder == first.folder
    with pytest.raises(ConfigError, match="shots"):
        evaluate_named(context, task, settings, "linear_probe", shots=1)


def test_several_labels_are_answered_by_a_probe(home: Path, tiny_folder: Path, tmp_path: Path) -> None:
    context = Context(str(tiny_folder), None, tmp_path, dtype="float32")
    task = Task.from_csv(home / "notes.csv", text="note", label="tags", output_type="multi_label")
    result, _run = evaluate_named(context, task, EvaluationSettings(max_length=200), "linear_probe", shots=24)
    assert result["output_type"] == "multi_label"
    assert result["metrics"]["micro_f1"]["value"] > 0.8
    assert result["calibration_examples"] == 0


def test_what_cannot_be_probed_is_refused(home: Path, tiny_folder: Path, tmp_path: Path, base: Base) -> None:
    context = Context(str(tiny_folder), None, tmp_path, dtype="float32")
    task = context.find_task(str(home / "tones.yaml"))
    experts = load_experts(home / "experts")
    recipe = RouterRecipe(method="zero_shot", shots=4)
    weights = torch.full((1, 3), 1 / 3)
    router = Router.of(base, experts, task.name, make_examples(2), recipe, weights, torch.zeros(1), {})
    with pytest.raises(ConfigError, match="reads no labels"):
        probe_stage(context, task, router, experts, tmp_path / "out")
    with pytest.raises(ConfigError, match="answers of 'free' are text"):
        fitted_probe(context, Task(task="free", title="", task_type="x", output_type="generate_until"), [], 100, 0)
    model = staf.load_model(home / "experts", str(tiny_folder), dtype="float32", device="cpu", runs=tmp_path / "runs")
    with pytest.raises(ConfigError, match="tune or probe, not both"):
        model.adapt(task, shots=24, method="best_expert", tune=True, probe=True, out=tmp_path / "both")


def test_what_does_not_read_a_probe_says_so(home: Path, common: list[object], tmp_path: Path) -> None:
    adapt(home, common, home / "one", "--probe")
    adapted = staf.load_adapted(home / "one" / "probe", base=str(common[1]), dtype="float32", device="cpu")
    with pytest.raises(ConfigError, match="answers by a linear probe, which an exported model does not read"):
        adapted.export(tmp_path / "out", format="peft")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="which the server does not read"):
        load_router(home / "one" / "probe").refuse_probe("the server")
