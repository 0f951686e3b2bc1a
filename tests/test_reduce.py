"""Fewer ranks and fewer experts: the error that is reported is that of the dense matrices, and nothing does better."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import deltas_of, make_examples, random_expert
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from staf.cli import app
from staf.errors import ConfigError, ExpertMismatch
from staf.experts.adapter import Factors
from staf.experts.reduce import concat_factors, reduce_expert, reduce_set, relative_error, truncate_rank
from staf.experts.sets import write_set
from staf.experts.store import Expert, ExpertSet, load_expert, load_experts, training_run_of
from staf.lm.base import Base
from staf.routing.merge import Mixture, module_groups
from staf.routing.pruning import heaviest, prune_by_router, pruned_weights, pruning_error
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router, save_router


def drawn(d_out: int, d_in: int, rank: int, seed: int) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((d_out, rank), (rank,), (rank, d_in))
    u, singular, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return u * singular, v


@settings(max_examples=60)
@given(
    d_out=st.integers(1, 9), d_in=st.integers(1, 9), rank=st.integers(0, 12), wanted=st.integers(1, 12), seed=st.integers(0, 99)
)
def test_the_error_is_that_of_the_dense_matrices_and_the_least_there_is(
    d_out: int, d_in: int, rank: int, wanted: int, seed: int
) -> None:
    factors = drawn(d_out, d_in, rank, seed)
    found = truncate_rank(factors, wanted)
    b, a = found.factors
    assert a.shape[0] <= min(rank, wanted, d_out, d_in)
    dense = (factors[0] @ factors[1]).numpy()
    error = np.linalg.norm(dense - (b @ a).numpy())
    assert found.discarded_energy**0.5 == pytest.approx(error, abs=1e-9)
    assert found.total_energy**0.5 == pytest.approx(np.linalg.norm(dense), abs=1e-9)
    values = np.linalg.svd(dense, compute_uv=False)
    assert error == pytest.approx(
        np.linalg.norm(values[wanted:]), abs=1e-9
    )  # Eckart and Young: no matrix of the rank is nearer
    norms = b.norm(dim=0)
    assert b.T @ b == pytest.approx(np.diag(norms.square().numpy()), abs=1e-9)
    assert a @ a.T == pytest.approx(np.eye(len(norms)), abs=1e-9)
    assert norms.tolist() == sorted(norms.tolist(), reverse=True)


def test_by_hand() -> None:
    """diag(3, 4) in the plane: rank 1 keeps the 4, and 3 of a norm of 5 is lost."""
    found = truncate_rank((torch.diag(torch.tensor([3.0, -4.0])), torch.eye(2)), 1)
    b, a = found.factors
    assert (found.discarded_energy, found.total_energy) == pytest.approx((9.0, 25.0))
    assert relative_error([found]) == pytest.approx(0.6)
    assert b[:, 0].tolist() == pytest.approx([0.0, 4.0])
    assert a[0].tolist() == pytest.approx([0.0, -1.0])


def test_the_whole_rank_costs_nothing_and_the_same_twice_takes_no_more_rank() -> None:
    factors = drawn(8, 7, 3, 0)
    doubled = concat_factors([factors, factors], torch.tensor([0.5, 1.5], dtype=torch.float64))
    found = truncate_rank(doubled, 6)
    assert found.factors[1].shape == (3, 7)
    assert relative_error([found]) < 1e-12
    assert torch.allclose(torch.matmul(*found.factors), 2 * torch.matmul(*factors))


def test_nothing_at_all_has_rank_zero() -> None:
    for factors in (drawn(4, 3, 0, 0), (torch.zeros(4, 2), torch.ones(2, 3))):
        found = truncate_rank(factors, 2)
        assert found.factors[1].numel() == 0
        assert relative_error([found]) == 0.0


def test_the_same_factors_give_the_same_bytes_whatever_their_signs() -> None:
    b, a = (part.float() for part in drawn(9, 6, 4, 1))
    first = truncate_rank((b, a), 2).factors
    again = truncate_rank((b, a), 2).factors
    assert all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(first, again, strict=True))
    turned = truncate_rank((-b, -a), 2).factors
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(first, turned, strict=True))
    assert first[0].dtype == torch.float32


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank = 0 cannot be kept"):
        truncate_rank(drawn(3, 3, 2, 0), 0)


def dense_of(expert: Expert) -> dict[str, torch.Tensor]:
    return {name: (b @ a).double() for name, (b, a) in expert.factors.items()}


def distance(mine: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Frobenius norm of the difference over all matrices, divided by that of the second."""
    lost = sum(float((mine[name] - other[name]).square().sum()) for name in other)
    return float((lost / sum(float(matrix.square().sum()) for matrix in other.values())) ** 0.5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_error_of_an_expert_is_over_all_its_matrices(base: Base, rank: int) -> None:
    expert = random_expert(base, "relation", seed=1, scale=2.5)
    smaller, error = reduce_expert(expert, rank)
    assert error == pytest.approx(distance(dense_of(smaller), dense_of(expert)), abs=1e-6)
    assert (error < 1e-6) == (rank == 3)
    assert all(smaller.ranks[name] == min(rank, kept) for name, kept in expert.ranks.items())
    assert (smaller.name, smaller.base, smaller.dedup_keys) == (expert.name, expert.base, expert.dedup_keys)


def test_a_smaller_expert_is_not_taken_for_a_finished_training(base: Base, tmp_path: Path) -> None:
    expert = random_expert(base, "relation", seed=1)
    reduce_set(ExpertSet((expert,)), 1, tmp_path / "small")
    assert expert.record["run"] == "run-relation"
    assert training_run_of(tmp_path / "small" / "relation") is None
    record = load_expert(tmp_path / "small" / "relation").record["reduced"]
    assert (record["from"], record["rank"]) == (expert.fingerprint, 1)


def a_router(base: Base, experts: ExpertSet, weights: torch.Tensor, granularity: str) -> Router:
    chosen = RouterRecipe.model_validate({"granularity": granularity})
    return Router.of(
        base, experts, "colour", make_examples(2, "adaptation"), chosen, weights, torch.zeros(2 * weights.numel()), {}
    )


def groups_of(base: Base, granularity: str) -> dict[str, int]:
    return dict(zip(base.lora.layers, module_groups(base, granularity), strict=True))


@pytest.mark.parametrize("granularity", ["task", "layer", "matrix"])
def test_the_groups_are_those_that_a_mixture_routes_by(base: Base, experts: ExpertSet, granularity: str) -> None:
    mixture, groups = Mixture(base, experts), groups_of(base, granularity)
    weights = torch.rand(max(groups.values()) + 1, 3, generator=torch.Generator().manual_seed(3))
    mixture.set_weights(weights, granularity)
    assert list(groups) == list(mixture.stacks)
    for name, layer in base.lora.layers.items():
        assert torch.equal(layer.rank_scale, weights[groups[name]][mixture.stacks[name].expert_index])


@pytest.mark.parametrize("granularity", ["task", "layer", "matrix"])
def test_a_truncated_weighted_sum_is_the_mixture_up_to_its_error(base: Base, experts: ExpertSet, granularity: str) -> None:
    mixture = Mixture(base, experts)
    groups = groups_of(base, granularity)
    weights = torch.rand(max(groups.values()) + 1, 3, generator=torch.Generator().manual_seed(3))
    whole = {name: change.double() for name, change in deltas_of(mixture, weights, granularity).items()}
    errors = []
    for rank in (1, 3, 9):
        parts = {
            name: truncate_rank(concat_factors(experts.factors_of(name), weights[groups[name]]), rank)
            for name in experts.shapes
        }
        merged = Expert("all", base.identity, {name: part.factors for name, part in parts.items()}, experts.dedup_keys)
        error = relative_error(list(parts.values()))
        assert max(merged.ranks.values()) <= rank
        assert error == pytest.approx(distance(dense_of(merged), whole), abs=1e-6)
        errors.append(error)
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6  # the sum of the ranks is enough
    one = deltas_of(Mixture(base, ExpertSet((merged,))), torch.ones(1, 1))
    assert all(torch.allclose(one[name].double(), change, atol=1e-5) for name, change in whole.items())


@pytest.mark.parametrize("granularity", ["task", "layer", "matrix"])
@pytest.mark.parametrize("kept", [(0,), (0, 2), (0, 1, 2)])
def test_what_pruning_loses_is_the_norm_of_the_others_sum(
    base: Base, experts: ExpertSet, granularity: str, kept: tuple[int, ...]
) -> None:
    mixture, groups = Mixture(base, experts), groups_of(base, granularity)
    weights = torch.rand(max(groups.values()) + 1, 3, generator=torch.Generator().manual_seed(4)) - 0.3
    left = weights.clone()
    left[:, [index for index in range(3) if index not in kept]] = 0
    whole, rest = deltas_of(mixture, weights, granularity), deltas_of(mixture, left, granularity)
    assert pruning_error(experts, weights, kept, groups) == pytest.approx(distance(rest, whole), abs=1e-5)


def test_the_heaviest_and_those_above_a_threshold_by_hand() -> None:
    weights = torch.tensor([[0.1, 0.6, 0.3], [0.3, 0.0, 0.7]])  # means 0.2, 0.3, 0.5
    assert heaviest(weights, 2) == (1, 2)
    assert heaviest(weights, 3) == (0, 1, 2)
    assert heaviest(torch.ones(1, 4), 2) == (0, 1)  # ties go to the first
    assert pruned_weights(weights, (1, 2)).tolist() == [pytest.approx([2 / 3, 1 / 3]), pytest.approx([0.0, 1.0])]
    assert pruned_weights(torch.tensor([[1.0, 0.0]]), (1,)).tolist() == [[0.0]]


def test_keeping_nobody_is_refused() -> None:
    weights = torch.tensor([[0.25, 0.75]])
    for count in (0, 3):
        with pytest.raises(ConfigError, match=f"{count} of 2 experts cannot be kept: give 1 to 2"):
            heaviest(weights, count)


@pytest.mark.parametrize("granularity", ["task", "layer"])
def test_pruning_by_a_router_keeps_its_heaviest_experts(base: Base, experts: ExpertSet, granularity: str) -> None:
    groups = groups_of(base, granularity)
    weights = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.6, 0.2]])[: max(groups.values()) + 1]
    found, share = prune_by_router(experts, a_router(base, experts, weights, granularity), 2)
    assert found.names == ("relation", "synonymy")
    assert share == pytest.approx(pruning_error(experts, weights, (1, 2), groups))
    with pytest.raises(ExpertMismatch, match="Adapt again"):
        prune_by_router(found, a_router(base, experts, weights, granularity), 1)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_reduces_ranks_experts_or_both(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    folder, router = tmp_path / "set", tmp_path / "router"
    write_set(folder, experts.experts)
    save_router(router, a_router(base, experts, torch.tensor([[0.1, 0.6, 0.3]]), "task"))
    found = json.loads(run("experts", "reduce", folder, tmp_path / "a", "--rank", 1, "--json"))
    loaded = load_experts(folder)
    assert [row["error"] for row in found["experts"]] == [round(reduce_expert(e, 1)[1], 6) for e in loaded.experts]
    assert all(max(expert.ranks.values()) == 1 for expert in load_experts(tmp_path / "a").experts)
    assert found["lost_by_pruning"] is None
    table = run("experts", "reduce", folder, tmp_path / "b", "--router", router, "--keep", 2)
    error = pruning_error(experts, torch.tensor([[0.1, 0.6, 0.3]]), (1, 2), dict.fromkeys(experts.shapes, 0))
    assert f"{error:.1%} of the norm" in table
    assert load_experts(tmp_path / "b").fingerprint == ExpertSet(experts.experts[1:]).fingerprint
    both = json.loads(run("experts", "reduce", folder, tmp_path / "c", "--rank", 2, "--router", router, "--keep", 1, "--json"))
    assert [(row["expert"], row["average_rank"] < row["average_rank_before"]) for row in both["experts"]] == [
        ("relation", True)
    ]
    assert load_experts(folder).fingerprint == experts.fingerprint  # the set itself is as it was
    assert replace(load_expert(tmp_path / "b" / "relation"), factors={}) == replace(experts.experts[1], factors={})


@pytest.mark.parametrize("options", [[], ["--keep", "2"], ["--router", "somewhere"], ["--rank", "2", "--keep", "1"]])
def test_half_of_an_order_is_refused(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(ConfigError, match="needs --rank, or --router and --keep together"):
        run("experts", "reduce", tmp_path, tmp_path / "out", *options)
