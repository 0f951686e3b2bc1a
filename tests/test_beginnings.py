"""Prompts as a tree of their common beginnings: nothing is computed twice that is worth a pass, and nothing changes by it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, other_base
from conftest import random_expert
from hypothesis import example, given
from hypothesis import strategies as st
from test_generation import free, plain_loop
from test_scoring import BRANCHES, full_forward, random_tokens

from staf.experts.store import ExpertSet
from staf.lm import beginnings
from staf.lm.base import Base
from staf.lm.beginnings import A_BEGINNING, GOING_ON, Branch, branches_of, in_batches
from staf.lm.generation import FreeWalk, continue_greedily
from staf.lm.prompts import read
from staf.lm.scoring import Question, candidates, score_questions
from staf.routing.merge import Mixture

ROOM = 1 << 20


def walk(branch: Branch) -> Iterator[tuple[int, Branch]]:
    """Every branch below one, with the tokens of the one before it."""
    for further in branch.branches:
        yield branch.length, further
        yield from walk(further)


def computed(branch: Branch, prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that go through the model."""
    rests = sum(len(prompts[i]) - branch.length for i in branch.prompts)
    return rests + sum(further.length - branch.length + computed(further, prompts) for further in branch.branches)


def leave_one_out(shots: int, tokens: int, queries: int) -> list[list[int]]:
    """Prompts of in-context learning: `shots` whose query is a shot itself, which is left out, and others with all of them."""
    shown, own = random_tokens(1, *[tokens] * shots), random_tokens(2, *[20] * queries)
    kept = [[shot for j, shot in enumerate(shown) if j != i] for i in range(queries)]
    return [[token for part in (*some, query) for token in part] for some, query in zip(kept, own, strict=True)]


def cost(branch: Branch, prompts: Sequence[Sequence[int]], price: int, share: float) -> float:
    """What a tree costs by the rule of the module's docstring."""
    found = sum((len(prompts[i]) - branch.length) * (1 + (share if branch.length else 0)) for i in branch.prompts)
    return found + sum(
        further.length - branch.length + price + cost(further, prompts, price, share) for further in branch.branches
    )


def least_cost(prompts: Sequence[Sequence[int]], price: int, share: float) -> float:
    """The least cost over every choice of beginnings, each prompt going on from the best of those that are computed."""
    known = sorted({tuple(one[:length]) for one in prompts for length in range(1, len(one))})
    ends = [start for start in known if branching(start, prompts)]
    best = float("inf")
    for size in range(len(ends) + 1):
        for chosen in combinations(ends, size):
            total = 0.0
            for start in chosen:
                before = max((len(other) for other in chosen if other != start and start[: len(other)] == other), default=0)
                total += len(start) - before + price
            for row in (tuple(prompt[:-1]) for prompt in prompts):
                rests = [len(row) - len(start) for start in chosen if row[: len(start)] == start]
                total += min([len(row), *((1 + share) * rest for rest in rests)])
            best = min(best, total)
    return best


def branching(start: tuple[int, ...], prompts: Sequence[Sequence[int]]) -> bool:
    """Whether several rows (prompts without their last token) go on from here, and not all with the same token."""
    rows = [tuple(prompt[:-1]) for prompt in prompts]
    after = [row[len(start) : len(start) + 1] for row in rows if row[: len(start)] == start]
    return len(after) > 1 and (len(set(after)) > 1 or after[0] == ())


words = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=6)


@example(prompts=[[0, 0, 0], [0, 0, 0], [0, 0, 0, 0, 0, 0]], price=1, share=0.5)
@given(words, st.integers(0, 5), st.sampled_from([0, 0.125, 0.5]))
def test_the_tree_of_beginnings_is_true_and_none_costs_less(prompts: list[list[int]], price: int, share: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beginnings, "A_BEGINNING", price)
        patch.setattr(beginnings, "GOING_ON", share)
        root = branches_of(prompts)
    branches = [(0, root), *walk(root)]
    assert sorted(i for _, branch in branches for i in branch.prompts) == list(range(len(prompts)))
    for before, branch in branches:
        first = prompts[branch.first][: branch.length]
        assert len(first) == branch.length >= before
        assert all(prompts[i][: branch.length] == first and len(prompts[i]) > branch.length for i in branch.prompts)
        assert all(further.length > branch.length for further in branch.branches)
        assert all(prompts[further.first][: branch.length] == first for further in branch.branches)
    shorter = [prompt[:-1] for prompt in prompts]  # the last token is never part of a beginning
    assert cost(root, shorter, price, share) == pytest.approx(least_cost(prompts, price, share))


