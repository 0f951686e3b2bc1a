"""Text classifiers: they learn what can be learned, in the shapes that metrics read, and refuse what they cannot do."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold
from transformers import AutoTokenizer

from staf.baselines.classifiers import (
    CLASSIFIERS,
    classify,
    group_split,
    log_scores,
    loss_of,
    problem_of,
    tfidf,
    threshold_of,
)
from staf.baselines.external import read_predictions
from staf.baselines.networks import _CONVERT, UNKNOWN, Convolutions, Recurrent, Vocabulary, encoder_folder, padded
from staf.baselines.settings import ClassifierSettings
from staf.config import parse
from staf.data.answers import write_several
from staf.data.example import Example
from staf.errors import BadData, ConfigError, DamagedFile, MissingData, StafError, TestLeak, TrainingFailed, UnknownName
from staf.evaluate.answer import label_prediction
from staf.metrics.by_output_type import compute_metrics, measures_of

SIGNS = {"heart": "systole murmur", "lung": "cough wheeze", "skin": "rash itch"}
LABELS = tuple(SIGNS)
FILLER = ("the", "patient", "came", "today", "with", "again", "some", "and")
SMALL = ClassifierSettings(
    embedding_dim=16, num_filters=16, hidden_size=16, epochs=12, learning_rates=(1e-2,), encoder_learning_rates=(3e-3,),
    encoder_epochs=12, batch_size=8, dropout=0.1, patience=4,
)  # fmt: skip
LEARNED = tuple(name for name in CLASSIFIERS if name not in ("majority", "nearest_label"))
WITH_WORDS = ("cnn", "text_cnn", "rnn")


def example(number: int, split: str, chosen: tuple[str, ...], output_type: str = "multiple_choice", **changes: Any) -> Example:
    words = [FILLER[(number + i) % len(FILLER)] for i in range(4)]
    for label in chosen:
        words.insert(number % 3, SIGNS[label].split()[number % 2])
    made = Example(
        id=f"{split}-{number}", task_type="toy", query="Which organ?", context=" ".join(words), labels=LABELS, split=split,
        answer=chosen[0] if output_type == "multiple_choice" else write_several(chosen, LABELS), dedup_keys=(),
        output_type=output_type,
    )  # fmt: skip
    return replace(made, **changes)


def choices(count: int, split: str = "adaptation") -> list[Example]:
    return [example(i, split, (LABELS[i * 7 % 3],)) for i in range(count)]


def severals(count: int, split: str = "adaptation") -> list[Example]:
    return [
        example(i, split, tuple(label for bit, label in enumerate(LABELS) if i * 5 % 8 >> bit & 1), "multi_label")
        for i in range(count)
    ]


def settings_for(name: str, encoder: Path) -> ClassifierSettings:
    return SMALL.model_copy(update={"encoder": str(encoder)}) if name in ("encoder", "embedding") else SMALL


@pytest.mark.parametrize("name", LEARNED)
def test_one_label_is_learned_twice_alike_and_scored_as_log_probabilities(name: str, tiny_encoder: Path) -> None:
    chosen, test = settings_for(name, tiny_encoder), choices(24, "test")
    before = torch.random.get_rng_state()
    predictions, record = classify(name, choices(48), test, chosen)
    assert torch.equal(before, torch.random.get_rng_state())
    assert measures_of("multiple_choice", predictions).quality.mean() > 0.8
    assert [p["id"] for p in predictions] == [e.id for e in test]
    assert [LABELS[p["gold"]] for p in predictions] == [e.answer for e in test]
    np.testing.assert_allclose(np.exp([p["scores"] for p in predictions]).sum(1), 1, atol=1e-5)
    found = compute_metrics("multiple_choice", predictions, fixed_labels=True, resamples=100)
    assert {"accuracy", "macro_f1", "macro_auc"} <= set(found)
    assert classify(name, choices(48)[::-1], test, chosen)[0] == predictions
    assert record["chosen"] in record["trials"]
    assert record["chosen"]["val_loss"] == min(t["val_loss"] for t in record["trials"])
    assert record["validation_examples"] == (48 if name in ("tfidf", "embedding") else 9)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize("name", LEARNED)
def test_several_labels_are_learned_and_scored_as_log_odds(name: str, tiny_encoder: Path) -> None:
    test = severals(24, "test")
    predictions, record = classify(name, severals(64), test, settings_for(name, tiny_encoder))
    found = compute_metrics("multi_label", predictions, fixed_labels=True, resamples=100)
    assert found["micro_f1"]["value"] > 0.85
    assert found["macro_auc"]["value"] > 0.9
    for prediction, item in zip(predictions, test, strict=True):
        assert write_several({LABELS[i] for i in prediction["gold"]}, LABELS) == item.answer
        assert prediction["answer"] == [i for i, score in enumerate(prediction["scores"]) if score >= record["threshold"]]


def test_several_labels_are_answered_from_the_threshold_with_the_best_f1_of_what_was_held_out() -> None:
    scores = np.array([[-1.0, -3.0], [-1.5, -2.5], [-4.0, -2.0]])
    targets = np.array([[1, 0], [1, 0], [0, 0]], dtype=np.float32)
    assert threshold_of(scores, targets, "multi_label") == pytest.approx(-1.75)  # halfway between -1.5 and -2
    assert threshold_of(scores, np.zeros_like(targets), "multi_label") == 0.0
    assert threshold_of(scores, targets, "multiple_choice") is None
    found = label_prediction(severals(1, "test")[0], [-1.7, -1.8, 2.0], -1.75)
    assert found["answer"] == [0, 2]


def test_a_seldom_label_is_answered_though_its_chance_is_below_one_half() -> None:
    """As the language model's labels are, which have a threshold of their own."""
    rare = [example(i, "adaptation", ("lung",) if i % 5 == 0 else (), "multi_label") for i in range(60)]
    rare = [replace(e, context="a cough" if i % 5 in (0, 1, 2) else "a rash") for i, e in enumerate(rare)]
    test = [replace(e, context="a cough") for e in severals(4, "test")]
    predictions, record = classify("tfidf", rare, test, SMALL)
    assert record["threshold"] < 0
    assert all(LABELS.index("lung") in p["answer"] for p in predictions)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("make", [choices, severals])
