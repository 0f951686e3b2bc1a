"""Baselines: labels scored as by whole forwards, rows learn and leave the base unchanged, test items are never fitted on."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from architectures import other_base
from conftest import make_examples

from staf.baselines.in_context import with_shots
from staf.baselines.methods import BASELINES, baseline_predictions
from staf.baselines.peft import Tuning, model_logprobs, plain_model, tuned_base
from staf.baselines.settings import BaselineSettings
from staf.config import parse
from staf.data.example import Example, prompt_of
from staf.data.task import Task
from staf.errors import BadData, ConfigError, MissingData, TestLeak, TrainingFailed
from staf.evaluate.answer import Answerer, predictions_of
from staf.evaluate.settings import EvaluationSettings
from staf.lm.base import Base
from staf.lm.batches import Encoded, collate, encode, encode_answer, encode_prompt
from staf.lm.scoring import score_labels
from staf.metrics.methods import METHODS, titles

TRAINED = list(titles("trained"))
TASK = Task(task="colours", title="Colours", task_type="colour", fixed_labels=True)
EVALUATION = EvaluationSettings(max_length=256, token_budget=1024)


def settings_of(method: str, **changed: object) -> BaselineSettings:
    wanted = {"method": method, "learning_rates": (0.01,), "epochs": 3, "batch_size": 4, "num_virtual_tokens": 4, "rank": 2}
    return BaselineSettings.model_validate({**wanted, **changed})


@pytest.fixture(params=["llama", "gpt_neox", "mistral"])
def any_base(request: pytest.FixtureRequest, base: Base, tiny_folder: Path, tmp_path: Path) -> Base:
    """A base of each kind of model."""
    return base if request.param == "llama" else other_base(request.param, tiny_folder, tmp_path)


def of_many_lengths(examples: list[Example]) -> list[Example]:
    """The examples, each with a longer context than the one before it."""
    return [replace(e, context=e.context + " far" * i) for i, e in enumerate(examples)]


def state_of(base: Base) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(base.model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    for path in sorted(base.folder.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def test_the_settings_and_the_table_know_the_same_methods() -> None:
    assert set(get_args(BaselineSettings.model_fields["method"].annotation)) == set(BASELINES)
    assert all(len(METHODS[name]["rates"]) == 3 for name in TRAINED)


def test_wrong_settings_are_refused_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(BaselineSettings, {"method": "adapter", "epochs": 0, "virtual_token": 3}, "a test")
    assert "3 problems" in str(caught.value)
    assert "did you mean 'num_virtual_tokens'?" in str(caught.value)
    with pytest.raises(ConfigError, match=r"learning_rates\.1 = -0\.1: Input should be greater than 0"):
        parse(BaselineSettings, {"learning_rates": [0.1, -0.1]}, "a test")


@torch.no_grad()
def whole_scores(model: Any, base: Base, example: Example, max_length: int) -> torch.Tensor:
    """Mean log p of the tokens of each label, by one forward of only prompt and label through the model as it is."""
    answers = [encode_answer(label, base.tokenizer) for label in example.labels]
    prompt = encode_prompt(example, base.tokenizer, max_length - max(map(len, answers)))
    rows = [Encoded(example.id, tuple(prompt + answer), len(prompt)) for answer in answers]
    return torch.stack([model_logprobs(model, collate([row], base.device)).mean() for row in rows])


@pytest.mark.parametrize("token_budget", [64, 4096])
def test_labels_of_an_untouched_model_are_scored_as_by_whole_forwards(base: Base, token_budget: int) -> None:
    examples = of_many_lengths(make_examples(9, "test"))
    examples[3] = replace(examples[3], labels=("red", "redder than red", "x"), answer="x")
    options = {"max_length": 100, "token_budget": token_budget, "length_normalised": True}
    plain = plain_model(base)
    for found in (score_labels(base, examples, **options), score_labels(tuned_base(base, plain), examples, **options)):
        for example, scores in zip(examples, found, strict=True):
            torch.testing.assert_close(scores, whole_scores(plain, base, example, 100), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", TRAINED)
def test_labels_of_a_trained_baseline_are_scored_as_by_whole_forwards(any_base: Base, name: str) -> None:
    base = any_base
    tuning = Tuning(base, make_examples(6, "adaptation"), settings_of(name), 256, 1024)
    model = tuning.fit(tuning.items, 0.02, 1)[0].eval()
    examples = of_many_lengths(make_examples(4, "test"))
    examples[1] = replace(examples[1], labels=("red", "redder than red", "x"), answer="x")
    tuned, options = tuned_base(base, model), {"max_length": 100, "token_budget": 256, "length_normalised": True}
    for asked in (examples, examples[:1]):  # a single prompt has no prefix in common with another
        for example, scores in zip(asked, score_labels(tuned, asked, **options), strict=True):
            torch.testing.assert_close(scores, whole_scores(model, base, example, 100), atol=1e-4, rtol=0)
    assert base.prefix_kv is None
    assert base.model is not tuned.model


def test_the_loss_is_that_of_transformers_labels(base: Base) -> None:
    model = plain_model(base)
    batch = collate([encode(e, base.tokenizer, 256) for e in make_examples(5)], base.device)
    labels = batch.ids.masked_fill(~batch.answer, -100)
    expected = model(input_ids=batch.ids, labels=labels).loss
    torch.testing.assert_close(-model_logprobs(model, batch).mean(), expected)


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_baseline_learns_and_leaves_the_base_unchanged(base: Base, name: str) -> None:
    before, global_state = state_of(base), torch.get_rng_state()
    rate = 0.3 if name == "prompt_tuning" else 0.02
    settings = settings_of(name, learning_rates=(rate,), epochs=4)
    adaptation, test = make_examples(24, "adaptation"), make_examples(5, "test")
    predictions, record = baseline_predictions(base, TASK, adaptation, test, settings, EVALUATION)
    assert state_of(base) == before
    assert torch.equal(torch.get_rng_state(), global_state)
    trial = record["trials"][0]
    assert min(trial["val_losses"][1:]) < trial["val_losses"][0]
    assert trial["losses"][-1] < trial["losses"][0]
    assert record["epochs"] == trial["val_losses"].index(min(trial["val_losses"][1:]))
    assert record["tunable_parameters"] > 0
    assert record["adaptation_examples"] == 24
    assert [p["id"] for p in predictions] == [e.id for e in test]
    original = predictions_of("multiple_choice", Answerer(base, EVALUATION), test)
    assert [(p["id"], p["gold"]) for p in predictions] == [(p["id"], p["gold"]) for p in original]
    assert predictions != original
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("name", TRAINED)
def test_batched_answers_equal_the_full_forward_of_each_single_row(any_base: Base, name: str) -> None:
    base = any_base
    examples = of_many_lengths(make_examples(3, "adaptation"))
    tuning = Tuning(base, examples, settings_of(name), 256, 1024)
    model = tuning.fit(tuning.items, 0.01, 1)[0].eval()
    found = model_logprobs(model, collate(tuning.items, base.device))
    expected = []
    for item in tuning.items:
        logits = model(input_ids=torch.tensor([item.tokens])).logits[0, -len(item.tokens) :]
        logprobs = logits.log_softmax(-1)
        expected += [logprobs[i - 1, item.tokens[i]] for i in range(item.answer_start, len(item.tokens))]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("lora", "full") else pytest.mark.slow) for name in TRAINED]
)
def test_a_base_in_bfloat16_learns_and_is_read_too(base: Base, name: str) -> None:
    base.dtype = torch.bfloat16
    settings = settings_of(name, learning_rates=(0.3 if name == "prompt_tuning" else 0.02,), epochs=4)
    tuning = Tuning(base, make_examples(24, "adaptation"), settings, 256, 1024)
    model, record = tuning.learn(tuning.choose())
    (trial,) = record["trials"]
    assert trial["losses"][-1] < trial["losses"][0]
    assert min(trial["val_losses"][1:]) < trial["val_losses"][0]
    test, tuned = make_examples(4, "test"), tuned_base(base, model)
    assert tuned.dtype == (torch.float32 if name == "full" else torch.bfloat16)
    scores = score_labels(tuned, test, max_length=100, token_budget=1024, length_normalised=True)
    for example, own in zip(test, scores, strict=True):
        torch.testing.assert_close(own, whole_scores(model, base, example, 100), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("prompt_tuning", 4 * 32),
        ("prefix_tuning", 4 * 2 * 2 * 16),  # tokens, layers, keys and values, 2 heads of 8
        ("lora", 2 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))),  # layers, rank, d_in + d_out of 7 matrices
        ("ia3", 2 * (16 + 16 + 48)),
        ("full", None),
    ],
)
def test_exactly_the_baselines_parameters_are_trained_in_float32(base: Base, name: str, count: int | None) -> None:
    base.dtype = torch.bfloat16
    model = Tuning(base, make_examples(4, "adaptation"), settings_of(name), 256, 1024).fresh()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    expected = sum(p.numel() for p in model.parameters()) if count is None else count
    assert sum(p.numel() for p in trained) == expected


def test_the_same_seed_gives_the_same_predictions_and_another_does_not(base: Base) -> None:
    adaptation, test = make_examples(8, "adaptation"), make_examples(3, "test")

    def run(seed: int, given: list[Example]) -> object:
        return baseline_predictions(base, TASK, given, test, settings_of("lora", seed=seed, shots=6), EVALUATION)[0]

    assert run(1, adaptation) == run(1, adaptation[::-1])
    assert run(1, adaptation) != run(2, adaptation)


def test_every_rate_is_a_trial_and_the_lowest_held_out_loss_wins(base: Base) -> None:
    settings = settings_of("lora", learning_rates=(1e-6, 2e-2, 1e-5), epochs=2)
    tuning = Tuning(base, make_examples(12, "adaptation"), settings, 256, 1024)
    _, record = tuning.learn(tuning.choose())
    assert [trial["learning_rate"] for trial in record["trials"]] == [1e-6, 2e-2, 1e-5]
    assert record["learning_rate"] == 2e-2
    assert len({trial["val_losses"][0] for trial in record["trials"]}) == 1  # every trial starts afresh


def test_the_search_sees_adaptation_examples_only_and_judges_on_none_it_learns_from(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[set[str]] = []
    whole = Tuning._batch
    monkeypatch.setattr(
        Tuning, "_batch", lambda self, items, group: met.append({items[i].id for i in group}) or whole(self, items, group)
    )
    adaptation, test = make_examples(10, "adaptation"), make_examples(4, "test")
    _, record = baseline_predictions(base, TASK, adaptation, test, settings_of("ia3", epochs=1), EVALUATION)
    ids, held = {example.id for example in adaptation}, met[0]
    assert record["validation_examples"] == len(held) == 2
    assert not any(name in json.dumps(record) for name in ids)  # may be numbers of stays
    assert set().union(*met) == ids
    judging, learning, refitting = met[:1], met[1:3], met[3:]
    assert judging == [held]
    assert set().union(*learning) == ids - held
    assert set().union(*refitting) == ids


@pytest.mark.parametrize("name", ["lora", "in_context"])
def test_test_examples_are_refused(base: Base, name: str) -> None:
    given = [*make_examples(4, "adaptation"), *make_examples(1, "test")]
    with pytest.raises(TestLeak, match="test-0"):
        baseline_predictions(base, TASK, given, make_examples(2, "test"), settings_of(name), EVALUATION)


def test_a_test_example_does_not_reach_the_loop_by_itself_either(base: Base) -> None:
    with pytest.raises(TestLeak):
        Tuning(base, make_examples(3, "test"), settings_of("lora"), 256, 1024)


def test_rates_that_diverge_are_logged_and_lose(base: Base) -> None:
    tuning = Tuning(base, make_examples(6, "adaptation"), settings_of("full", learning_rates=(1e30, 1e-3)), 256, 1024)
    _, record = tuning.learn(tuning.choose())
    assert [trial["stop_reason"] for trial in record["trials"]] == ["diverged", "epochs"]
    assert record["learning_rate"] == 1e-3
    json.dumps(record, allow_nan=False)


def test_when_every_rate_diverges_the_message_says_what_to_do(base: Base) -> None:
    tuning = Tuning(base, make_examples(6, "adaptation"), settings_of("full", learning_rates=(1e30,)), 256, 1024)
    with pytest.raises(TrainingFailed, match=r"baseline full.*1e\+30.*lower"):
        tuning.choose()


def test_one_example_is_too_few(base: Base) -> None:
    with pytest.raises(ConfigError, match="Give at least 2"):
        Tuning(base, make_examples(1, "adaptation"), settings_of("lora"), 256, 1024)


def test_without_peft_the_message_says_how_to_get_it(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    adaptation, test = make_examples(4, "adaptation"), make_examples(2, "test")
    for name in set(TRAINED) - {"full"}:
        with pytest.raises(MissingData, match=r"pip install 'staf-llm\[bench\]'"):
            baseline_predictions(base, TASK, adaptation, test, settings_of(name), EVALUATION)
    predictions, _ = baseline_predictions(base, TASK, adaptation, test, settings_of("full", epochs=1), EVALUATION)
    assert len(predictions) == 2


def test_examples_without_labels_are_refused(base: Base) -> None:
    free = [replace(make_examples(1, "test")[0], labels=())]
    with pytest.raises(BadData, match="test-0 has no labels"):
        with_shots(free, make_examples(1, "adaptation"), base.tokenizer, 256)


def test_shots_come_before_the_query_in_its_own_format(base: Base) -> None:
    shots, (asked,) = make_examples(2, "adaptation"), make_examples(1, "test")
    (changed,) = with_shots([asked], shots, base.tokenizer, 1000).examples
    expected = "".join(f"{prompt_of(s.query, s.context)} {s.answer}\n\n" for s in shots) + prompt_of(asked.query, asked.context)
    assert prompt_of(changed.query, changed.context) == expected
    assert replace(changed, query=asked.query) == asked


def test_shots_that_do_not_fit_are_cut_and_counted(base: Base) -> None:
    shots, asked = make_examples(5, "adaptation"), make_examples(3, "test")
    asked[2] = replace(asked[2], context="word " * 60)
    one = len(base.tokenizer(prompt_of(asked[0].query, asked[0].context))["input_ids"])
    shown = with_shots(asked, shots, base.tokenizer, 4 * one)
    assert shown.counts[0] == 2
    assert shown.counts[2] == 0
    assert shown.examples[2] == asked[2]  # its own context is cut for no shot
    record = shown.record
    assert record["shots_cut"] == 15 - sum(shown.counts)
    assert record["queries_with_shots_cut"] == 3
    assert record["queries_without_shots"] == 1
    longest = max(len(base.tokenizer(" " + label)["input_ids"]) for label in asked[0].labels)
    assert max(shown.tokens[:2]) <= 4 * one - longest


@pytest.mark.parametrize("reserved", [0, 20])
def test_the_tokens_of_a_prompt_are_those_that_are_read_after_cutting(base: Base, reserved: int) -> None:
    asked = make_examples(2, "test")
    asked[1] = replace(asked[1], context="word " * 60)
    longest = max(len(base.tokenizer(" " + label)["input_ids"]) for label in asked[1].labels)
    limit = 150 - (reserved or longest)
    shown = with_shots(asked, make_examples(3, "adaptation"), base.tokenizer, 150, reserved)
    assert shown.counts[1] == 0
    assert shown.tokens[1] == len(encode_prompt(asked[1], base.tokenizer, limit)) <= limit
    assert shown.record["prompt_tokens_mean"] <= limit


def test_a_shot_that_is_too_long_is_passed_over(base: Base) -> None:
    shots, asked = make_examples(3, "adaptation"), make_examples(1, "test")
    shots[0] = replace(shots[0], context="word " * 200)
    shown = with_shots(asked, shots, base.tokenizer, 400)
    assert shown.counts == (2,)
    assert "word word" not in shown.examples[0].query


def test_in_context_learning_scores_the_prompts_with_shots(base: Base) -> None:
    adaptation, test = make_examples(6, "adaptation"), make_examples(4, "test")
    before = state_of(base)
    evaluation = EvaluationSettings(max_length=260, token_budget=1024)
    predictions, record = baseline_predictions(
        base, TASK, adaptation, test, settings_of("in_context", shots=4, max_prompt_tokens=260), evaluation
    )
    assert state_of(base) == before
    assert record["shots"] == 4
    assert record["shots_shown_most"] < 4
    assert record["shots_cut"] > 0
    assert record["tunable_parameters"] == 0
    assert record["prompt_tokens_mean"] > 100
    assert [p["id"] for p in predictions] == [e.id for e in test]
    assert predictions != predictions_of("multiple_choice", Answerer(base, evaluation), test)
    again, _ = baseline_predictions(
        base, TASK, adaptation[::-1], test, settings_of("in_context", shots=4, max_prompt_tokens=260), evaluation
    )
    assert again == predictions
