"""Losses of candidates: equal to plain forwards, merged or not; and a base that never changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, other_base
from conftest import deltas_of, make_examples, mean_loss, random_expert
from torch import Tensor

from staf.errors import ExpertMismatch, MissingData
from staf.experts.store import ExpertSet
from staf.lm import prefix_cache
from staf.lm.base import Base, load_base
from staf.lm.batches import Encoded, collate, encode
from staf.routing import merge, objective
from staf.routing.merge import GRANULARITIES, Mixture, merging_pays, module_groups
from staf.routing.objective import LMLoss, candidate_losses

QUERIES = ("Name the colour: blue, green or red.", "Which of the colours has this thing: blue, green or red?")


def items_of(base: Base, count: int = 12, queries: tuple[str, ...] = QUERIES) -> list[Encoded]:
    """Examples of several queries, each shared by some, with answers of different length."""
    examples = [replace(e, query=queries[i % len(queries)]) for i, e in enumerate(make_examples(count))]
    return [encode(example, base.tokenizer, 200) for example in examples]


def drawn(mixture: Mixture, granularity: str, count: int) -> Tensor:
    """Weights of candidates (C, G, K), some of them negative."""
    groups = max(module_groups(mixture.base, granularity)) + 1
    return torch.randn(count, groups, len(mixture.experts.names), generator=torch.Generator().manual_seed(3))


def plain(mixture: Mixture, granularity: str, weights: Tensor, items: list[Encoded]) -> list[float]:
    """Each candidate unmerged, each example in a batch of its own."""
    found = []
    for candidate in weights:
        mixture.set_weights(candidate, granularity)
        found.append(mean_loss(mixture.base, [collate([item], mixture.base.device) for item in items]))
    mixture.base.lora.set_rank_scale({})
    return found


def weights_of(base: Base) -> dict[str, tuple[Tensor, int]]:
    """A copy of each matrix's contents, and where it lies."""
    return {name: (layer.weight.detach().clone(), layer.weight.data_ptr()) for name, layer in base.lora.layers.items()}


def assert_untouched(base: Base, before: dict[str, tuple[Tensor, int]]) -> None:
    for name, (contents, place) in before.items():
        layer = base.lora.layers[name]
        assert torch.equal(layer.weight.view(torch.uint8), contents.view(torch.uint8))
        assert layer.weight.data_ptr() == place
        assert layer.rank_scale is None