def test_empty_contexts_and_unknown_words_are_answered(name: str, make: Any, tiny_encoder: Path) -> None:
    adaptation, test = make(12), make(4, "test")
    adaptation[0] = replace(adaptation[0], context="")
    test = [replace(test[0], context=""), replace(test[1], context="zxq ωμέγα"), replace(test[2], context="..."), test[3]]
    quick = settings_for(name, tiny_encoder).model_copy(update={"epochs": 1, "encoder_epochs": 1})
    predictions, _ = classify(name, adaptation, test, quick)
    assert np.isfinite([p["scores"] for p in predictions]).all()
    if name in WITH_WORDS:
        assert predictions[0]["scores"] == predictions[2]["scores"]


@pytest.mark.parametrize("name", ["tfidf", "cnn"])
def test_labels_that_were_never_or_always_right_have_finite_scores(name: str) -> None:
    single = [example(i, "adaptation", ("lung",)) for i in range(8)]
    predictions, record = classify(name, single, choices(3, "test"), SMALL)
    assert record["labels_never_right_in_fitting"] == 2
    assert np.isfinite([p["scores"] for p in predictions]).all()
    both = [example(i, "adaptation", ("heart", "lung"), "multi_label") for i in range(8)]
    predictions, _ = classify(name, both, severals(3, "test"), SMALL)
    assert np.isfinite([p["scores"] for p in predictions]).all()
    if name == "tfidf":
        assert all(p["answer"] == [0, 1] for p in predictions)


def test_the_query_is_read_only_where_asked() -> None:
    adaptation = [replace(e, query=e.context, context="") for e in choices(48)]
    test = [replace(e, query=e.context, context="") for e in choices(24, "test")]
    with pytest.raises(MissingData, match="include_query"):
        classify("tfidf", adaptation, test, SMALL)
    predictions, _ = classify("tfidf", adaptation, test, SMALL.model_copy(update={"include_query": True}))
    assert measures_of("multiple_choice", predictions).quality.mean() > 0.8


