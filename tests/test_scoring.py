"""Scores and losses against the plain full forward, one answer at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import make_examples

from staf.data.batches import by_length, collate, encode, encode_answer, encode_prompt, epoch_order, shared_prefix
from staf.data.example import Example, prompt_of
from staf.errors import BadData, ConfigError
from staf.experts.store import ExpertSet
from staf.lm.attention import plain_attention
from staf.lm.base import Base
from staf.lm.loss import answer_loss, mean_loss
from staf.lm.scoring import score_labels
from staf.routing.mixture import Mixture


def full_forward(base: Base, prompt: list[int], answer: list[int]) -> float:
    """Log p(answer | prompt) from one plain forward over both."""
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        logits = base.model(input_ids=ids, use_cache=False).logits[0].float()
    log_chances = torch.log_softmax(logits, -1)
    return sum(float(log_chances[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))


@pytest.mark.parametrize("token_budget", [64, 400, 4096])
def test_scores_equal_the_full_forward_for_every_label(base: Base, experts: ExpertSet, token_budget: int) -> None:
    examples = make_examples(9)
    examples[4] = replace(examples[4], labels=("blue", "a much longer label", "x"), context="something else, and longer")
    mixture = Mixture(base, experts)
    mixture.set_weights(torch.tensor([[0.5, 0.2, 0.9]]))
    scores = score_labels(base, examples, max_tokens=200, token_budget=token_budget, length_normalised=False)
    for example, found in zip(examples, scores, strict=True):
        prompt = encode_prompt(example, base.tokenizer, 200)
        for label, score in zip(example.labels, found, strict=True):
            assert score.item() == pytest.approx(full_forward(base, prompt, encode_answer(label, base.tokenizer)), abs=1e-4)


def test_normalised_scores_are_the_mean_over_tokens(base: Base) -> None:
    examples = make_examples(3)
    options = {"max_tokens": 200, "token_budget": 4096}
    plain = score_labels(base, examples, length_normalised=False, **options)
    mean = score_labels(base, examples, length_normalised=True, **options)
    lengths = torch.tensor([len(encode_answer(label, base.tokenizer)) for label in examples[0].labels])
    for one, other in zip(plain, mean, strict=True):
        assert torch.allclose(one / lengths, other)


def test_a_free_text_example_is_refused(base: Base) -> None:
    with pytest.raises(BadData, match="train-0 has no labels"):
        score_labels(base, [replace(make_examples(1)[0], labels=())], max_tokens=99, token_budget=99, length_normalised=True)


def test_the_loss_is_that_of_the_answer_and_end_tokens_alone(base: Base) -> None:
    items = [encode(example, base.tokenizer, 200) for example in make_examples(5)]
    expected, count = 0.0, 0
    for item in items:
        prompt, answer = list(item.tokens[: item.answer_start]), list(item.tokens[item.answer_start :])
        expected -= full_forward(base, prompt, answer)
        count += len(answer)
    batch = collate(items, 0, base.device)
    assert batch.shared > 16  # the query is common to all
    loss, tokens = answer_loss(base, batch)
    assert tokens == count
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    apart = mean_loss(base, [collate([item], 0, base.device) for item in items])
    assert apart == pytest.approx(expected / count, rel=1e-5)


def test_gradients_flow_through_the_shared_beginning(base: Base, experts: ExpertSet) -> None:
    items = [encode(example, base.tokenizer, 200) for example in make_examples(4)]
    mixture = Mixture(base, experts)
    grads = []
    for shared in (True, False):
        batch = collate(items, 0, base.device)
        batch = batch if shared else replace(batch, shared=0)
        weights = torch.full((1, 3), 0.4, requires_grad=True)
        mixture.set_weights(weights)
        answer_loss(base, batch)[0].backward()
        grads.append(weights.grad)
    assert torch.allclose(grads[0], grads[1], rtol=1e-4, atol=1e-5)


def test_plain_attention_equals_torch() -> None:
    torch.manual_seed(0)
    for seen in (5, 9):
        query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 2, seen, 8), torch.randn(2, 2, seen, 8)
        mask = torch.ones(5, seen, dtype=torch.bool).tril(seen - 5)
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
        for given in (None, mask[None, None]):
            assert torch.allclose(plain_attention(query, key, value, given, None).transpose(1, 2), expected, atol=1e-6)


def test_a_context_that_is_too_long_loses_its_end_and_the_query_nothing(base: Base) -> None:
    example = replace(make_examples(1)[0], context="abc " * 200)
    tokens = encode_prompt(example, base.tokenizer, 120)
    text = base.tokenizer.decode(tokens)
    assert 100 <= len(tokens) <= 120
    assert text.startswith(f"Query: {example.query}\nContext: abc abc")
    assert text.endswith("\nAnswer:")
    item = encode(example, base.tokenizer, 120)
    assert base.tokenizer.decode(item.tokens[item.answer_start :]) == " blue<end>"


def test_a_query_that_does_not_fit_is_an_error(base: Base) -> None:
    with pytest.raises(ConfigError, match=r"its query takes .* tokens without any context, 20 are allowed"):
        encode_prompt(make_examples(1)[0], base.tokenizer, 20)


def test_the_prompt_is_query_context_answer() -> None:
    assert prompt_of("Q?", "C") == "Query: Q?\nContext: C\nAnswer:"
    assert prompt_of("Q?", "") == "Query: Q?\nAnswer:"


def test_an_epoch_holds_every_example_once_and_differs_from_the_next() -> None:
    lengths = [i % 13 for i in range(100)]
    first, again, second = (epoch_order(lengths, 8, 3, epoch) for epoch in (0, 0, 1))
    assert sorted(i for batch in first for i in batch) == list(range(100))
    assert first == again
    assert first != second


def test_batches_keep_to_the_token_budget() -> None:
    batches = by_length([5, 50, 7, 500, 6], 60)
    assert sorted(i for batch in batches for i in batch) == [0, 1, 2, 3, 4]
    assert batches == [[0, 4, 2], [1], [3]]


def test_shared_beginnings_are_found_and_short_ones_ignored() -> None:
    rows = [tuple(range(20)) + (i,) for i in (7, 8)]
    assert shared_prefix(rows, 99) == 20
    assert shared_prefix(rows, 18) == 18
    assert shared_prefix(rows, 10) == 0
    assert shared_prefix(rows[:1], 99) == 0


def test_an_example_is_what_its_reader_made() -> None:
    assert isinstance(make_examples(1)[0], Example)
