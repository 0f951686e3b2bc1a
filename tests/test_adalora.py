"""AdaLoRA: laws of the budget, an independent reference (peft), and the flat layout against plain autograd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from staf.experts import adalora
from staf.experts.adalora import TrainableFactors

SHAPES = {"a.q": (8, 6), "a.k": (4, 6), "b.q": (8, 6), "b.down": (6, 10)}


@given(
    matrices=st.integers(1, 50), initial=st.integers(1, 20), target=st.integers(0, 20),
    warmup=st.integers(0, 40), final=st.integers(0, 40), middle=st.integers(1, 60),
)  # fmt: skip
@settings(max_examples=200)
def test_the_budget_never_grows_and_ends_at_the_target(
    matrices: int, initial: int, target: int, warmup: int, final: int, middle: int
) -> None:
    target, total = min(initial, target), warmup + final + middle
    plan = {
        "modules": matrices, "initial_rank": initial, "target_rank": target,
        "tinit": warmup, "tfinal": final, "total": total,
    }  # fmt: skip
    budgets = [adalora.budget(step, **plan) for step in range(total + 1)]
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[0] <= matrices * initial
    assert all(b == matrices * initial for b in budgets[:warmup])
    assert all(b == matrices * target for b in budgets[total - final :])


def test_the_budget_falls_by_the_cube_between_warmup_and_final() -> None:
    plan = {"modules": 10, "initial_rank": 12, "target_rank": 4, "tinit": 20, "tfinal": 30, "total": 150}
    half = adalora.budget(70, **plan)
    assert half == 40 + int(80 * 0.5**3)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=40), st.integers(0, 45))
@settings(max_examples=200)
def test_exactly_the_budget_is_kept_also_under_ties(values: list[float], keep: int) -> None:
    scores = torch.tensor(values)
    mask = adalora.top_mask(scores, keep)
    assert int(mask.sum()) == min(keep, len(values))
    if 0 < keep < len(values):
        assert scores[mask].min() >= scores[~mask].max()


def test_ties_in_bfloat16_keep_exactly_the_budget() -> None:
    assert int(adalora.top_mask(torch.ones(48, dtype=torch.bfloat16), 17).sum()) == 17


def test_orthogonality_is_the_squared_norm_and_zero_for_orthonormal_factors() -> None:
    u, v = torch.linalg.qr(torch.randn(9, 3))[0], torch.linalg.qr(torch.randn(7, 3))[0].T
    assert float(adalora.orthogonality(u, v)) < 1e-10
    by_hand = torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0, 1.0]])
    assert float(adalora.orthogonality(*by_hand)) == pytest.approx((4 - 1) ** 2 + (2 - 1) ** 2)


def test_the_importance_of_a_triplet_by_hand() -> None:
    scores = adalora.triplet_scores(torch.tensor([5.0]), torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0, 8.0, 0.0]]))
    assert scores.tolist() == [5.0 + 2.0 + 4.0]


def trainable(rank: int = 3) -> TrainableFactors:
    factors = TrainableFactors(SHAPES, rank, 5, torch.device("cpu"))
    generator = torch.Generator().manual_seed(6)
    factors.master_params.data.add_(torch.randn(factors.master_params.shape, generator=generator) * 0.3)
    factors.grad.copy_(torch.randn(factors.grad.shape, generator=generator))
    return factors


def by_matrix(factors: TrainableFactors) -> Iterator[tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Name, then U, V and lambda of each matrix, then their gradients."""
    for values, grads in zip(factors.blocks(factors.master_params.detach()), factors.blocks(factors.grad), strict=True):
        for i, name in enumerate(values.names):
            yield name, *({"U": block.u[i], "V": block.v[i], "lambda": block.singular[i]} for block in (values, grads))