@pytest.fixture(params=[True, False], ids=["merged", "unmerged"])
def is_merged(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether candidates are merged into the weights, whatever costs less."""
    monkeypatch.setattr(merge, "merging_pays", lambda sizes, tokens: request.param)
    return bool(request.param)


def losses(mixture: Mixture, weights: Tensor, granularity: str, items: list[Encoded]) -> list[float]:
    return candidate_losses(mixture, weights, granularity, LMLoss(mixture.base, items))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("token_budget", [150, 8192])
def test_losses_are_those_of_the_plain_path(
    base: Base, experts: ExpertSet, granularity: str, token_budget: int, is_merged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "TOKEN_BUDGET", token_budget)
    mixture, items = Mixture(base, experts), items_of(base)
    weights = drawn(mixture, granularity, 3)
    assert losses(mixture, weights, granularity, items) == pytest.approx(plain(mixture, granularity, weights, items), rel=2e-5)


@pytest.mark.parametrize("token_budget", [150, 8192])
def test_losses_on_prefixes_within_prefixes_are_those_of_the_plain_path(
    base: Base, experts: ExpertSet, token_budget: int, is_merged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "PREFIX_COST", 4)
    monkeypatch.setattr(objective, "TOKEN_BUDGET", token_budget)
    queries = (QUERIES[0], QUERIES[0] + " In one word.", QUERIES[0] + " In one word, please.", QUERIES[1])
    mixture, items = Mixture(base, experts), items_of(base, 16, queries)
    tree = prefix_cache.build_prefix_tree([item.tokens[: item.answer_start] for item in items])
    assert any(inner.children for node in tree.children for inner in node.children)
    weights = drawn(mixture, "layer", 3)
    assert losses(mixture, weights, "layer", items) == pytest.approx(plain(mixture, "layer", weights, items), rel=2e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_losses_of_other_architectures_are_those_of_the_plain_path(
    tiny_folder: Path, tmp_path: Path, kind: str, is_merged: bool
) -> None:
    """With a shared prefix that is longer than the windows of attention."""
    base = other_base(kind, tiny_folder, tmp_path)
    mixture = Mixture(base, ExpertSet(tuple(random_expert(base, name, seed) for seed, name in enumerate("abc"))))
    items = items_of(base, 8, (QUERIES[1] + " Say it in one word, and nothing else.",))
    weights = drawn(mixture, "layer", 3)
    assert losses(mixture, weights, "layer", items) == pytest.approx(plain(mixture, "layer", weights, items), rel=2e-5)


@pytest.mark.parametrize("queries", [QUERIES[:1], tuple(f"{i} Colour?" for i in range(8))])
def test_one_query_for_all_and_a_query_for_each(base: Base, experts: ExpertSet, queries: tuple[str, ...]) -> None:
    mixture, items = Mixture(base, experts), items_of(base, 8, queries)
    weights = drawn(mixture, "task", 3)
    assert losses(mixture, weights, "task", items) == pytest.approx(plain(mixture, "task", weights, items), rel=2e-5)


def test_in_bfloat16_losses_are_near_those_of_float32(tiny_folder: Path, is_merged: bool) -> None:
    found = []
    for dtype in ("float32", "bfloat16"):
        base = load_base(str(tiny_folder), dtype=dtype, device="cpu")
        mixture = Mixture(base, ExpertSet(tuple(random_expert(base, name, seed) for seed, name in enumerate("abc"))))
        items, weights = items_of(base), 5 * drawn(mixture, "task", 4)
        before = weights_of(base)
        found.append(losses(mixture, weights, "task", items))
        assert_untouched(base, before)
        if dtype == "bfloat16":
            assert found[1] == pytest.approx(plain(mixture, "task", weights, items), abs=0.03)
    assert found[1] == pytest.approx(found[0], abs=0.03)
    assert max(found[0]) - min(found[0]) > 0.5


def test_a_second_and_third_call_find_the_same(base: Base, experts: ExpertSet, is_merged: bool) -> None:
    """A candidate's loss does not depend on those before it."""
    mixture, items = Mixture(base, experts), items_of(base)
    weights = drawn(mixture, "matrix", 3)
    first = losses(mixture, weights, "matrix", items)
    assert losses(mixture, weights.flip(0), "matrix", items) == first[::-1]
    assert [losses(mixture, weights[i : i + 1], "matrix", items)[0] for i in range(3)] == first


def test_a_mixture_that_was_replaced_in_the_base_attaches_again(base: Base, experts: ExpertSet, is_merged: bool) -> None:
    items, one = items_of(base), Mixture(base, experts)
    weights = drawn(one, "task", 1)
    before = losses(one, weights, "task", items)
    other = Mixture(base, ExpertSet((random_expert(base, "other", 9, size=2.0),)))
    losses(other, torch.ones(1, 1, 1), "task", items)
    assert losses(one, weights, "task", items) == before
    one.set_weights(weights[0])
    assert next(iter(base.lora.layers.values())).lora_B is next(iter(one._factors.values()))[0]


def test_a_single_example_of_rank_0_experts_has_the_loss_of_the_original(base: Base, is_merged: bool) -> None:
    expert = random_expert(base, "none", 0)
    expert = replace(expert, factors={name: (b[:, :0], a[:0]) for name, (b, a) in expert.factors.items()})
    items = items_of(base, 1)
    expected = mean_loss(base, [collate(items, base.device)])
    mixture = Mixture(base, ExpertSet((expert,)))
    assert losses(mixture, torch.ones(1, 1, 1), "task", items) == pytest.approx([expected], rel=1e-6)


def test_not_a_byte_of_the_base_changes_even_when_something_fails(
    base: Base, experts: ExpertSet, is_merged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture, items = Mixture(base, experts), items_of(base)
    weights, before = drawn(mixture, "task", 2), weights_of(base)
    losses(mixture, weights, "task", items)
    assert_untouched(base, before)

    def fail(*_: object) -> Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LMLoss, "_sum", fail)
        with pytest.raises(KeyboardInterrupt):
            losses(mixture, weights, "task", items)
    assert_untouched(base, before)
    assert losses(mixture, weights, "task", items) == pytest.approx(plain(mixture, "task", weights, items), rel=2e-5)


def test_the_base_is_the_original_again_when_merging_stops_half_way(
    base: Base, experts: ExpertSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture, before, calls = Mixture(base, experts), weights_of(base), []
    addmm = torch.addmm

    def fail_at_the_third(*given: Tensor, **options: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return addmm(*given, **options)

    monkeypatch.setattr(torch, "addmm", fail_at_the_third)
    with pytest.raises(MemoryError), mixture.merged(torch.ones(1, 3)):
        pass
    assert_untouched(base, before)


def test_merged_weights_are_the_exact_sum_in_buffers_that_stay(base: Base, experts: ExpertSet) -> None:
    mixture, before = Mixture(base, experts), weights_of(base)
    weights = drawn(mixture, "layer", 1)[0]
    changes = deltas_of(mixture, weights, "layer")
    with mixture.merged(weights, "layer"):
        for name, layer in base.lora.layers.items():
            assert torch.allclose(layer.weight, before[name][0] + changes[name], atol=1e-6)
        addresses = {name: layer.weight.data_ptr() for name, layer in base.lora.layers.items()}
    assert_untouched(base, before)
    with mixture.merged(-weights, "layer"):
        assert {name: layer.weight.data_ptr() for name, layer in base.lora.layers.items()} == addresses


def test_weights_of_another_shape_are_refused_and_leave_the_base_as_it_was(base: Base, experts: ExpertSet) -> None:
    mixture, before, items = Mixture(base, experts), weights_of(base), items_of(base)
    with pytest.raises(ExpertMismatch, match=r"weights of shape \(2, 4\) for 3 experts by layer"):
        losses(mixture, torch.ones(1, 2, 4), "layer", items)
    with pytest.raises(ExpertMismatch, match=r"candidates of shape \(2, 3\).*weights\[None\]"):
        losses(mixture, torch.ones(2, 3), "layer", items)
    assert_untouched(base, before)


def test_no_examples_are_refused(base: Base) -> None:
    with pytest.raises(MissingData, match="no examples to compute a loss on"):
        LMLoss(base, [])


def test_a_shared_prefix_is_computed_once_a_candidate(base: Base, experts: ExpertSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "TOKEN_BUDGET", 100)
    mixture, items = Mixture(base, experts), items_of(base, queries=QUERIES[:1])
    seen: list[tuple[int, ...]] = []
    decoder = base.model.get_decoder()
    decoder.register_forward_pre_hook(lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True)
    losses(mixture, drawn(mixture, "task", 2), "task", items)
    once = seen[: len(seen) // 2]
    assert seen == once * 2
    assert once[0][0] == 1
    assert once[0][1] > 40
    assert sum(rows for rows, _ in once[1:]) == len(items)
    assert all(columns <= 48 for _, columns in once[1:])


def test_merging_is_chosen_by_counting(base: Base, experts: ExpertSet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not merging_pays([(576, 48, 576)], 287)  # 576 * 576 / (576 + 576) = 288 tokens
    assert merging_pays([(576, 48, 576)], 289)
    assert not merging_pays([(576, 0, 576)], 10_000)
    mixture, calls = Mixture(base, experts), []
    real = Mixture.merged
    monkeypatch.setattr(Mixture, "merged", lambda *given: calls.append(1) or real(*given))
    losses(mixture, torch.ones(1, 1, 3), "task", [Encoded("short", (5, 6, 7), 2)])
    assert not calls
    losses(mixture, torch.ones(1, 1, 3), "task", items_of(base))
    assert calls