def test_logistic_regression_is_that_of_scikit_learn_on_all_examples() -> None:
    given = SMALL.model_copy(update={"c_values": (2.0,)})
    problem, test = problem_of(choices(30), choices(9, "test"), given), [e.context for e in choices(9, "test")]
    found = tfidf(problem, test, given)
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    known = features.fit_transform(problem.all.texts)
    reference = LogisticRegression(C=2.0, max_iter=1000).fit(known, problem.all.targets.argmax(1))
    np.testing.assert_allclose(np.exp(found.scores), reference.predict_proba(features.transform(test)), atol=1e-5)
    assert found.parameters == 3 * (known.shape[1] + 1)


def test_c_is_chosen_by_cross_validation_over_groups() -> None:
    groups = [replace(e, group=f"patient {i // 3}") for i, e in enumerate(choices(36))]
    problem = problem_of(groups, choices(3, "test"), SMALL)
    found = tfidf(problem, ["cough"], SMALL)
    part, losses = problem.all, {}
    for c in SMALL.c_values:
        out = np.zeros_like(part.targets)
        for train, held in GroupKFold(5).split(part.texts, groups=part.groups):
            features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
            known = features.fit_transform([part.texts[i] for i in train])
            model = LogisticRegression(C=c, max_iter=1000).fit(known, part.targets[train].argmax(1))
            out[held] = log_scores(
                model.predict_log_proba(features.transform([part.texts[i] for i in held])), "multiple_choice"
            )
        losses[c] = loss_of(out, part.targets, "multiple_choice")
    assert [trial["val_loss"] for trial in found.trials] == pytest.approx(list(losses.values()), abs=1e-4)
    chosen = classify("tfidf", groups, choices(3, "test"), SMALL)[1]["chosen"]
    assert chosen["c"] == min(losses, key=losses.__getitem__)


def test_the_majority_answers_every_item_alike_and_labels_may_differ_by_item() -> None:
    adaptation = [example(i, "adaptation", ("lung" if i % 4 else "skin",)) for i in range(12)]
    predictions, record = classify("majority", adaptation, choices(6, "test"), SMALL)
    assert {LABELS[int(np.argmax(p["scores"]))] for p in predictions} == {"lung"}
    np.testing.assert_allclose(np.exp(predictions[0]["scores"]), np.array([0.5, 9.5, 3.5]) / 13.5, atol=1e-4)
    assert (record["tunable_parameters"], record["adaptation_examples"]) == (0, 12)
    other = [replace(example(0, "test", ("skin",)), labels=("skin", "bone"))]
    assert classify("majority", adaptation, other, SMALL)[0][0]["gold"] == 0
    several = [example(i, "adaptation", ("lung",) if i % 3 else ("lung", "skin"), "multi_label") for i in range(9)]
    predictions, _ = classify("majority", several, severals(5, "test"), SMALL)
    assert {tuple(p["answer"]) for p in predictions} == {(1,)}
    with pytest.raises(ConfigError, match="output type"):
        classify("majority", [replace(adaptation[0], output_type="span")], [replace(other[0], output_type="span")], SMALL)


def test_losses_are_those_of_scikit_learn_and_of_torch() -> None:
    chance = np.random.default_rng(0)
    logits, gold = chance.normal(size=(7, 3)), np.array([0, 1, 2, 2, 1, 0, 1])
    scores = log_scores(logits, "multiple_choice")
    assert loss_of(scores, np.eye(3)[gold], "multiple_choice") == pytest.approx(
        log_loss(gold, np.exp(scores), labels=[0, 1, 2])
    )
    targets = (chance.random((7, 3)) > 0.5).astype(float)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(logits), torch.tensor(targets))
    assert loss_of(log_scores(logits, "multi_label"), targets, "multi_label") == pytest.approx(float(expected))


@pytest.mark.parametrize("name", WITH_WORDS)
def test_a_text_scores_the_same_beside_longer_ones(name: str) -> None:
    torch.manual_seed(0)
    module = (
        Recurrent(20, 3, SMALL) if name == "rnn" else Convolutions(20, 3, (4,) if name == "cnn" else (3, 5), torch.tanh, SMALL)
    ).eval()
    rows, device = [[2, 3], [1], list(range(2, 20)) * 3], torch.device("cpu")
    single = torch.cat([module(*padded([row], 0, device)) for row in rows])
    torch.testing.assert_close(module(*padded(rows, 0, device)), single, atol=1e-6, rtol=1e-5)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 999)), min_size=2, max_size=40), st.floats(0.05, 0.95))
