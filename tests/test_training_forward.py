"""The forward that training uses, against plain transformers with the deltas written into the weights: states and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import SMALL, save_model
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from staf.experts.adalora import TrainableFactors
from staf.lm.base import Base, load_base

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"model_type": "llama"},
    "grouped": {"model_type": "llama", "num_key_value_heads": 2},
    "biases": {"model_type": "llama", "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    "rope scaling": {
        "model_type": "llama",
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "head_dim unlike d / H": {"model_type": "llama", "num_key_value_heads": 2, "head_dim": 12},
    "tied": {"model_type": "llama", "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8},
    "window": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 24},
    "gpt_neox": {"model_type": "gpt_neox"},
}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path: Path) -> Base:
    settings = KINDS[request.param]
    save_model(tiny_folder, tmp_path, **SMALL | settings)
    return load_base(str(tmp_path), dtype="float32", device="cpu")


def attach(base: Base, rank: int = 3) -> TrainableFactors:
    """Random factors in training, attached to a base."""
    factors = TrainableFactors(base.lora.shapes, rank, 0, base.device)
    noise = torch.randn(factors.master_params.shape, generator=torch.Generator().manual_seed(1)) * 0.2
    factors.master_params.data.add_(noise)
    base.lora.attach(factors.modules(base.dtype, 1.0))
    return factors


def padded(batch: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) of rows of different length, and where the tokens to predict are."""
    ids = torch.randint(3, 200, (batch, tokens), generator=torch.Generator().manual_seed(2))
    answer = torch.zeros(batch, tokens, dtype=torch.bool)
    for row in range(batch):
        end = tokens - (row * 3) % max(tokens - 2, 1)
        answer[row, max(end - 3, 1) : end] = True
        ids[row, end:] = 0
    return ids, answer


def weighted(states: Tensor) -> Tensor:
    """A loss that weighs every number differently."""
    return (states.double() * torch.linspace(-1, 1, states.numel(), dtype=torch.float64).view_as(states)).sum()


@pytest.mark.parametrize(("batch", "tokens"), [(1, 2), (5, 64), (2, 300)])
def test_states_and_gradients_are_those_of_plain_transformers(kind: Base, batch: int, tokens: int) -> None:
    factors = attach(kind)
    ids, answer = padded(batch, tokens)
    found = kind.hidden_states(ids)[:, :-1][answer[:, 1:]]
    weighted(found).backward()

    plain: Any = AutoModelForCausalLM.from_pretrained(str(kind.folder), dtype=torch.float32, attn_implementation="eager")
    flat = factors.master_params.detach().clone().requires_grad_()
    weights = {
        f"{name}.weight": plain.get_submodule(name).weight.detach() + block.u[i] * block.singular[i] @ block.v[i]
        for block in factors.blocks(flat)
        for i, name in enumerate(block.names)
    }
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        states = functional_call(plain, weights, kwargs={"input_ids": ids, "output_hidden_states": True}).hidden_states[-1]
    expected = states[:, :-1][answer[:, 1:]]
    weighted(expected).backward()
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(factors.grad, flat.grad, rtol=1e-3, atol=1e-4)


def test_dropout_takes_part_in_the_gradient(base: Base) -> None:
    base.lora.set_training(True, 0.5)
    factors = attach(base)

    def loss() -> Tensor:
        torch.manual_seed(0)
        ids, answer = padded(2, 6)
        return weighted(base.hidden_states(ids)[:, :-1][answer[:, 1:]])

    loss().backward()
    number, step, values = -40, 1e-2, []  # a singular value
    expected = factors.grad[number].item()
    for sign in (1, -2):
        factors.master_params.data[number] += sign * step
        base.lora.attach(factors.modules(base.dtype, 1.0))
        values.append(loss().item())
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(base: Base, rate: float) -> None:
    name, layer = next(iter(base.lora.layers.items()))
    d_out, d_in = layer.shape
    base.lora.attach({name: (torch.eye(d_out, 1), torch.eye(1, d_in), torch.ones(1))})
    base.lora.set_training(True, rate)
    torch.manual_seed(0)
    x = torch.zeros(80_004, d_in)
    x[:, 0] = 1.0
    mask = (layer(x) - torch.nn.functional.linear(x, layer.weight))[:, 0].round(decimals=4)
    assert (mask == 0).float().mean() == pytest.approx(rate, abs=0.01)
    assert mask.mean() == pytest.approx(1.0, abs=0.02)
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)], abs=1e-4)
