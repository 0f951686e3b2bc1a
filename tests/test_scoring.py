"""Scores and losses against the plain full forward, one answer at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, other_base
from conftest import make_examples, mean_loss, random_expert
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from staf.data.example import Example, prompt_of
from staf.errors import BadData, ConfigError
from staf.experts.store import ExpertSet
from staf.lm import loss, scoring
from staf.lm.base import Base
from staf.lm.batches import (
    FORWARD_COST,
    collate,
    common_prefix_length,
    encode,
    encode_answer,
    encode_prompt,
    epoch_order,
    plan_batches,
    round_up,
)
from staf.lm.loss import answer_loss
from staf.lm.prefix_attention import prefix_attention
from staf.lm.prefix_cache import PrefilledBatch
from staf.lm.scoring import ScoringRequest, Trie, build_choices, build_tries, score_batch, score_labels
from staf.routing.merge import Mixture


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
    scores = score_labels(base, examples, max_length=200, token_budget=token_budget, length_normalised=False)
    for example, found in zip(examples, scores, strict=True):
        prompt = encode_prompt(example, base.tokenizer, 200)
        for label, score in zip(example.labels, found, strict=True):
            assert score.item() == pytest.approx(full_forward(base, prompt, encode_answer(label, base.tokenizer)), abs=1e-4)


def random_tokens(seed: int, *lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 200, (length,), generator=generator).tolist() for length in lengths]


BRANCHES = ((7,), (7, 8), (7, 8, 9, 10), (7, 8, 9, 11), (12,), (13, 14, 15), (7, 8))
"""A single token, prefixes of others, and one answer twice."""


def assert_scores_equal_full_forwards(base: Base, questions: Sequence[ScoringRequest], answers: Sequence[Any]) -> None:
    for question, own, found in zip(questions, answers, score_batch(base, questions), strict=True):
        expected = [full_forward(base, list(question.prompt), list(answer)) for answer in own]
        assert found.dtype == torch.float32
        assert found.tolist() == pytest.approx(expected, abs=1e-4)


def mixed_questions() -> tuple[list[ScoringRequest], list[Any]]:
    """PrefilledBatch of very different length, each with other answers; one has a single answer of one token."""
    prompts = random_tokens(1, 5, 70, 33, 6, 41)
    answers = [BRANCHES, ((20,),), BRANCHES[::-1], ((5, 6, 7, 8, 9, 10, 11), (5, 6)), BRANCHES]
    return [ScoringRequest(tuple(p), build_choices(a)) for p, a in zip(prompts, answers, strict=True)], answers


def test_a_tree_of_answers_gives_what_each_single_answer_gives(base: Base, experts: ExpertSet) -> None:
    Mixture(base, experts).set_weights(torch.tensor([[0.5, 0.2, 0.9]]))
    assert_scores_equal_full_forwards(base, *mixed_questions())


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_other_architectures_and_windows_of_attention_too(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    base = other_base(kind, tiny_folder, tmp_path)
    experts = ExpertSet((random_expert(base, "one", 1), random_expert(base, "two", 2)))
    Mixture(base, experts).set_weights(torch.tensor([[0.7, 0.4]]))
    assert_scores_equal_full_forwards(base, *mixed_questions())
    examples = make_examples(6)
    scores = score_labels(base, examples, max_length=200, token_budget=400, length_normalised=False)
    prompt = encode_prompt(examples[5], base.tokenizer, 200)
    expected = [full_forward(base, prompt, encode_answer(label, base.tokenizer)) for label in examples[5].labels]
    assert scores[5].tolist() == pytest.approx(expected, abs=1e-4)


def test_many_answers_become_several_trees_and_change_nothing(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "NODES", 4)
    monkeypatch.setattr(scoring, "LOGIT_ROWS", 3)
    questions, answers = mixed_questions()
    assert [len(question.choices.trees) for question in questions] == [2, 1, 2, 2, 2]
    assert_scores_equal_full_forwards(base, questions, answers)


def test_prompts_and_nodes_are_computed_once_and_no_prompt_sees_an_answer(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost that the design promises, counted: tokens through the model, the size of masks, and rows of logits."""
    tokens, masks, rows = [], [], []
    decoder, logits, mask = base.model.get_decoder(), base.logits, PrefilledBatch._mask
    decoder.register_forward_pre_hook(lambda _, __, given: tokens.append(given["input_ids"].numel()), with_kwargs=True)
    monkeypatch.setattr(base, "logits", lambda hidden: rows.append(len(hidden)) or logits(hidden))
    monkeypatch.setattr(PrefilledBatch, "_mask", lambda *given: masks.append(mask(*given)) or masks[-1])
    (prompt,) = random_tokens(3, 400)
    labels = [(first, 20 + second, 40, 50, 60) for first in range(5) for second in range(10)]
    score_batch(base, [ScoringRequest(tuple(prompt), build_choices(labels))])
    inner = 5 + 50 * 3  # first tokens are shared, last ones only predicted
    assert tokens == [400, 160]  # padded to 16
    assert [tuple(m.shape) for m in masks] == [(1, 1, 160, 560)]
    assert sum(rows) == 1 + inner