@settings(max_examples=40)
def test_what_judges_shares_no_group_and_nothing_is_lost(pairs: list[tuple[int, int]], share: float) -> None:
    given = [example(i, "adaptation", ("lung",), group=f"patient {group}") for i, (group, _) in enumerate(pairs)]
    if len({e.group for e in given}) < 2:
        with pytest.raises(MissingData, match="at least 2 groups"):
            group_split(given, share, 0)
        return
    fitted, judging = group_split(given, share, 0)
    assert fitted
    assert judging
    assert not {e.group for e in fitted} & {e.group for e in judging}
    assert sorted(e.id for e in fitted + judging) == sorted(e.id for e in given)
    assert group_split(given[::-1], share, 0) == (fitted, judging)


def test_the_vocabulary_keeps_the_most_frequent_words_of_what_is_fitted_on() -> None:
    made = Vocabulary.of(["b a a", "A c"], SMALL.model_copy(update={"max_vocabulary": 2, "max_words": 3}))
    assert made.encode("a b c a") == [2, 3, UNKNOWN]
    assert made.encode(" - ") == [UNKNOWN]
    assert len(made) == 4
    rare = Vocabulary.of(["b a a"], SMALL.model_copy(update={"min_count": 2}))
    assert rare.ids == {"a": 2}


def test_it_refuses_what_a_classifier_cannot_do() -> None:
    good, test = choices(6), choices(3, "test")

    def refused(error: type[Exception], match: str, adaptation: Any = good, asked: Any = test, name: str = "tfidf") -> None:
        with pytest.raises(error, match=match):
            classify(name, adaptation, asked, SMALL)

    refused(UnknownName, "Did you mean 'text_cnn'", name="textcnn")
    refused(ConfigError, "other labels", asked=[replace(test[0], labels=("heart", "lung"))])
    refused(ConfigError, "other labels", asked=[replace(test[0], labels=LABELS[::-1])])
    refused(
        ConfigError,
        "these examples are span",
        asked=[replace(test[0], output_type="span")],
        adaptation=[replace(e, output_type="span") for e in good],
    )
    refused(ConfigError, "multi_label, multiple_choice", asked=severals(3, "test"))
    refused(TestLeak, "test split", adaptation=[*good, test[0]])
    refused(TestLeak, "both", adaptation=[replace(good[0], id="test-0"), *good[1:]])
    refused(MissingData, "no test examples", asked=[])
    refused(MissingData, "at least 2", adaptation=good[:1])
    refused(BadData, "^test-0: its answer", asked=[replace(test[0], answer="secret")])
    twice = [[replace(e, labels=("heart", "heart"), answer="heart") for e in some] for some in (good, test)]
    refused(ConfigError, "each once", adaptation=twice[0], asked=twice[1])


def test_an_encoder_that_is_not_there_or_not_safe_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    good, test = choices(6), choices(3, "test")
    with pytest.raises(ConfigError, match="set encoder"):
        classify("encoder", good, test, SMALL)
    for name, match in ((str(tmp_path / "none"), "not a folder and not a hub id"), ("nobody/nothing", "give its folder")):
        with pytest.raises(MissingData, match=match):
            encoder_folder(name)
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_encoder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DamagedFile, match=r"pickled has no weights as safetensors.*convert it once.*python -c"):
        classify("encoder", good, test, settings_for("encoder", folder))


