"""Laws of the one layer and of fusion: exact, linear in the weights, and the base never changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import deltas_of, random_expert

from staf.errors import ExpertMismatch
from staf.experts.reduce import concat_factors
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.lm.lora import LoraModel
from staf.routing.merge import Mixture, module_groups, squared_norm
from staf.routing.router import one_hot, uniform

IDS = torch.tensor([[5, 9, 33, 70, 12], [8, 8, 41, 2, 90]])


def logits(base: Base) -> torch.Tensor:
    with torch.no_grad():
        return base.model(input_ids=IDS, use_cache=False).logits


def add_to_weights(base: Base, deltas: dict[str, torch.Tensor], sign: float = 1.0) -> None:
    with torch.no_grad():
        for name, change in deltas.items():
            base.lora.layers[name].weight.add_(change, alpha=sign)


def test_weights_of_zero_are_the_original_model_exactly(base: Base, experts: ExpertSet) -> None:
    before = logits(base)
    mixture = Mixture(base, experts)
    assert torch.equal(logits(base), before)  # attached, without a gain
    mixture.set_weights(torch.zeros(1, 3))
    assert torch.allclose(logits(base), before, atol=1e-6)


def test_a_one_hot_router_equals_that_expert_exactly(base: Base, experts: ExpertSet) -> None:
    plain = Mixture(base, ExpertSet(experts.experts[1:2]))
    plain.set_weights(torch.ones(1, 1))
    expected = logits(base)
    mixture = Mixture(base, experts)
    mixture.set_weights(one_hot(1, 3))
    assert torch.allclose(logits(base), expected, atol=1e-5)
    single = deltas_of(mixture, one_hot(1, 3))
    for name, (b, a) in experts.experts[1].factors.items():
        assert torch.allclose(single[name], b @ a, atol=1e-6)


@pytest.mark.parametrize("granularity", ["task", "layer", "matrix"])
def test_fused_equals_unfused_in_float32(base: Base, experts: ExpertSet, granularity: str) -> None:
    mixture = Mixture(base, experts)
    groups = max(module_groups(mixture.base, granularity)) + 1
    weights = torch.rand(groups, 3, generator=torch.Generator().manual_seed(3))
    mixture.set_weights(weights, granularity)
    routed = logits(base)
    deltas = deltas_of(mixture, weights, granularity)
    base.lora.detach()
    add_to_weights(base, deltas)
    assert (logits(base) - routed).abs().max() < 1e-5 * max(1.0, float(routed.abs().max()))


def test_the_delta_is_linear_in_the_weights(base: Base, experts: ExpertSet) -> None:
    mixture = Mixture(base, experts)
    left, right = torch.rand(1, 3), torch.rand(1, 3)
    both = deltas_of(mixture, 2 * left - 3 * right)
    parts = deltas_of(mixture, left), deltas_of(mixture, right)
    for name, change in both.items():
        assert torch.allclose(change, 2 * parts[0][name] - 3 * parts[1][name], atol=1e-5)


def test_average_is_the_mean_of_the_separate_deltas_not_of_the_factors(base: Base, experts: ExpertSet) -> None:
    fused = deltas_of(Mixture(base, experts), torch.full((1, 3), 1 / 3))
    for name in base.lora.shapes:
        separate = [b @ a for b, a in (e.factors[name] for e in experts.experts)]
        assert torch.allclose(fused[name], torch.stack(separate).mean(0), atol=1e-6)


def test_rows_with_their_own_weights_equal_separate_runs(base: Base, experts: ExpertSet) -> None:
    mixture = Mixture(base, experts)
    per_row = torch.rand(2, 1, 3, generator=torch.Generator().manual_seed(4))
    mixture.set_weights(per_row)
    together = logits(base)
    for row in range(2):
        mixture.set_weights(per_row[row])
        assert torch.allclose(logits(base)[row], together[row], atol=1e-5)


def test_gradients_equal_those_of_plain_operations() -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5))
    routed = LoraModel(model, ("0",))
    layer = routed.layers["0"]
    u, v = torch.randn(5, 3, requires_grad=True), torch.randn(3, 6, requires_grad=True)
    for shape in ((3,), (2, 3)):
        weights = torch.randn(shape, requires_grad=True)
        x = torch.randn(2, 4, 6, requires_grad=True)
        routed.attach({"0": (u, v, weights)})
        ours = torch.autograd.grad(layer(x).sin().sum(), (x, u, v, weights))
        hidden = x @ v.T * (weights if weights.dim() == 1 else weights[:, None])
        plain = torch.nn.functional.linear(x, layer.weight, layer.bias) + hidden @ u.T
        expected = torch.autograd.grad(plain.sin().sum(), (x, u, v, weights))
        for got, want in zip(ours, expected, strict=True):
            assert torch.allclose(got, want, atol=1e-5)


def test_dropout_acts_in_training_only_and_keeps_the_mean() -> None:
    torch.manual_seed(2)
    routed = LoraModel(torch.nn.Sequential(torch.nn.Linear(8, 8)), ("0",))
    routed.attach({"0": (torch.randn(8, 4), torch.randn(4, 8), torch.ones(4))})
    x, layer = torch.randn(1, 8).expand(20000, 8), routed.layers["0"]
    still = layer(x)
    assert torch.equal(still, layer(x))
    routed.set_training(True, dropout=0.3)
    noisy = layer(x)
    assert not torch.equal(noisy, still)
    assert torch.allclose(noisy.mean(0), still[0], atol=0.15)
    routed.set_training(False)
    assert torch.equal(layer(x), still)


def test_base_weights_stay_byte_equal_under_routing(base: Base, experts: ExpertSet) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    mixture = Mixture(base, experts)
    mixture.set_weights(uniform(3))
    logits(base)
    base.lora.detach()
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_norms_from_gram_matrices_equal_those_of_the_deltas(base: Base, experts: ExpertSet) -> None:
    for name in base.lora.shapes:
        for b, a in experts.factors_of(name):
            assert squared_norm((b, a)) == pytest.approx(float((b @ a).square().sum()), abs=1e-5)


def test_rank_zero_everywhere_adds_nothing(base: Base, experts: ExpertSet) -> None:
    nothing = [replace(e, factors={n: (b[:, :0], a[:0]) for n, (b, a) in e.factors.items()}) for e in experts.experts]
    before, mixture = logits(base), Mixture(base, ExpertSet(tuple(nothing)))
    mixture.set_weights(torch.ones(1, 3))
    assert torch.equal(logits(base), before)
    assert torch.equal(mixture.descriptor("layer"), torch.ones(2, 3))
    empty = (torch.zeros(4, 0), torch.zeros(0, 3))
    b, a = concat_factors([empty, empty], torch.ones(2))
    assert torch.equal(b @ a, torch.zeros(4, 3))


def test_a_target_that_is_not_there_is_named() -> None:
    with pytest.raises(ExpertMismatch, match=r"no matrix '0\.q_proj'"):
        LoraModel(torch.nn.Sequential(torch.nn.Linear(2, 2)), ("0.q_proj",))


def test_weights_of_the_wrong_shape_are_refused(base: Base, experts: ExpertSet) -> None:
    with pytest.raises(ExpertMismatch, match="3 experts by task"):
        Mixture(base, experts).set_weights(torch.ones(1, 2))


def test_an_expert_of_some_modules_only_adds_nothing_to_the_others(base: Base, experts: ExpertSet) -> None:
    expert = random_expert(base, "partial", 1)
    missing = next(iter(expert.factors))
    del expert.factors[missing]
    fused = deltas_of(Mixture(base, ExpertSet((expert, experts.experts[0]))), torch.tensor([[1.0, 0.0]]))
    for name, change in fused.items():
        expected = torch.zeros_like(change) if name == missing else expert.factors[name][0] @ expert.factors[name][1]
        assert torch.allclose(change, expected, atol=1e-6)


def test_an_expert_with_modules_that_the_base_does_not_adapt_is_refused(base: Base) -> None:
    expert = random_expert(base, "odd", 1)
    expert.factors["lm_head"] = (torch.ones(257, 1), torch.ones(1, 32))
    with pytest.raises(ExpertMismatch, match=r"adapts 15 modules, 1 of which differ from this base.*lm_head: 257 x 32"):
        Mixture(base, ExpertSet((expert,)))