def test_what_all_prompts_begin_with_is_computed_once_for_all_batches(base: Base) -> None:
    sizes = []
    base.model.get_decoder().register_forward_pre_hook(
        lambda _, __, given: sizes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    examples = make_examples(12)
    score_labels(base, examples, max_length=200, token_budget=200, length_normalised=False)
    query = len("Query: Name the colour: blue, green or red.\nContext: ")
    assert sizes.count((1, query)) == 1
    assert all(width < query for _, width in sizes[1:])


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 90)), max_size=7), st.integers(1, 900))
def test_batches_hold_every_prompt_once_within_the_budget_at_the_least_cost(sizes: list[tuple[int, int]], budget: int) -> None:
    def positions(batch: Sequence[int]) -> int:
        return len(batch) * sum(round_up(max(sizes[i][part] for i in batch)) for part in (0, 1))

    def cost(cut: Sequence[Sequence[int]]) -> int:
        return sum(positions(batch) + FORWARD_COST for batch in cut)

    found = plan_batches([size for size, _ in sizes], budget, extra=[extra for _, extra in sizes])
    order = sorted(range(len(sizes)), key=lambda i: (sum(sizes[i]), i))
    assert [i for batch in found for i in batch] == order
    cuts = []
    for bits in range(2 ** max(len(sizes) - 1, 0)):
        edges = [0, *(i + 1 for i in range(len(sizes) - 1) if bits >> i & 1), len(sizes)]
        cut = [order[a:b] for a, b in pairwise(edges) if a < b]
        if all(len(batch) == 1 or positions(batch) <= budget for batch in cut):
            cuts.append(cost(cut))
    assert cost(found) == min(cuts)


def test_no_examples_have_no_scores(base: Base) -> None:
    assert score_labels(base, [], max_length=9, token_budget=9, length_normalised=True) == []


answers_of_tokens = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=12)


def words_of(tree: Trie) -> dict[int, tuple[int, ...]]:
    """The answers of a tree by their index, read back from what it predicts; each token follows the node of those before it."""
    nodes = {0: ()}
    for node, row in enumerate(tree.ancestors, 1):
        nodes[node] = tuple(tree.tokens[row].tolist())
    found: dict[int, tuple[int, ...]] = {}
    for answer, node, token in tree.predicted.T.tolist():
        assert nodes[node] == found.get(answer, ())
        found[answer] = (*nodes[node], token)
    return found


@given(answers_of_tokens)
def test_a_tree_has_each_beginning_once_and_leads_to_every_answer(answers: list[list[int]]) -> None:
    (tree,) = build_tries(answers, 1000)
    words = [tuple(answer) for answer in answers]
    proper = {word[:length] for word in words for length in range(1, len(word))}
    assert words_of(tree) == dict(enumerate(words))
    assert {tuple(tree.tokens[row].tolist()) for row in tree.ancestors} == proper
    assert len(tree.tokens) == len(proper)
    assert tree.depths.tolist() == tree.ancestors.sum(1).tolist()
    assert not tree.ancestors.triu(1).any()  # each after its own prefixes


@given(answers_of_tokens, st.integers(1, 8))
def test_a_forest_holds_every_answer_once_in_trees_of_bounded_size(answers: list[list[int]], limit: int) -> None:
    trees = build_tries(answers, limit)
    found = [words_of(tree) for tree in trees]
    assert sorted(number for words in found for number in words) == list(range(len(answers)))
    for words, tree in zip(found, trees, strict=True):
        assert words == {number: tuple(answers[number]) for number in words}
        assert len(tree.tokens) <= limit or len(set(words.values())) == 1


def test_normalised_scores_are_the_mean_over_tokens(base: Base) -> None:
    examples = make_examples(3)
    options = {"max_length": 200, "token_budget": 4096}
    plain = score_labels(base, examples, length_normalised=False, **options)
    mean = score_labels(base, examples, length_normalised=True, **options)
    lengths = torch.tensor([len(encode_answer(label, base.tokenizer)) for label in examples[0].labels])
    for one, other in zip(plain, mean, strict=True):
        assert torch.allclose(one / lengths, other)


def test_a_free_text_example_is_refused(base: Base) -> None:
    with pytest.raises(BadData, match="train-0 has no labels"):
        score_labels(base, [replace(make_examples(1)[0], labels=())], max_length=99, token_budget=99, length_normalised=True)


def test_the_loss_is_that_of_only_the_answer_and_end_tokens(base: Base) -> None:
    items = [encode(example, base.tokenizer, 200) for example in make_examples(5)]
    expected, count = 0.0, 0
    for item in items:
        prompt, answer = list(item.tokens[: item.answer_start]), list(item.tokens[item.answer_start :])
        expected -= full_forward(base, prompt, answer)
        count += len(answer)
    batch = collate(items, base.device)
    assert batch.prefix_length > 16  # the query is common to all
    loss, tokens = answer_loss(base, batch)
    assert tokens == count
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    apart = mean_loss(base, [collate([item], base.device) for item in items])
    assert apart == pytest.approx(expected / count, rel=1e-5)