def test_an_encoder_is_converted_as_the_message_and_the_page_say(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled, new = tmp_path / "pickled", tmp_path / "new"
    shutil.copytree(tiny_encoder, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(load_file(tiny_encoder / "model.safetensors"), pickled / "pytorch_model.bin")
    monkeypatch.setattr("sys.argv", ["-c", str(pickled), str(new)])
    exec(_CONVERT, {})
    assert encoder_folder(str(new)) == new
    weights, before = load_file(new / "model.safetensors"), load_file(tiny_encoder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(weights[name], before[f"bert.{name}"])
    assert _CONVERT in (Path(__file__).parents[1] / "docs" / "classifiers.md").read_text()


def test_an_encoder_cuts_texts_to_its_own_positions_and_says_what_it_was(tiny_encoder: Path) -> None:
    quick = settings_for("encoder", tiny_encoder).model_copy(
        update={"encoder_epochs": 1, "encoder_learning_rates": (1e-3, 1e-4)}
    )
    long = [replace(choices(1, "test")[0], context="cough " * 100)]
    _, record = classify("encoder", choices(6), long, quick)
    assert record["details"]["max_length"] == 32
    assert len(record["details"]["encoder"]["fingerprint"]) == 16
    assert [trial["learning_rate"] for trial in record["trials"]] == [1e-3, 1e-4]


def test_training_stops_when_patience_ends_and_keeps_the_best_epoch() -> None:
    hasty = SMALL.model_copy(update={"learning_rates": (0.5,), "patience": 2, "epochs": 40})
    _, record = classify("cnn", choices(24), choices(3, "test"), hasty)
    trial = record["chosen"]
    assert trial["val_loss"] == min(trial["val_losses"][1:]) == trial["val_losses"][trial["epochs"]]
    assert trial["stop_reason"] == "patience"
    assert len(trial["val_losses"]) == 1 + trial["epochs"] + 2


def test_a_rate_that_leads_to_no_number_is_logged_and_another_is_taken() -> None:
    wild = SMALL.model_copy(update={"learning_rates": (1e30, 1e-2), "epochs": 2})
    _, record = classify("cnn", choices(24), choices(3, "test"), wild)
    assert record["trials"][0]["stop_reason"] == "diverged"
    assert record["chosen"]["learning_rate"] == 1e-2
    with pytest.raises(TrainingFailed, match="Try lower ones"):
        classify("cnn", choices(24), choices(3, "test"), wild.model_copy(update={"learning_rates": (1e30,)}))


def test_an_encoder_whose_weights_are_not_all_there_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    """Transformers only warns, and trains on random ones; a head is new by design."""
    folder = tmp_path / "lacking"
    shutil.copytree(tiny_encoder, folder)
    weights = load_file(folder / "model.safetensors")
    quick = settings_for("encoder", folder).model_copy(update={"encoder_epochs": 1})
    headless = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(headless, folder / "model.safetensors", metadata={"format": "pt"})
    classify("encoder", choices(6), choices(3, "test"), quick)
    lost = "bert.encoder.layer.0.output.dense.weight"
    for changed in ({lost: weights[lost][:3].clone()}, {}):
        lacking = {name: tensor for name, tensor in headless.items() if name != lost} | changed
        save_file(lacking, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(DamagedFile, match=f"lack 1 tensors of its encoder.*{lost}: they would be random"):
            classify("encoder", choices(6), choices(3, "test"), quick)


def test_an_encoder_whose_tokenizer_has_more_tokens_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "larger"
    shutil.copytree(tiny_encoder, folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_tokens([f"token{i}" for i in range(40)])
    tokenizer.save_pretrained(str(folder))
    with pytest.raises(DamagedFile, match="more tokens than its encoder"):
        classify("encoder", choices(6), choices(3, "test"), settings_for("encoder", folder))


@pytest.mark.parametrize("kind", ["bert", "own_kind"])
def test_no_code_of_an_encoder_runs(tiny_encoder: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "own-code"
    shutil.copytree(tiny_encoder, folder)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    for name, changes in (("config.json", {"model_type": kind, "auto_map": own}), ("tokenizer_config.json", {"auto_map": own})):
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))
    quick = settings_for("encoder", folder).model_copy(update={"encoder_epochs": 1})
    try:
        classify("encoder", choices(6), choices(3, "test"), quick)
    except DamagedFile:
        assert kind == "own_kind"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 10_000])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_an_encoder_with_a_damaged_file_is_one_named_error(
    tiny_encoder: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_encoder, folder)
    (folder / name).write_bytes(content)
    with pytest.raises(StafError):
        classify("encoder", choices(6), choices(3, "test"), settings_for("encoder", folder))


def test_an_encoder_of_an_unknown_kind_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unknown"
    shutil.copytree(tiny_encoder, folder)
    (folder / "config.json").write_text('{"model_type": "no_such_kind"}')
    with pytest.raises(DamagedFile, match="does not load as an encoder by AutoConfig"):
        classify("encoder", choices(6), choices(3, "test"), settings_for("encoder", folder))


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"learning_rates": []}, {"c_values": [1, 1]}, {"kernel_sizes": [0]}, {"val_fraction": 0}):
        with pytest.raises(ConfigError):
            parse(ClassifierSettings, wrong, "test")


