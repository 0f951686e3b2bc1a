"""The decoder written out: the same numbers and gradients as the model's own layers, and only where it may be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from staf.experts.store import ExpertSet
from staf.experts.trainable import TrainableFactors
from staf.lm import blocks, groups
from staf.lm.base import Base, load_base
from staf.lm.fused import supports
from staf.lm.lora import draw_dropout_mask
from staf.lm.packed import rounded_rows
from staf.routing.merge import Mixture


def attach(base: Base, rank: int = 3, trained: bool = True) -> tuple[TrainableFactors, Tensor]:
    """Random factors in training and their gains, a leaf (M, r)."""
    factors = TrainableFactors(base.lora.shapes, rank, 0, base.device, base.dtype)
    generator = torch.Generator().manual_seed(1)
    factors.flat.add_(torch.randn(factors.flat.shape, generator=generator) * 0.2)
    leaf = factors.begin_step()
    views, grads = factors.views()
    base.lora.attach(views, grads if trained else None)
    base.lora.set_rank_scale(dict(zip(factors.names, leaf.unbind(), strict=True)))
    return factors, leaf


def padded(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) of rows of different length, and where the tokens to predict are."""
    batch, tokens = shape
    ids = torch.randint(3, 200, shape, generator=torch.Generator().manual_seed(2))
    answer = torch.zeros(shape, dtype=torch.bool)
    for row in range(batch):
        end = tokens - (row * 3) % max(tokens - 2, 1)
        answer[row, max(end - 3, 1) : end] = True
        ids[row, end:] = 0
    return ids, answer


def weighted(states: Tensor) -> Tensor:
    """A loss that weighs every number differently."""
    return (states.double() * torch.linspace(-1, 1, states.numel(), dtype=torch.float64).view_as(states)).sum()


def gradients(base: Base, shape: tuple[int, int], fused: bool) -> tuple[Tensor, Tensor, Tensor]:
    """States before answers, gradient of the gains and of all factors."""
    factors, leaf = attach(base)
    decoder, base.fused = base.fused, base.fused if fused else None
    states = base.answer_hidden_states(*padded(shape))
    weighted(states).backward()
    base.fused = decoder
    return states.detach(), leaf.grad.clone(), factors.grad.clone()


@pytest.mark.parametrize("shape", [(1, 2), (3, 7), (2, 16), (5, 64), (3, 129), (2, 300)])
def test_numbers_and_gradients_are_those_of_the_models_own_layers(base: Base, shape: tuple[int, int]) -> None:
    own, fused = gradients(base, shape, False), gradients(base, shape, True)
    for one, other in zip(own, fused, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=2e-5)
    assert fused[2].abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 2), (3, 7), (5, 64)])
def test_a_delta_that_is_added_gives_the_numbers_and_gradients_of_one_that_is_carried(
    base: Base, experts: ExpertSet, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    mixture = Mixture(base, experts)
    found = []
    for enough in (1, 10**9):
        monkeypatch.setattr(groups, "ENOUGH_ROWS", enough)
        weights = torch.tensor([[0.3, -0.2, 0.9]], requires_grad=True)
        for _ in range(2):  # the second writes into the memory of the first
            mixture.set_weights(weights)
            assert base.fused is not None
            assert base.fused.ready()
            states = base.answer_hidden_states(*padded(shape))
            weights.grad = None
            weighted(states).backward()
        found.append((states.detach(), weights.grad))
    base.lora.set_rank_scale({})
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=2e-5)
    assert any(group.room for plan in base.fused.plans for group in plan.groups)


def test_factors_that_are_trained_are_always_carried(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "ENOUGH_ROWS", 1)
    gradients(base, (3, 7), True)
    assert base.fused is not None
    assert not any(group.room for plan in base.fused.plans for group in plan.groups)


@pytest.mark.parametrize("fused", [True, False])
def test_dropout_takes_part_in_the_gradient(base: Base, fused: bool) -> None:
    """The two draw differently, so each is held against small changes of its own loss."""
    base.fused = base.fused if fused else None
    base.lora.set_training(True, 0.5)
    factors, leaf = attach(base)

    def loss() -> Tensor:
        torch.manual_seed(0)
        return weighted(base.answer_hidden_states(*padded((2, 6))))

    loss().backward()
    expected, step, values = leaf.grad[4, 1].item(), 1e-2, []
    for sign in (1, -1):
        moved = leaf.detach().clone()
        moved[4, 1] += sign * step
        base.lora.set_rank_scale(dict(zip(factors.names, moved.requires_grad_().unbind(), strict=True)))
        values.append(loss().item())
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(base: Base, rate: float) -> None:
    attach(base)
    base.lora.set_training(True, rate)
    layer = next(iter(base.lora.layers.values()))
    torch.manual_seed(0)
    keep = draw_dropout_mask((layer,), torch.zeros(20_001, 32))
    assert (keep == 0).float().mean() == pytest.approx(rate, abs=0.01)
    assert keep.mean() == pytest.approx(1.0, abs=0.02)
    assert keep.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])


@pytest.mark.parametrize("tokens", [1, 127, 128, 129, 300])
def test_attention_in_blocks_is_attention(tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, tokens, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, 2, tokens, 8, generator=generator, dtype=torch.float64, requires_grad=True) for _ in "kv")
    grad = torch.randn(2, 4, tokens, 8, generator=generator, dtype=torch.float64)
    expected = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True, scale=1.0)
    expected.backward(grad)

    def by_group(x: Tensor) -> Tensor:
        return x.view(2, 2, 2, tokens, 8).transpose(2, 3).reshape(4, tokens * 2, 8)

    inputs = (by_group(q.detach()), k.detach().flatten(0, 1), v.detach().flatten(0, 1))
    mixed, chances = blocks.attend(*inputs, blocks.corner(tokens, 2, q))
    assert torch.allclose(mixed, by_group(expected.detach()))
    found = blocks.attend_back(by_group(grad), *inputs, chances)
    for one, other in zip(found, (by_group(q.grad), k.grad.flatten(0, 1), v.grad.flatten(0, 1)), strict=True):
        assert torch.allclose(one, other)


@given(st.integers(1, 100_000))
def test_few_numbers_of_rows_occur_and_little_is_spare(count: int) -> None:
    rows = rounded_rows(count)
    assert rows >= count
    assert rows % 16 == 0
    assert rows - count < max(16, count / 7.9)


def test_every_matrix_shares_its_memory_with_its_group(base: Base) -> None:
    for plan in base.fused.plans:
        for group in plan.groups:
            place = 0
            for layer in group.layers:
                assert layer.weight.data_ptr() == group.weight.data_ptr() + place * group.weight.element_size()
                place += layer.weight.numel()


def test_it_is_used_only_while_gradients_are_needed_and_every_matrix_has_factors(base: Base) -> None:
    assert not base.fused.ready()
    attach(base)
    assert base.fused.ready()
    with torch.no_grad():
        assert not base.fused.ready()
    first = next(iter(base.lora.layers.values()))
    first.rank_scale = first.rank_scale.expand(2, -1)
    assert not base.fused.ready()


def test_models_with_other_layers_run_their_own(tiny_folder: Path) -> None:
    config = load_base(str(tiny_folder), dtype="float32", device="cpu").model.config
    assert supports(config)
    for name, value in (("model_type", "gemma"), ("hidden_act", "gelu"), ("sliding_window", 64)):
        kept = getattr(config, name, None)
        setattr(config, name, value)
        assert not supports(config)
        setattr(config, name, kept)
