"""Losses of candidates: those of the plain path, whatever the way; and a base that is never changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, other_base
from conftest import make_examples, random_expert
from torch import Tensor

from staf.errors import ExpertMismatch, MissingData
from staf.experts.store import ExpertSet
from staf.lm import prefix_cache
from staf.lm.base import Base, load_base
from staf.lm.batches import Encoded, collate, encode
from staf.lm.loss import mean_loss
from staf.routing.candidates import CandidateLoss, Way, added, cheaper_way
from staf.routing.merge import GRANULARITIES, Mixture

QUERIES = ("Name the colour: blue, green or red.", "Which of the colours has this thing: blue, green or red?")


def items_of(base: Base, count: int = 12, queries: tuple[str, ...] = QUERIES) -> list[Encoded]:
    """Examples of several queries, each shared by some, with answers of different length."""
    examples = [replace(e, query=queries[i % len(queries)]) for i, e in enumerate(make_examples(count))]
    return [encode(example, base.tokenizer, 200) for example in examples]


def drawn(mixture: Mixture, granularity: str, count: int) -> Tensor:
    """Weights of candidates (C, G, K), some of them negative."""
    groups = int(mixture.groups(granularity).max()) + 1
    return torch.randn(count, groups, len(mixture.experts.names), generator=torch.Generator().manual_seed(3))


def plain(mixture: Mixture, granularity: str, weights: Tensor, items: list[Encoded]) -> list[float]:
    """Each candidate with its factors carried, each example alone."""
    found = []
    for candidate in weights:
        mixture.set_weights(candidate, granularity)
        found.append(mean_loss(mixture.base, [collate([item], 0, mixture.base.device) for item in items]))
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


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(("way", "together"), [("add", 1), ("carry", 1), ("carry", 2), ("carry", 5)])
@pytest.mark.parametrize("token_budget", [150, 8192])
def test_losses_are_those_of_the_plain_path(
    base: Base, experts: ExpertSet, granularity: str, way: Way, together: int, token_budget: int
) -> None:
    mixture, items = Mixture(base, experts), items_of(base)
    weights = drawn(mixture, granularity, 3)
    judge = CandidateLoss(mixture, granularity, items, token_budget=token_budget, way=way, together=together)
    assert judge(weights) == pytest.approx(plain(mixture, granularity, weights, items), rel=2e-5)


@pytest.mark.parametrize(("way", "together"), [("add", 1), ("carry", 1), ("carry", 2), ("carry", 5)])
@pytest.mark.parametrize("token_budget", [150, 8192])
def test_losses_on_beginnings_within_beginnings_are_those_of_the_plain_path(
    base: Base, experts: ExpertSet, way: Way, together: int, token_budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "PREFIX_COST", 4)
    queries = (QUERIES[0], QUERIES[0] + " In one word.", QUERIES[0] + " In one word, please.", QUERIES[1])
    mixture, items = Mixture(base, experts), items_of(base, 16, queries)
    weights = drawn(mixture, "layer", 3)
    judge = CandidateLoss(mixture, "layer", items, token_budget=token_budget, way=way, together=together)
    deep = [group for group in judge.groups if group.before is not None and judge.groups[group.before].before is not None]
    assert deep
    assert judge(weights) == pytest.approx(plain(mixture, "layer", weights, items), rel=2e-5)


@pytest.mark.parametrize(("way", "together"), [("add", 1), ("carry", 3)])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_losses_of_other_architectures_are_those_of_the_plain_path(
    tiny_folder: Path, tmp_path: Path, kind: str, way: Way, together: int
) -> None:
    """With a beginning in common that is longer than the windows of attention."""
    base = other_base(kind, tiny_folder, tmp_path)
    mixture = Mixture(base, ExpertSet(tuple(random_expert(base, name, seed) for seed, name in enumerate("abc"))))
    items = items_of(base, 8, (QUERIES[1] + " Say it in one word, and nothing else.",))
    weights = drawn(mixture, "layer", 3)
    judge = CandidateLoss(mixture, "layer", items, way=way, together=together)
    assert judge.groups[0].beginning.numel() > 60
    assert judge(weights) == pytest.approx(plain(mixture, "layer", weights, items), rel=2e-5)


@pytest.mark.parametrize("queries", [QUERIES[:1], tuple(f"{i} Colour?" for i in range(8))])
@pytest.mark.parametrize("together", [1, 3])
def test_one_query_for_all_and_a_query_for_each(
    base: Base, experts: ExpertSet, queries: tuple[str, ...], together: int
) -> None:
    mixture, items = Mixture(base, experts), items_of(base, 8, queries)
    weights = drawn(mixture, "task", 3)
    judge = CandidateLoss(mixture, "task", items, together=together)
    assert [group.beginning.numel() > 0 for group in judge.groups] == [len(queries) == 1]
    assert judge(weights) == pytest.approx(plain(mixture, "task", weights, items), rel=2e-5)


@pytest.mark.parametrize("way", ["add", "carry"])
def test_in_bfloat16_losses_are_near_those_of_float32(tiny_folder: Path, way: Way) -> None:
    losses = []
    for dtype in ("float32", "bfloat16"):
        base = load_base(str(tiny_folder), dtype=dtype, device="cpu")
        mixture = Mixture(base, ExpertSet(tuple(random_expert(base, name, seed) for seed, name in enumerate("abc"))))
        items, weights = items_of(base), 5 * drawn(mixture, "task", 4)
        before = weights_of(base)
        losses.append(CandidateLoss(mixture, "task", items, way=way)(weights))
        assert_untouched(base, before)
        if dtype == "bfloat16":
            assert losses[1] == pytest.approx(plain(mixture, "task", weights, items), abs=0.03)
    assert losses[1] == pytest.approx(losses[0], abs=0.03)
    assert max(losses[0]) - min(losses[0]) > 0.5


def test_a_second_and_third_call_find_the_same(base: Base, experts: ExpertSet) -> None:
    """Nothing of a candidate is left over for the next one, whatever the order."""
    mixture, items = Mixture(base, experts), items_of(base)
    weights = drawn(mixture, "matrix", 3)
    for way in ("add", "carry"):
        judge = CandidateLoss(mixture, "matrix", items, way=way)
        first = judge(weights)
        assert judge(weights.flip(0)) == first[::-1]
        assert [judge(weights[i : i + 1])[0] for i in range(3)] == first


def test_a_single_example_of_rank_0_experts_has_the_loss_of_the_original(base: Base) -> None:
    expert = random_expert(base, "none", 0)
    expert = replace(expert, factors={n: (b[:, :0], a[:0]) for n, (b, a) in expert.factors.items()})
    items = items_of(base, 1)
    expected = mean_loss(base, [collate(items, 0, base.device)])
    mixture = Mixture(base, ExpertSet((expert,)))
    for way in ("add", "carry"):
        assert CandidateLoss(mixture, "task", items, way=way)(torch.ones(1, 1, 1)) == pytest.approx([expected], rel=1e-6)


@pytest.mark.parametrize("way", ["add", "carry"])
def test_not_a_byte_of_the_base_changes_even_when_something_fails(
    base: Base, experts: ExpertSet, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture, items = Mixture(base, experts), items_of(base)
    weights, before = drawn(mixture, "task", 2), weights_of(base)
    judge = CandidateLoss(mixture, "task", items, way=way)
    judge(weights)
    assert_untouched(base, before)

    def fail(*_: object) -> Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(judge, "_answer_loss", fail)
        with pytest.raises(KeyboardInterrupt):
            judge(weights)
    assert_untouched(base, before)
    assert judge(weights) == pytest.approx(plain(mixture, "task", weights, items), rel=2e-5)


def test_the_base_is_the_original_again_when_adding_stops_half_way(
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
    with pytest.raises(MemoryError), added(mixture, torch.ones(1, 3)):
        pass
    assert_untouched(base, before)


def test_added_weights_are_the_exact_sum(base: Base, experts: ExpertSet) -> None:
    mixture, before, room = Mixture(base, experts), weights_of(base), {}
    weights = drawn(mixture, "layer", 1)[0]
    changes = mixture.fused(weights, "layer")
    with added(mixture, weights, "layer", room):
        for name, layer in base.lora.layers.items():
            assert torch.allclose(layer.weight, before[name][0] + changes[name], atol=1e-6)
        places = {name: tensor.data_ptr() for name, tensor in room.items()}
    assert_untouched(base, before)
    with added(mixture, -weights, "layer", room):
        assert {name: tensor.data_ptr() for name, tensor in room.items()} == places
        assert any(layer.weight.data_ptr() in places.values() for layer in base.lora.layers.values())


def test_weights_of_another_shape_are_refused_and_leave_the_base_as_it_was(base: Base, experts: ExpertSet) -> None:
    mixture, before = Mixture(base, experts), weights_of(base)
    judge = CandidateLoss(mixture, "layer", items_of(base))
    with pytest.raises(ExpertMismatch, match=r"weights of shape \(2, 4\) for 3 experts by layer"):
        judge(torch.ones(1, 2, 4))
    with pytest.raises(ExpertMismatch, match=r"candidates of shape \(2, 3\).*weights\[None\]"):
        judge(torch.ones(2, 3))
    assert_untouched(base, before)


def test_no_examples_are_refused(base: Base, experts: ExpertSet) -> None:
    with pytest.raises(MissingData, match="no examples to judge"):
        CandidateLoss(Mixture(base, experts), "task", [])


def test_a_beginning_is_computed_once_a_candidate(base: Base, experts: ExpertSet, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture, items = Mixture(base, experts), items_of(base, queries=QUERIES[:1])
    seen: list[tuple[int, ...]] = []
    decoder = base.model.get_decoder()
    decoder.register_forward_pre_hook(lambda _, __, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True)
    judge = CandidateLoss(mixture, "task", items, token_budget=100)
    judge(drawn(mixture, "task", 2))
    (group,) = judge.groups
    assert len(group.parts) > 2
    assert seen == [(1, group.beginning.numel()), *(tuple(part.ids.shape) for part in group.parts)] * 2
    assert judge.places == sum(rows * columns for rows, columns in seen) // 2
    everything = sum(len(item.tokens) for item in items)
    assert judge.places < everything - (len(items) - 1) * (len("Query: Name the colour: blue, green or red.") - 1)


def test_short_examples_are_not_padded_to_long_ones(base: Base, experts: ExpertSet) -> None:
    tokens = [20 + place % 9 for place in range(400)]
    items = [Encoded(f"short-{i}", (5 + i, *tokens[:30]), 25) for i in range(12)] + [Encoded("long", (4, *tokens), 395)]
    judge = CandidateLoss(Mixture(base, experts), "task", items)
    shapes = [tuple(part.ids.shape) for group in judge.groups for part in group.parts]
    assert shapes == [(12, 30), (1, 400)]  # in one batch they would be 13 * 400 places
    weights = drawn(judge.mixture, "task", 1)
    assert judge(weights) == pytest.approx(plain(judge.mixture, "task", weights, items), abs=1e-5)


def test_the_way_is_counted(base: Base, experts: ExpertSet) -> None:
    assert cheaper_way([(576, 48, 576)], 287) == "carry"  # 576 * 576 / (576 + 576) = 288 tokens
    assert cheaper_way([(576, 48, 576)], 289) == "add"
    assert cheaper_way([(576, 0, 576)], 10_000) == "carry"
    mixture = Mixture(base, experts)
    assert CandidateLoss(mixture, "task", items_of(base)).way == "add"
    assert CandidateLoss(mixture, "task", items_of(base), together=2).way == "carry"
    assert CandidateLoss(mixture, "task", [Encoded("short", (5, 6, 7), 2)]).way == "carry"


def test_both_ways_can_be_timed(base: Base, experts: ExpertSet) -> None:
    mixture, before = Mixture(base, experts), weights_of(base)
    seconds = CandidateLoss(mixture, "task", items_of(base, 2)).measure(torch.ones(1, 3))
    assert set(seconds) == {"add", "carry"}
    assert min(seconds.values()) > 0
    assert_untouched(base, before)
