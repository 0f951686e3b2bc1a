"""Prompts as a tree of common prefixes: shared tokens are computed once, and no result changes by it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, other_base
from conftest import random_expert
from hypothesis import given
from hypothesis import strategies as st
from test_generation import free, plain_loop
from test_scoring import BRANCHES, full_forward, random_tokens

from staf.experts.store import ExpertSet
from staf.lm import prefix_cache
from staf.lm.base import Base
from staf.lm.generation import greedy_decode
from staf.lm.prefix_cache import PREFIX_COST, PrefixNode, build_prefix_tree, prefill, prefix_batches
from staf.lm.scoring import ScoringRequest, build_choices, loglikelihoods
from staf.routing.merge import Mixture

ROOM = 1 << 20


def walk(branch: PrefixNode) -> Iterator[tuple[int, PrefixNode]]:
    """Every branch below one, with the tokens of the one before it."""
    for further in branch.children:
        yield len(branch.tokens), further
        yield from walk(further)


def computed(branch: PrefixNode, prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that go through the model."""
    total, stack = 0, [branch]
    while stack:
        node = stack.pop()
        total += sum(len(prompts[i]) - len(node.tokens) for i in node.prompts)
        total += sum(len(child.tokens) - len(node.tokens) for child in node.children)
        stack += node.children
    return total


def leave_one_out(shots: int, tokens: int, queries: int) -> list[list[int]]:
    """Prompts of in-context learning: those whose query is a shot leave it out, the others have all shots."""
    shown, own = random_tokens(1, *[tokens] * shots), random_tokens(2, *[20] * queries)
    kept = [[shot for j, shot in enumerate(shown) if j != i] for i in range(queries)]
    return [[token for part in (*some, query) for token in part] for some, query in zip(kept, own, strict=True)]


def cost(branch: PrefixNode, prompts: Sequence[Sequence[int]], price: int) -> int:
    """Tokens that go through the model, and the price of every prefix."""
    return computed(branch, prompts) + price * len(list(walk(branch)))


words = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=6)


@given(words, st.integers(0, 5))
def test_the_tree_holds_every_prompt_and_costs_no_more_than_single_prompts(prompts: list[list[int]], price: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_cache, "PREFIX_COST", price)
        root = build_prefix_tree(prompts)
    branches = [(0, root), *walk(root)]
    assert sorted(i for _, branch in branches for i in branch.prompts) == list(range(len(prompts)))
    for before, branch in branches:
        first = list(branch.tokens)
        assert len(first) == len(branch.tokens) >= before
        assert all(prompts[i][: len(branch.tokens)] == first and len(prompts[i]) > len(branch.tokens) for i in branch.prompts)
        assert all(len(further.tokens) > len(branch.tokens) for further in branch.children)
        assert all(list(further.tokens[: len(branch.tokens)]) == first for further in branch.children)
    shorter = [prompt[:-1] for prompt in prompts]  # the last token is never part of a prefix
    assert cost(root, shorter, price) <= sum(map(len, shorter))


def test_a_prefix_is_computed_where_it_saves_more_than_it_costs() -> None:
    shared, (one, two, three) = random_tokens(3, 400)[0], random_tokens(4, 9, 9, 9)
    enough = PREFIX_COST + 1
    for length, branches in ((enough, 1), (enough - 1, 0)):
        root = build_prefix_tree([shared[:length] + one, shared[:length] + two])
        assert [len(branch.tokens) for branch in root.children] == [length] * branches
    tree = build_prefix_tree([one, two, three, shared])
    assert (sorted(tree.prompts), tree.children) == ([0, 1, 2, 3], [])


def test_a_thousand_nested_prefixes_are_not_too_deep() -> None:
    long = random_tokens(3, 3000)[0]
    root = build_prefix_tree([long[:length] for length in range(3, 3000, 3)])
    assert computed(root, [long[:length] for length in range(3, 3000, 3)]) < 300_000