def written(path: Path, *entries: Any) -> Path:
    path.write_text("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries) + "\n")
    return path


def test_our_own_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    for make, output_type in ((choices, "multiple_choice"), (severals, "multi_label")):
        test = make(8, "test")
        ours, _ = classify("tfidf", make(24), test, SMALL)
        lines = [{"id": p["id"], "scores": dict(zip(LABELS, p["scores"], strict=True))} for p in ours]
        ours = [{key: value for key, value in p.items() if key != "truncated"} for p in ours]
        assert read_predictions(written(tmp_path / f"{output_type}.jsonl", *lines[::-1]), test) == ours


def test_answers_by_label_name_become_indices(tmp_path: Path) -> None:
    one, more = choices(2, "test"), severals(2, "test")
    path = written(tmp_path / "a.jsonl", {"id": "test-1", "answer": "skin"}, {"id": "test-0", "answer": "heart"})
    found = read_predictions(path, one)
    assert [int(np.argmax(p["scores"])) for p in found] == [0, 2]
    assert found[0]["scores"] == pytest.approx([0, math.log(1e-6), math.log(1e-6)])
    path = written(tmp_path / "b.jsonl", {"id": "test-0", "answer": []}, {"id": "test-1", "answer": ["skin", "heart"]})
    assert [p["answer"] for p in read_predictions(path, more)] == [[], [0, 2]]
    both = {"scores": {"heart": -0.5, "lung": -3, "skin": -2}, "answer": ["heart"]}
    found = read_predictions(written(tmp_path / "c.jsonl", {"id": "test-0", **both}, {"id": "test-1", **both}), more)
    assert found[1] == {"id": "test-1", "gold": [0, 2], "answer": [0], "scores": [-0.5, -3.0, -2.0]}


GOOD = {"id": "test-0", "answer": "heart"}


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        (["{secret"], "line 1: a JSON object"),
        ([{"answer": "heart"}], "line 1: a JSON object"),
        (['{"id": "test-0", "answer": "heart", "answer": "lung"}'], "no key twice"),
        ([GOOD, {"id": "secret", "answer": "heart"}], "line 2: its id is no test item"),
        ([GOOD, GOOD], "line 2: its id is there twice"),
        ([GOOD], "1 of 2 test items have no line: test-1"),
        ([{"id": "test-0", "answer": "secret"}], "line 1: 'answer' names a label"),
        ([{"id": "test-0", "answer": ["heart"]}], "must be a label"),
        ([{"id": "test-0", "answer": "heart", "note": "secret"}], "keys must be"),
        ([{"id": "test-0", "scores": {"heart": 1, "secret": 2}}], "each of the 3 labels"),
        (['{"id": "test-0", "scores": {"heart": NaN, "lung": 0, "skin": 0}}'], "finite"),
        ([GOOD, {"id": "test-1", "scores": {"heart": 0, "lung": 0, "skin": 0}}], "line 2: it has other keys"),
    ],
)
def test_wrong_predictions_are_named_by_line_and_never_shown(tmp_path: Path, entries: list[Any], match: str) -> None:
    with pytest.raises(BadData, match=match) as caught:
        read_predictions(written(tmp_path / "p.jsonl", *entries), choices(2, "test"))
    assert "secret" not in str(caught.value)


def test_predictions_need_a_file_and_examples_of_one_form(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="Check the path"):
        read_predictions(tmp_path / "none.jsonl", choices(2, "test"))
    with pytest.raises(MissingData, match="no test examples"):
        read_predictions(tmp_path / "none.jsonl", [])
    with pytest.raises(ConfigError, match="multi_label, multiple_choice"):
        read_predictions(tmp_path / "none.jsonl", [*choices(1, "test"), *severals(1, "test")])
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(BadData, match="UTF-8"):
        read_predictions(tmp_path / "latin.jsonl", choices(2, "test"))
