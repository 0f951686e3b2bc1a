"""A base in four bits: experts train beside it, and without the package it is said how to get it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from conftest import make_examples, random_expert

from staf.errors import MissingData, UnknownName
from staf.experts.store import ExpertSet
from staf.lm.base import NF4, load_base
from staf.routing.merge import Mixture
from staf.routing.objective import LabelLoss, candidate_losses

needed = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


def test_without_the_package_it_is_said_how_to_get_it(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingData, match=r"pip install 'staf-llm\[four-bit\]'"):
        load_base(str(tiny_folder), dtype=NF4, device="cpu")


def test_a_format_that_does_not_exist(tiny_folder: Path) -> None:
    with pytest.raises(UnknownName, match="nf4"):
        load_base(str(tiny_folder), dtype="nf5", device="cpu")


@pytest.fixture
def wide_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A tiny model whose widths are whole blocks of 64."""
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    config = AutoConfig.from_pretrained(str(tiny_folder))
    config.update({"hidden_size": 64, "intermediate_size": 128, "head_dim": 16})
    LlamaForCausalLM(config).save_pretrained(str(tmp_path))
    AutoTokenizer.from_pretrained(str(tiny_folder)).save_pretrained(str(tmp_path))
    return tmp_path


@needed
@pytest.mark.filterwarnings("ignore")  # of bitsandbytes itself
def test_factors_train_beside_codes(wide_folder: Path) -> None:
    whole = load_base(str(wide_folder), dtype="bfloat16", device="cpu")
    base = load_base(str(wide_folder), dtype=NF4, device="cpu")
    assert base.lora.shapes == whole.routed.shapes
    name, layer = next(pair for pair in base.lora.layers.items() if pair[0].endswith("o_proj"))
    assert layer.weight.dtype == torch.uint8
    ids = torch.arange(3, 19)[None]
    original = base.hidden_states(ids)
    d_out, d_in = base.lora.shapes[name]
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(shape, generator=generator).mul_(0.1).bfloat16() for shape in ((d_out, 2), (2, d_in)))
    gain = torch.zeros(2, requires_grad=True)
    u.requires_grad_(), v.requires_grad_()
    base.lora.attach({name: (u, v, gain)})
    assert torch.equal(base.hidden_states(ids), original)  # a gain of 0 adds nothing
    base.lora.set_rank_scale({name: gain + 1})
    states = base.hidden_states(ids).float()
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    assert gain.grad is not None
    assert gain.grad.abs().sum() > 0
    assert u.grad.abs().sum() > 0
    assert v.grad.abs().sum() > 0


@needed
@pytest.mark.filterwarnings("ignore")  # of bitsandbytes itself
def test_labels_are_weighed_beside_codes(wide_folder: Path) -> None:
    """Nothing can be added to codes, so factors are carried; weights of 0 are the original model."""
    base = load_base(str(wide_folder), dtype=NF4, device="cpu")

    def losses(weights: torch.Tensor, experts: int) -> list[float]:
        found = tuple(random_expert(base, f"expert {index}", index) for index in range(experts))
        return candidate_losses(Mixture(base, ExpertSet(found)), weights, "task", LabelLoss(base, make_examples(6), 200, 0))

    none, some = losses(torch.tensor([[[0.0, 0.0]], [[2.0, -1.0]]]), 2)
    assert none == pytest.approx(losses(torch.zeros(1, 1, 3), 3)[0], abs=1e-3)
    assert abs(some - none) > 0.01