def test_gradients_flow_through_the_shared_beginning(base: Base, experts: ExpertSet) -> None:
    items = [encode(example, base.tokenizer, 200) for example in make_examples(4)]
    mixture = Mixture(base, experts)
    grads = []
    for shared in (True, False):
        batch = collate(items, base.device)
        batch = batch if shared else replace(batch, prefix_length=0)
        weights = torch.full((1, 3), 0.4, requires_grad=True)
        mixture.set_weights(weights)
        answer_loss(base, batch)[0].backward()
        grads.append(weights.grad)
    assert torch.allclose(grads[0], grads[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("tokens", [1, 5])
def test_attention_after_one_copy_of_a_beginning_is_that_after_a_copy_each(
    tokens: int, dtype: torch.dtype, tolerance: float
) -> None:
    chance = torch.Generator().manual_seed(tokens)
    query, key, value = (torch.randn(3, heads, tokens, 8, generator=chance) * 2 for heads in (4, 2, 2))
    keys, values = (torch.randn(1, 2, 7, 8, generator=chance) * 2 for _ in range(2))
    query, key, value, keys, values = (part.to(dtype) for part in (query, key, value, keys, values))
    whole = [torch.cat([first.expand(3, -1, -1, -1), own], dim=2) for first, own in ((keys, key), (values, value))]
    q, k, v = query.float(), *(part.float() for part in whole)
    causal = torch.ones(tokens, 7 + tokens, dtype=torch.bool).tril(7)
    expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=causal, enable_gqa=True, scale=0.3).transpose(1, 2)
    hidden = torch.full((3, 1, tokens, tokens), torch.finfo(dtype).min, dtype=dtype).triu_(1)
    for mask in (None, hidden):
        found = prefix_attention(query, key, value, mask, keys, values, 0.3)
        assert found.dtype == dtype
        assert torch.allclose(found.float(), expected, atol=tolerance)


def test_the_model_attends_the_same_with_our_attention_and_torchs(base: Base) -> None:
    ids = torch.randint(5, 40, (3, 12))
    seen = torch.ones(3, 12, dtype=torch.long)
    seen[1, :4] = 0  # padded on the left
    found = []
    for name in ("staf", "sdpa"):
        base.model.set_attn_implementation(name)
        with torch.no_grad():
            found.append(base.model(input_ids=ids, attention_mask=seen).logits[seen.bool()])
    base.model.set_attn_implementation("staf")
    assert torch.allclose(found[0], found[1], atol=1e-5)


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
    batches = plan_batches([5, 50, 7, 500, 6], 60)
    assert sorted(i for batch in batches for i in batch) == [0, 1, 2, 3, 4]
    assert batches == [[0, 4, 2], [1], [3]]


def test_shared_prefixes_are_found_and_short_ones_ignored() -> None:
    rows = [tuple(range(20)) + (i,) for i in (7, 8)]
    assert common_prefix_length(rows, 99) == 20
    assert common_prefix_length(rows, 18) == 18
    assert common_prefix_length(rows, 10) == 0
    assert common_prefix_length(rows[:1], 99) == 0


def test_an_example_is_what_its_reader_made() -> None:
    assert isinstance(make_examples(1)[0], Example)


def test_a_truncated_answer_has_no_end_token(base: Base) -> None:
    example = replace(make_examples(1)[0], answer="a very long answer " * 20)
    whole = encode_answer(example.answer, base.tokenizer)
    item = encode(example, base.tokenizer, 200)
    assert item.tokens[item.answer_start :] == tuple(whole[:100])
    short = encode(make_examples(1)[0], base.tokenizer, 200)
    assert short.tokens[-1] == base.tokenizer.eos_token_id


def test_an_answer_that_the_tokenizer_merges_with_its_lead_gets_its_own_tokens() -> None:
    def merging(text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": {"Answer:": [1, 2], "Answer: yes": [1, 7], " yes": [9], "Answer: no": [1, 2, 8]}[text]}

    assert encode_answer("yes", merging) == [9]
    assert encode_answer("no", merging) == [8]


def test_chunks_of_logits_change_neither_loss_nor_gradients(
    base: Base, experts: ExpertSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = collate([encode(example, base.tokenizer, 200) for example in make_examples(6)], base.device)
    mixture, found = Mixture(base, experts), []
    for rows in (1024, 4):
        monkeypatch.setattr(loss, "LOGIT_ROWS", rows)
        weights = torch.tensor([[0.5, 0.2, 0.9]], requires_grad=True)
        mixture.set_weights(weights)
        total, _ = answer_loss(base, batch)
        total.backward()
        found.append((total.detach(), weights.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_training_in_float16_is_refused(base: Base) -> None:
    batch = collate([encode(make_examples(1)[0], base.tokenizer, 200)], base.device)
    with pytest.raises(ConfigError, match="float16 needs loss scaling"):
        answer_loss(replace(base, dtype=torch.float16), batch)