def test_a_beginning_is_computed_where_it_saves_more_than_it_costs() -> None:
    shared, (one, two, three) = random_tokens(3, 400)[0], random_tokens(4, 9, 9, 9)
    enough = int(A_BEGINNING + GOING_ON * 16) + 1
    for length, branches in ((enough, 1), (enough - 1, 0)):
        root = branches_of([shared[:length] + one, shared[:length] + two])
        assert [branch.length for branch in root.branches] == [length] * branches
    alone = branches_of([one, two, three, shared])
    assert (sorted(alone.prompts), alone.branches) == ([0, 1, 2, 3], [])


def test_a_long_rest_does_not_go_on_from_a_short_beginning() -> None:
    start, long = random_tokens(3, 100)[0], random_tokens(4, 1100)[0]
    prompts = [start + rest for rest in (*random_tokens(5, *[9] * 6), long)]
    root = branches_of(prompts)
    assert root.prompts == [6]
    assert [(branch.length, sorted(branch.prompts)) for branch in root.branches] == [(100, [0, 1, 2, 3, 4, 5])]


def test_a_thousand_beginnings_one_in_the_other_are_no_depth_too_many() -> None:
    long = random_tokens(3, 3000)[0]
    root = branches_of([long[:length] for length in range(3, 3000, 3)])
    assert computed(root, [long[:length] for length in range(3, 3000, 3)]) < 300_000


def test_prompts_that_leave_out_a_shot_share_those_before_it(base: Base) -> None:
    prompts = leave_one_out(shots=6, tokens=300, queries=7)
    root = branches_of(prompts)
    assert [branch.length for _, branch in walk(root)] == [600, 900, 1200, 1500]  # the first shot would serve one prompt more
    sizes: list[int] = []
    base.model.get_decoder().register_forward_pre_hook(
        lambda _, __, given: sizes.append(given["input_ids"].numel()), with_kwargs=True
    )
    questions = [Question(tuple(prompt), candidates([(7,), (8,)])) for prompt in prompts]
    score_questions(base, questions, token_budget=ROOM, length_normalised=False)
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
def test_scores_and_answers_are_those_of_each_prompt_alone(
    routed: Base, token_budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginnings, "A_BEGINNING", 8)
    prompts = [*leave_one_out(shots=4, tokens=14, queries=6), *random_tokens(5, 9, 40)]
    prompts += [prompts[0], prompts[2][:30]]  # the same twice, and the beginning of another
    assert len(list(walk(branches_of(prompts)))) >= 4
    questions = [Question(tuple(prompt), candidates(BRANCHES)) for prompt in prompts]
    scores = score_questions(routed, questions, token_budget=token_budget, length_normalised=False)
    for prompt, found in zip(prompts, scores, strict=True):
        assert found.tolist() == pytest.approx([full_forward(routed, prompt, list(answer)) for answer in BRANCHES], abs=1e-4)
    met: list[int] = []
    for group, beginning in in_batches(routed, prompts, [5] * len(prompts), token_budget):
        chosen = [prompts[i] for i in group]
        found = continue_greedily(routed, chosen, [FreeWalk() for _ in chosen], 5, beginning)
        assert found == [plain_loop(routed, prompt, 5, free) for prompt in chosen]
        met += group
    assert sorted(met) == list(range(len(prompts)))


def test_a_long_beginning_is_there_once_for_all_rows(base: Base) -> None:
    start, ends = random_tokens(3, 400)[0], random_tokens(4, *[9] * 6)
    ((group, beginning),) = in_batches(base, [start + end for end in ends], [5] * 6, token_budget=400)
    prompts = read(base, [start + ends[i] for i in group], beginning, grows=True)
    assert prompts.past.layers[0].keys.shape[2] == prompts.width == 16
    assert prompts.beginning[0][0].shape[:3] == (1, base.model.config.num_key_value_heads, 400)


def test_beginnings_are_forgotten_when_nothing_more_goes_on_from_them(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "A_BEGINNING", 8)
    alive: list[weakref.ref[torch.Tensor]] = []
    lengths, most = [], 0
    prompts = leave_one_out(shots=12, tokens=14, queries=12)
    for _, beginning in in_batches(base, prompts, [1] * len(prompts), ROOM):
        if beginning is not None and beginning.length not in lengths:
            lengths.append(beginning.length)
            alive.append(weakref.ref(beginning.layers[0][0]))
        del beginning
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
    assert len(lengths) >= 9
    assert most <= 2
