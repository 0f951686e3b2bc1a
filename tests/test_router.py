"""Routers: laws of the weights, a planted weight vector found by both settings, NaN, and the same bytes for the same seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import each, make_examples

from staf.config import parse
from staf.errors import ConfigError, MissingData, TestLeak, TrainingFailed
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.routing.adapt import adapt_router, planned_progress
from staf.routing.cma import fit_cma, rank_non_finite_last
from staf.routing.gradient import fit_gradient
from staf.routing.merge import Mixture
from staf.routing.objective import RouterObjective
from staf.routing.recipe import RouterRecipe
from staf.routing.router import (
    alpha_penalty,
    expert_weights,
    initial_params,
    num_params,
    one_hot,
    uniform,
    weight_penalty,
)


def weights_of(numbers: list[float] | torch.Tensor, descriptor: torch.Tensor, **changes: object) -> torch.Tensor:
    return expert_weights(torch.as_tensor(numbers), descriptor, RouterRecipe.model_validate(changes))


@pytest.mark.parametrize("groups", [1, 4])
def test_softmax_weights_sum_to_one_in_every_group(groups: int) -> None:
    numbers = initial_params(num_params(groups, 5, RouterRecipe()), RouterRecipe(init_std=1.0))
    weights = weights_of(numbers, torch.rand(groups, 5) + 0.5)
    assert weights.shape == (groups, 5)
    assert torch.allclose(weights.sum(1), torch.ones(groups))
    assert bool((weights > 0).all())


def test_the_logits_are_alpha_times_descriptor_plus_bias_by_hand() -> None:
    weights = weights_of([1.0, 3.0, 0.5, -0.5], torch.tensor([[2.0, 1.0]]), temperature=2.0)
    e = np.exp(np.array([1.0 * 2.0 + 0.5, 3.0 * 1.0 - 0.5]) / 2.0)
    assert weights[0].tolist() == pytest.approx((e / e.sum()).tolist())


def test_a_high_temperature_evens_the_weights_out() -> None:
    numbers = [1.0, 2.0, 3.0, 0.0, 0.0, 0.0]
    assert torch.allclose(weights_of(numbers, torch.ones(1, 3), temperature=100.0), uniform(3), atol=0.01)
    assert torch.allclose(weights_of(numbers, torch.ones(1, 3), temperature=0.01), one_hot(2, 3), atol=1e-6)


def test_the_null_expert_takes_its_share_from_the_others() -> None:
    assert num_params(1, 2, RouterRecipe(null_expert=True)) == 6
    weights = weights_of(torch.zeros(6), torch.ones(1, 2), null_expert=True)
    assert weights[0].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert weights_of([0.0, 0, 0, 50.0, 0, 0], torch.ones(1, 2), null_expert=True).sum() < 1e-6


def test_the_learned_scale_multiplies_all_weights_and_starts_at_one() -> None:
    scaled = RouterRecipe(learned_scale=True, init_std=0.5)
    start = initial_params(num_params(1, 2, scaled), scaled)
    assert expert_weights(start, torch.ones(1, 2), scaled).sum().item() == pytest.approx(1.0)
    start[-1] = math.log(3.0)
    assert expert_weights(start, torch.ones(1, 2), scaled).sum().item() == pytest.approx(3.0)


def test_free_weights_are_the_average_and_the_logits_and_unit_ones_have_length_one() -> None:
    numbers = torch.tensor([1.0, -2.0, 0.5, 0.5])
    logits = torch.tensor([[1.0 * 2 + 0.5, -2.0 * 1 + 0.5]])
    descriptor = torch.tensor([[2.0, 1.0]])
    assert torch.equal(weights_of(numbers, descriptor, weighting="unconstrained"), logits + 0.5)
    found = weights_of(numbers, descriptor, weighting="l2")
    assert torch.allclose(found, logits / logits.norm())
    assert torch.equal(weights_of(torch.zeros(4), descriptor, weighting="unconstrained"), uniform(2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weighting": "unconstrained", "null_expert": True}, "no slot"),
        ({"weighting": "unconstrained", "learned_scale": True}, "every scale"),
    ],
)
def test_weightings_that_contradict_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(RouterRecipe, values, "a test")


def test_both_penalties_by_hand() -> None:
    assert weight_penalty(torch.tensor([[0.5, 0.5], [1.0, 0.0]])).item() == pytest.approx((0.5 + 1.0) / 2)
    params = torch.tensor([1.0, 2.0, 0.0, 1.0, 9.0, 9.0, 9.0, 9.0])
    assert alpha_penalty(params, 2, RouterRecipe()).item() == pytest.approx((1 + 4 + 0 + 1) / 2)


def planted(numbers: np.ndarray) -> float:
    return float(((numbers - np.array([1.5, -0.5, 0.25, 3.0])) ** 2).sum())


def test_cma_finds_a_planted_vector_and_says_why_it_stopped() -> None:
    result = fit_cma(each(planted), np.zeros(4), RouterRecipe(max_evaluations=2000))
    assert result.best.tolist() == pytest.approx([1.5, -0.5, 0.25, 3.0], abs=1e-3)
    assert result.stop_reason
    assert list(result.history) == sorted(result.history, reverse=True)
    short = fit_cma(each(planted), np.zeros(4), RouterRecipe(max_evaluations=16))
    assert short.stop_reason == "max_evaluations=16"
    assert short.steps == 16


def test_the_same_seed_searches_alike_and_another_does_not() -> None:
    recipes = [RouterRecipe(max_evaluations=80, seed=seed) for seed in (0, 0, 1)]
    runs = [fit_cma(each(planted), np.zeros(4), recipe).best.numpy() for recipe in recipes]
    assert runs[0].tobytes() == runs[1].tobytes() != runs[2].tobytes()


def test_a_loss_that_is_not_a_number_ranks_worst() -> None:
    assert rank_non_finite_last([1.0, math.nan, -2.0, math.inf]) == [1.0, 3.0, -2.0, 3.0]
    with pytest.raises(TrainingFailed, match="all 2 candidates"):
        rank_non_finite_last([math.nan, math.inf])

    def often_nan(numbers: np.ndarray) -> float:
        return math.nan if numbers[0] < 0 else planted(numbers)

    result = fit_cma(each(often_nan), np.zeros(4), RouterRecipe(max_evaluations=1500))
    assert result.best.tolist() == pytest.approx([1.5, -0.5, 0.25, 3.0], abs=0.01)


def test_descent_keeps_the_best_epoch_and_refuses_nan() -> None:
    goal = torch.tensor([0.3, -0.2])
    validated = iter([5.0, 1.0, 3.0, 4.0])
    result = fit_gradient(
        lambda n, _: (n - goal).square().sum(), lambda _: next(validated), torch.zeros(2),
        RouterRecipe(epochs=3, learning_rate=0.1), batches=lambda _: range(3),
    )  # fmt: skip
    assert (result.loss, result.history) == (1.0, (5.0, 1.0, 3.0, 4.0))
    with pytest.raises(TrainingFailed, match="epoch 1"):
        fit_gradient(
            lambda n, _: n.sum() * math.nan,
            lambda _: 0.0,
            torch.zeros(2),
            RouterRecipe(epochs=1, learning_rate=1),
            batches=lambda _: range(1),
        )


@pytest.mark.parametrize("method", ["gradient", "cma"])
def test_a_planted_weight_vector_is_recovered_from_its_distribution(base: Base, experts: ExpertSet, method: str) -> None:
    """The loss is the divergence from the logits of a model with planted weights, so the planted weights are the optimum."""
    mixture = Mixture(base, experts)
    ids = torch.randint(1, 250, (6, 24), generator=torch.Generator().manual_seed(9))
    planted_weights = torch.tensor([[0.15, 0.7, 0.15]])
    with torch.no_grad():
        mixture.set_weights(planted_weights)
        target = torch.log_softmax(base.logits(base.hidden_states(ids).flatten(0, 1)), -1)
    recipe = RouterRecipe(max_evaluations=400, epochs=4, learning_rate=0.1)
    descriptor = mixture.descriptor("task")

    def divergence(numbers: torch.Tensor) -> torch.Tensor:
        mixture.set_weights(expert_weights(numbers, descriptor, recipe))
        found = torch.log_softmax(base.logits(base.hidden_states(ids).flatten(0, 1)), -1)
        return torch.nn.functional.kl_div(found, target, log_target=True, reduction="batchmean")

    start = initial_params(6, recipe)
    if method == "cma":
        with torch.no_grad():
            best = fit_cma(
                each(lambda n: divergence(torch.as_tensor(n, dtype=torch.float32)).item()), start.numpy(), recipe
            ).best  # fmt: skip
        numbers = torch.as_tensor(best, dtype=torch.float32)
    else:
        numbers = fit_gradient(
            lambda n, _: divergence(n), lambda n: divergence(n).item(), start, recipe, batches=lambda _: range(50)
        ).best  # fmt: skip
    found = expert_weights(numbers, descriptor, recipe)
    assert torch.allclose(found, planted_weights, atol=0.02)


@pytest.mark.parametrize("granularity", ["task", "layer", "matrix"])
@pytest.mark.parametrize("method", ["gradient", "cma"])
def test_adaptation_lowers_the_loss_and_repeats_bit_for_bit(
    base: Base, experts: ExpertSet, granularity: str, method: str
) -> None:
    mixture = Mixture(base, experts)
    examples = make_examples(24, split="adaptation")
    settings = RouterRecipe(
        method=method, granularity=granularity, max_evaluations=64, epochs=3, learning_rate=0.3, batch_size=8, null_expert=True,
        learned_scale=granularity == "layer",
    )  # fmt: skip
    first, again = (adapt_router(mixture, "colour", examples, settings) for _ in range(2))
    assert first.weights.numpy().tobytes() == again.weights.numpy().tobytes()
    history = first.record["history"]
    assert min(history) < history[0]
    groups = {"task": 1, "layer": 2, "matrix": 14}[granularity]
    assert first.weights.shape == (groups, 3)
    assert first.record["tunable_parameters"] == (1 if method == "cma" else 2) * groups * 4 + (granularity == "layer")
    assert first.record["stop_reason"]
    assert len(first.record["example_ids"]) == 24


def test_more_parameters_than_evaluations_are_refused_for_cma(base: Base, experts: ExpertSet) -> None:
    recipe = RouterRecipe(method="cma", granularity="matrix", max_evaluations=41)
    with pytest.raises(ConfigError, match="gives CMA-ES 42 parameters, more than max_evaluations = 41"):
        adapt_router(Mixture(base, experts), "colour", make_examples(8, "adaptation"), recipe)


def test_progress_counts_every_step(base: Base, experts: ExpertSet) -> None:
    settings = RouterRecipe(epochs=2, batch_size=8)
    seen: list[int] = []
    adapt_router(Mixture(base, experts), "t", make_examples(24, "adaptation"), settings, lambda done, _: seen.append(done))
    assert seen == list(range(1, planned_progress(24, settings) + 1))


def test_the_penalty_moves_the_optimum_towards_even_weights(base: Base, experts: ExpertSet) -> None:
    objective = RouterObjective(Mixture(base, experts), RouterRecipe(gamma_1=2.0))
    numbers = torch.zeros(6)
    assert objective.penalty(numbers).item() == pytest.approx(2.0 / 3)
    assert objective.penalty(torch.tensor([0, 0, 0, 9.0, 0, 0])).item() > 1.9
    alpha = RouterObjective(objective.mixture, RouterRecipe(penalty="alpha", gamma_1=2.0))
    assert alpha.penalty(torch.tensor([1.0, 2, 0, 9.0, 9, 9])).item() == pytest.approx(10.0)


def test_nothing_is_fitted_on_a_test_split(base: Base, experts: ExpertSet) -> None:
    mixture = Mixture(base, experts)
    with pytest.raises(TestLeak, match="test-0"):
        adapt_router(mixture, "colour", make_examples(8, split="test"), RouterRecipe())
    with pytest.raises(MissingData, match="1 adaptation examples"):
        adapt_router(mixture, "colour", make_examples(1, split="adaptation"), RouterRecipe())


def test_experts_and_base_stay_byte_equal_through_adaptation(base: Base, experts: ExpertSet) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    prints = [expert.fingerprint for expert in experts.experts]
    adapt_router(Mixture(base, experts), "colour", make_examples(16, "adaptation"), RouterRecipe(epochs=1))
    assert [expert.fingerprint for expert in experts.experts] == prints
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())