def test_our_step_equals_pefts_smoothed_one_on_the_same_tensors() -> None:
    """Peft's RankAllocator on the same parameters and gradients: same importance after three steps, same mask."""
    from peft import AdaLoraConfig
    from peft.tuners.adalora.layer import RankAllocator

    ours = trainable()

    class Model(torch.nn.Module):
        pass

    model = Model()
    for name, value, gradient in by_matrix(ours):
        part = name.replace(".", "_")
        for letter, tensor, grad in (
            ("A", value["V"], gradient["V"]),
            ("B", value["U"], gradient["U"]),
            ("E", value["lambda"][:, None], gradient["lambda"][:, None]),
        ):
            parameter = torch.nn.Parameter(tensor.detach().clone())
            parameter.grad = grad.clone()
            model.register_parameter(f"{part}_lora_{letter}_default", parameter)
    model.named_parameters_ = dict(model.named_parameters())

    class Named:
        def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
            return [(n.replace("_lora_", ".lora_").replace("_default", ".default"), p) for n, p in model.named_parameters()]

        def state_dict(self) -> dict[str, torch.Tensor]:
            return dict(self.named_parameters())

    config = AdaLoraConfig(init_r=3, target_r=1, total_step=100, tinit=0, tfinal=0, beta1=0.85, beta2=0.7, r=8, lora_alpha=8)
    allocator = RankAllocator(Named(), config, "default")
    for _ in range(3):
        allocator.update_ipt(Named())
        scores = ours.scores("smoothed", 0.85, 0.7)
    keep = 5
    ours.prune_to_budget(scores, keep)
    pattern = allocator.mask_to_budget(Named(), keep)
    theirs = {name.split(".")[0].replace("_lora", ""): kept for name, kept in pattern.items()}
    for index, name in enumerate(ours.names):
        assert ours.mask[index].tolist() == theirs[name.replace(".", "_")], name


def test_raw_and_smoothed_importance_differ_and_raw_keeps_no_average() -> None:
    factors = trainable()
    raw = factors.scores("raw", 0.85, 0.85)
    assert torch.equal(raw, factors.scores("raw", 0.85, 0.85))
    assert float(factors.average.abs().sum()) == 0
    assert not torch.allclose(raw, factors.scores("smoothed", 0.85, 0.85))


def test_block_scores_equal_the_formula_matrix_by_matrix() -> None:
    factors = trainable()
    scores = factors.scores("raw", 0.85, 0.85)
    for row, (_, value, grad) in enumerate(by_matrix(factors)):
        expected = adalora.triplet_scores(*((value[part] * grad[part]).abs() for part in ("lambda", "U", "V")))
        assert torch.allclose(scores[row], expected, atol=1e-6)


def test_the_penalty_and_its_gradient_are_those_of_each_matrix() -> None:
    factors = trainable()
    factors.grad.zero_()
    value = factors.add_orthogonality(0.5)
    copies = {
        name: (value["U"].clone().requires_grad_(), value["V"].clone().requires_grad_())
        for name, value, _ in by_matrix(factors)
    }
    expected = 0.5 * sum(adalora.orthogonality(u, v) for u, v in copies.values())
    assert value == pytest.approx(expected.item(), rel=1e-5)
    for name, _, grad in by_matrix(factors):
        u, v = copies[name]
        assert torch.allclose(grad["U"], 0.5 * 4 * u @ (u.mT @ u - torch.eye(3)), atol=1e-4)
        assert torch.allclose(grad["V"], 0.5 * 4 * (v @ v.mT - torch.eye(3)) @ v, atol=1e-4)


def test_a_fresh_expert_is_orthonormal_and_changes_nothing() -> None:
    factors = TrainableFactors(SHAPES, 3, 1, torch.device("cpu"))
    assert factors.add_orthogonality(1.0) == pytest.approx(0, abs=1e-8)
    assert float(factors.lambdas(factors.master_params.detach()).abs().sum()) == 0


def test_a_cut_keeps_shapes_while_training_and_drops_ranks_at_the_end() -> None:
    factors = trainable()
    factors.prune_to_budget(torch.arange(12.0).view(4, 3), keep=4)
    assert factors.mask.sum(1).tolist() == [0, 0, 1, 3]
    assert float(factors.lambdas(factors.master_params.detach())[~factors.mask].abs().sum()) == 0
    final = factors.folded(2.0)
    assert {name: a.shape[0] for name, (_, a) in final.items()} == dict(zip(factors.names, (0, 0, 1, 3), strict=True))
    for name, value, _ in by_matrix(factors):
        b, a = final[name]
        assert torch.allclose(b @ a, 2.0 * (value["U"] * value["lambda"]) @ value["V"], atol=1e-5)