def test_prompts_that_leave_out_a_shot_share_those_before_it(base: Base) -> None:
    prompts = leave_one_out(shots=6, tokens=300, queries=7)
    root = build_prefix_tree(prompts)
    assert [len(branch.tokens) for _, branch in walk(root)] == [300, 600, 900, 1200, 1500]
    sizes: list[int] = []
    base.model.get_decoder().register_forward_pre_hook(
        lambda _, __, given: sizes.append(given["input_ids"].numel()), with_kwargs=True
    )
    questions = [ScoringRequest(tuple(prompt), build_choices([(7,), (8,)])) for prompt in prompts]
    loglikelihoods(base, questions, token_budget=ROOM, length_normalised=False)
    assert sum(sizes) < 0.75 * sum(map(len, prompts))
    assert sum(sizes) < computed(root, prompts) + 16 * len(prompts)


@pytest.fixture(params=["llama", *ARCHITECTURES])
def routed(request: pytest.FixtureRequest, base: Base, tiny_folder: Path, tmp_path: Path) -> Base:
    """A base of each kind of model, with experts."""
    found = base if request.param == "llama" else other_base(request.param, tiny_folder, tmp_path)
    Mixture(found, ExpertSet((random_expert(found, "one", 1), random_expert(found, "two", 2)))).set_weights(
        torch.tensor([[0.7, 0.4]])
    )
    return found


@pytest.mark.parametrize("token_budget", [64, ROOM])
def test_scores_and_answers_are_those_of_each_single_prompt(
    routed: Base, token_budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "PREFIX_COST", 8)
    prompts = [*leave_one_out(shots=4, tokens=14, queries=6), *random_tokens(5, 9, 40)]
    prompts += [prompts[0], prompts[2][:30]]  # the same twice, and the prefix of another
    assert len(list(walk(build_prefix_tree(prompts)))) >= 4
    questions = [ScoringRequest(tuple(prompt), build_choices(BRANCHES)) for prompt in prompts]
    scores = loglikelihoods(routed, questions, token_budget=token_budget, length_normalised=False)
    for prompt, found in zip(prompts, scores, strict=True):
        assert found.tolist() == pytest.approx([full_forward(routed, prompt, list(answer)) for answer in BRANCHES], abs=1e-4)
    met: list[int] = []
    for group, prefix in prefix_batches(routed, prompts, [5] * len(prompts), token_budget):
        chosen = [prompts[i] for i in group]
        found = greedy_decode(routed, chosen, [None for _ in chosen], 5, prefix)
        assert found == [plain_loop(routed, prompt, 5, free) for prompt in chosen]
        met += group
    assert sorted(met) == list(range(len(prompts)))


def test_a_long_prefix_is_there_once_for_all_rows(base: Base) -> None:
    start, ends = random_tokens(3, 400)[0], random_tokens(4, *[9] * 6)
    ((group, prefix),) = prefix_batches(base, [start + end for end in ends], [5] * 6, token_budget=400)
    prompts = prefill(base, [start + ends[i] for i in group], prefix, growing=True)
    assert prompts.cache.layers[0].keys.shape[2] == prompts.width == 16
    assert prompts.prefix.layers[0][0].shape[:3] == (1, base.model.config.num_key_value_heads, 400)


def test_prefixes_are_dropped_when_no_prompt_continues_them(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_cache, "PREFIX_COST", 8)
    alive: list[weakref.ref[torch.Tensor]] = []
    lengths, most = [], 0
    prompts = leave_one_out(shots=12, tokens=14, queries=12)
    gc.freeze()  # what was there before is not looked through each time
    for _, prefix in prefix_batches(base, prompts, [1] * len(prompts), ROOM):
        if prefix is not None and prefix.length not in lengths:
            lengths.append(prefix.length)
            alive.append(weakref.ref(prefix.layers[0][0]))
        del prefix
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
    gc.unfreeze()
    assert len(lengths) >= 9
    assert most <= 2
