"""Adaptation: early stopping, restarts, warm start, and every combination of settings by both methods."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import each, make_examples, random_expert
from hypothesis import given
from hypothesis import strategies as st

from staf.config import parse
from staf.errors import BaseMismatch, ConfigError, ExpertMismatch, TrainingFailed
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.routing.adapt import adapt_router, adaptation_digest, planned_progress, restart_seed
from staf.routing.cma import fit_cma
from staf.routing.gradient import fit_gradient, should_stop
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router, TaskPrompt
from staf.routing.summary import record_of, seed_rows, summarize_weights

FAST = {"max_evaluations": 24, "epochs": 2, "batch_size": 8, "learning_rate": 0.3}
LOSSES = st.lists(st.floats(0, 10), max_size=12)


@pytest.fixture
def mixture(base: Base, experts: ExpertSet) -> Mixture:
    return Mixture(base, experts)


def learn(mixture: Mixture, count: int = 12, init_from: Router | None = None, **changes: object) -> Router:
    settings = parse(RouterRecipe, {**FAST, **changes}, "a test")
    return adapt_router(mixture, "colour", make_examples(count, "adaptation"), settings, init_from=init_from)


def test_patience_by_hand() -> None:
    assert not should_stop([3, 2, 2], RouterRecipe(patience=2))
    assert should_stop([3, 2, 2, 2], RouterRecipe(patience=2))
    assert not should_stop([3, 2, 2, 1.9], RouterRecipe(patience=2))
    assert should_stop([3, 2, 2, 1.9], RouterRecipe(patience=2, tolerance=0.2))
    assert not should_stop([3, 3, 3, 3], RouterRecipe())


@given(LOSSES, st.integers(1, 4), st.floats(0, 1))
def test_patience_does_not_end_while_each_loss_is_better_and_always_where_none_is(
    losses: list[float], patience: int, tolerance: float
) -> None:
    falling = [10 - 2.0 * i for i in range(len(losses))]
    strict, lax = (RouterRecipe(patience=patience, tolerance=tolerance + more) for more in (0, 1))
    assert not should_stop(falling, strict)
    assert should_stop([1.0] * (patience + 1), strict)
    assert should_stop(losses, strict) <= should_stop(losses, lax)


def flat_after(generations: int) -> tuple[list[int], Callable[[np.ndarray], float]]:
    """A loss that falls for so many generations of 8 and then stands still."""
    calls: list[int] = []

    def loss_of(candidate: np.ndarray) -> float:
        calls.append(1)
        return max(10.0 - (len(calls) - 1) // 8, 10.0 - generations) + 1e-6 * float(np.abs(candidate).sum())

    return calls, loss_of


def test_a_search_that_is_no_longer_better_stops_and_says_so() -> None:
    calls, loss_of = flat_after(3)
    found = fit_cma(each(loss_of), np.zeros(4), RouterRecipe(max_evaluations=800, patience=4, tolerance=0.01))
    assert found.stop_reason == "patience=4"
    assert len(found.history) == 4 + 4
    assert len(calls) == found.steps == 64


def test_a_search_with_examples_held_out_keeps_what_they_judge_best() -> None:
    """The held-out loss turns up again while the other falls, so the vector is one of an early generation."""
    seen: list[np.ndarray] = []

    def held_out(candidate: np.ndarray) -> float:
        seen.append(candidate.copy())
        return float(np.abs(candidate - 1.0).sum())

    found = fit_cma(
        each(lambda c: float(((c - 3.0) ** 2).sum())), np.zeros(3),
        RouterRecipe(sigma0=0.3, max_evaluations=700, patience=6), validate=held_out,
    )  # fmt: skip
    losses = [float(np.abs(c - 1.0).sum()) for c in seen]
    assert found.loss == min(losses) < losses[-1]
    assert found.best.tolist() == torch.as_tensor(seen[losses.index(min(losses))], dtype=torch.float32).tolist()
    assert found.stop_reason == "patience=6"
    assert len(seen) == len(found.history) == losses.index(min(losses)) + 1 + 6


def test_a_descent_that_is_no_longer_better_stops_and_keeps_the_best() -> None:
    validated = iter([5.0, 3.0, 2.0, 2.5, 2.2, 2.1, 0.1])
    found = fit_gradient(
        lambda n, _: n.square().sum(), lambda _: next(validated), torch.ones(2),
        RouterRecipe(epochs=6, learning_rate=0.1, patience=2), batches=lambda _: range(3),
    )  # fmt: skip
    assert (found.loss, found.stop_reason, found.steps) == (2.0, "patience=2", 12)
    assert found.history == (5.0, 3.0, 2.0, 2.5, 2.2)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_judgement_that_is_not_a_number_stops_with_what_to_do(loss: float) -> None:
    with pytest.raises(TrainingFailed, match=r"after epoch 0\. Check the experts"):
        fit_gradient(lambda n, _: n.sum(), lambda _: loss, torch.ones(2), RouterRecipe(epochs=1), batches=lambda _: range(1))
    with pytest.raises(TrainingFailed, match=r"in generation 1\. Check the experts"):
        fit_cma(each(lambda c: 1.0), np.zeros(3), RouterRecipe(max_evaluations=8), validate=lambda c: loss)


def test_other_dice_in_the_program_do_not_change_a_search_and_it_throws_none_of_theirs() -> None:
    def plain(candidate: np.ndarray) -> float:
        return float((candidate**2).sum())

    def meddling(candidate: np.ndarray) -> float:
        np.random.seed(7)
        return plain(candidate)

    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    quiet = fit_cma(each(plain), np.ones(4), RouterRecipe(max_evaluations=64))
    assert np.array_equal(before, np.random.get_state()[1])
    assert fit_cma(each(meddling), np.ones(4), RouterRecipe(max_evaluations=64)).best.tolist() == quiet.best.tolist()


@pytest.mark.parametrize("method", ["gradient", "cma"])
def test_held_out_examples_take_no_part_in_the_fit(mixture: Mixture, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    from staf.routing.objective import LMLoss, RouterObjective

    fitted: set[str] = set()
    sets: list[set[str]] = []
    real_loss, real_loss_on = LMLoss.batch_loss, RouterObjective.loss_on

    def batch_loss(self: LMLoss, batch: list[int]) -> torch.Tensor:
        fitted.update(self.items[index].id for index in batch)
        return real_loss(self, batch)

    def loss_on(self: RouterObjective, items: list) -> object:
        sets.append({item.id for item in items})
        return real_loss_on(self, items)

    monkeypatch.setattr(LMLoss, "batch_loss", batch_loss)
    monkeypatch.setattr(RouterObjective, "loss_on", loss_on)
    router = learn(mixture, method=method, val_fraction=0.25)
    fit, held_out = sets[:2]
    assert router.record["validation_examples"] == len(held_out) == 3
    assert fit == {f"adaptation-{i}" for i in range(12)} - held_out
    assert method == "cma" or fitted == fit


def test_few_shots_are_all_fitted_on_unless_a_share_is_asked_for() -> None:
    assert RouterRecipe(method="cma").held_out_share == 0
    assert RouterRecipe(method="gradient").held_out_share == 0.2
    assert RouterRecipe(method="cma", val_fraction=0.5).held_out_share == 0.5
    assert RouterRecipe(method="gradient", val_fraction=0).held_out_share == 0
    with pytest.raises(ConfigError, match=r"tolerance = 0\.1 does nothing without patience"):
        parse(RouterRecipe, {"tolerance": 0.1}, "a test")


@pytest.mark.parametrize("method", ["gradient", "cma"])
def test_the_best_restart_is_kept_and_all_are_recorded(mixture: Mixture, method: str) -> None:
    seen: list[int] = []
    changes = {"method": method, "restarts": 3, "init_std": 1.0, "seed": 4, "max_evaluations": 21, "popsize": 7}
    settings = parse(RouterRecipe, {**FAST, **changes}, "a test")
    examples = make_examples(12, "adaptation")
    router = adapt_router(mixture, "colour", examples, settings, lambda done, _: seen.append(done))
    restarts = router.record["restarts"]
    assert [r["seed"] for r in restarts] == [4, restart_seed(4, 1), restart_seed(4, 2)]
    assert len({r["seed"] for r in restarts}) == len({str(r["weights"]) for r in restarts}) == 3
    best = router.record["restart"]
    assert router.record["loss"] == restarts[best]["loss"] == min(r["loss"] for r in restarts)
    assert restarts[best]["weights"] == router.mean_weights
    assert seen == sorted(seen)
    assert seen[-1] == planned_progress(12, settings)
    first = learn(mixture, **{**changes, "restarts": 1})
    assert first.record["loss"] == restarts[0]["loss"]  # the first restart is what there is without restarts
    shown = summarize_weights([router])
    assert shown.over == "3 restarts"
    assert shown.spread is not None
    assert shown.spread["relation"] == pytest.approx(statistics.stdev(r["weights"]["relation"] for r in restarts))


def test_a_warm_start_begins_where_the_other_router_ended(mixture: Mixture, experts: ExpertSet) -> None:
    first = learn(mixture, epochs=8)
    history = learn(mixture, epochs=8, init_from=first).record["history"]
    assert history[0] == pytest.approx(first.record["loss"], abs=1e-6)
    again = learn(mixture, method="cma", sigma0=0.1, init_from=first, restarts=2)
    assert again.record["init_from"] == {"task": "colour", "run": None}
    only = learn(mixture, method="cma", sigma0=0.1)
    assert again.record["loss"] < only.record["loss"]
    base, examples, settings = mixture.base, make_examples(4), RouterRecipe()
    names = {adaptation_digest(base.identity, experts, "t", examples, settings, s) for s in (None, first, again)}
    assert len(names) == 3


@pytest.mark.parametrize("seed", range(4))
def test_a_search_never_ends_worse_than_it_began(mixture: Mixture, seed: int) -> None:
    """At a first step size that leads far away from a good start."""
    first = learn(mixture, epochs=8, val_fraction=0)
    again = learn(mixture, method="cma", sigma0=3.0, max_evaluations=14, popsize=7, seed=seed, init_from=first)
    assert again.record["loss"] <= first.record["loss"] + 1e-6


def test_a_search_moves_only_b_and_with_one_expert_a_too(base: Base, mixture: Mixture) -> None:
    first = learn(mixture, epochs=8)
    again = learn(mixture, method="cma", init_from=first)
    assert torch.equal(again.params[:3], first.params[:3])
    assert not torch.equal(again.params[3:], first.params[3:])
    only = Mixture(base, ExpertSet((random_expert(base, "only", 0),)))
    router = learn(only, method="cma", weighting="unconstrained", init_std=0.3)
    assert router.record["tunable_parameters"] == len(router.params) == 2


def test_a_search_with_a_penalty_on_alpha_moves_a_too(mixture: Mixture) -> None:
    """SA-MDKIF's few-shot setting: the penalty acts, so a strong one keeps A near 0."""
    changes = {"method": "cma", "penalty": "alpha", "max_evaluations": 60, "init_std": 1.0}
    weak, strong = (learn(mixture, gamma_1=gamma_1, **changes) for gamma_1 in (0.0, 50.0))
    assert strong.record["tunable_parameters"] == 6
    assert float(strong.params[:3].norm()) < float(weak.params[:3].norm())


def test_candidates_of_a_generation_are_asked_for_together_and_the_first_is_the_start() -> None:
    asked: list[list[np.ndarray]] = []

    def losses_of(candidates: list[np.ndarray]) -> list[float]:
        asked.append([candidate.copy() for candidate in candidates])
        return [float(np.abs(candidate).sum()) for candidate in candidates]

    start = np.array([0.5, -0.25, 2.0])
    fit_cma(losses_of, start, RouterRecipe(max_evaluations=24, popsize=6, seed=3))
    assert [len(some) for some in asked] == [6] * 4
    assert asked[0][0] == pytest.approx(start, abs=1e-12)


@pytest.mark.parametrize("method", ["gradient", "cma"])
def test_what_is_held_out_judges_without_the_penalty(mixture: Mixture, method: str) -> None:
    """A penalty of 50 weighs more than any task loss of the tiny model; what judges does not see it."""
    judged = learn(mixture, method=method, val_fraction=0.25, gamma_1=50.0).record
    assert 0 < judged["loss"] < 10 < judged["penalty"]
    fitted = learn(mixture, method=method, val_fraction=0, gamma_1=50.0).record
    assert fitted["loss"] > fitted["penalty"] > 10


def test_later_restarts_begin_elsewhere(mixture: Mixture) -> None:
    for weighting in ("softmax", "l2", "unconstrained"):
        restarts = learn(
            mixture, weighting=weighting, restarts=3, epochs=1, learning_rate=1e-6, val_fraction=0, init_std=0.01
        ).record["restarts"]
        weights = np.array([list(restart["weights"].values()) for restart in restarts])
        assert np.abs(weights[1:] - weights[0]).max(1).min() > 0.05


def test_a_start_that_does_not_fit_is_refused(mixture: Mixture, experts: ExpertSet) -> None:
    first = learn(mixture, null_expert=True)
    with pytest.raises(
        ConfigError, match=r"it has granularity=task, null_expert=True, .* granularity=layer, null_expert=False"
    ):
        learn(mixture, granularity="layer", init_from=first)
    with pytest.raises(ConfigError, match=r"it has temperature=1\.0, this recipe has temperature=2\.0"):
        learn(mixture, null_expert=True, temperature=2.0, init_from=first)
    other = Mixture(mixture.base, ExpertSet((*experts.experts[:2], random_expert(mixture.base, "other", 5))))
    with pytest.raises(ExpertMismatch, match="was made for the experts attribute, relation, synonymy"):
        learn(other, null_expert=True, init_from=first)
    with pytest.raises(BaseMismatch, match="was made on elsewhere"):
        learn(mixture, null_expert=True, init_from=replace(first, base={"name": "elsewhere", "fingerprint": "0"}))


@pytest.mark.parametrize("weighting", ["unconstrained", "l2"])
@pytest.mark.parametrize("method", ["gradient", "cma"])
def test_weights_that_do_not_sum_to_one_learn_too(mixture: Mixture, method: str, weighting: str) -> None:
    router = learn(mixture, method=method, weighting=weighting, init_std=0.3)
    assert router.record["loss"] <= router.record["history"][0]
    assert abs(float(router.weights.sum()) - 1) > 1e-4
    if weighting == "l2":
        assert float(router.weights.norm()) == pytest.approx(1.0)


COMBINATIONS = list(
    itertools.product(("gradient", "cma"), ("task", "layer", "matrix"), ("weights", "alpha"), (False, True), (False, True))
)


# every two values of two settings together
PAIRS = {
    ("gradient", "task", "weights", False, True), ("gradient", "layer", "alpha", True, False),
    ("gradient", "matrix", "weights", True, True), ("gradient", "matrix", "alpha", False, False),
    ("cma", "task", "alpha", True, True), ("cma", "task", "weights", True, False),
    ("cma", "layer", "weights", False, True), ("cma", "matrix", "alpha", False, False),
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "granularity", "penalty", "null_expert", "learned_scale"),
    [pytest.param(*one, marks=[] if one in PAIRS else pytest.mark.slow) for one in COMBINATIONS],
)
def test_every_combination_learns(
    mixture: Mixture, method: str, granularity: str, penalty: str, null_expert: bool, learned_scale: bool
) -> None:
    """At a temperature that is not 1, with examples held out, patience and two restarts."""
    router = learn(
        mixture, method=method, granularity=granularity, penalty=penalty, null_expert=null_expert, temperature=0.7,
        learned_scale=learned_scale, val_fraction=0.25, patience=2, tolerance=1e-4, restarts=2,
        max_evaluations=120 if granularity == "matrix" else 24,
    )  # fmt: skip
    groups = {"task": 1, "layer": 2, "matrix": 14}[granularity]
    assert router.weights.shape == (groups, 3)
    slots = groups * (3 + null_expert)
    assert len(router.params) == 2 * slots + learned_scale
    assert router.record["tunable_parameters"] == slots * (1 if method == "cma" and penalty == "weights" else 2) + learned_scale
    assert bool((router.weights > 0).all())
    totals = router.weights.sum(1)
    if not learned_scale:
        assert bool((totals <= 1 + 1e-6).all())
        assert null_expert or torch.allclose(totals, torch.ones(groups))
    history = router.record["history"]
    assert router.record["loss"] == min(history) <= history[0]
    assert all(math.isfinite(loss) for loss in history)


def a_router(experts: ExpertSet, weights: list[float], seed: int, loss: float) -> Router:
    found = {"loss": loss, "stop_reason": "epochs=5", "seconds": 2.0}
    prompt = TaskPrompt("Name the colour.", ("blue", "red"), "multiple_choice", "colour", 512)
    base = {"name": "tiny", "fingerprint": "0"}
    return Router(
        "colour", prompt, RouterRecipe(seed=seed), torch.tensor([weights]), torch.zeros(6), experts.names, experts.fingerprint,
        base, {}, found,
    )  # fmt: skip


def test_weights_over_seeds_by_hand(experts: ExpertSet) -> None:
    routers = {
        Path("r/seed-0"): a_router(experts, [0.5, 0.25, 0.25], 0, 1.0),
        Path("r/seed-1"): a_router(experts, [1.0, 0.0, 0.0], 1, 3.0),
    }
    found = summarize_weights(list(routers.values()))
    assert found.weights == {"attribute": 0.75, "relation": 0.125, "synonymy": 0.125}
    assert found.spread is not None
    assert found.spread["attribute"] == pytest.approx(0.5 / math.sqrt(2))
    assert found.rows()[0] == {"expert": "attribute", "weight": "0.750", "spread over 2 seeds": "0.354", "": "█" * 30}
    rows = seed_rows(routers)
    assert [row["loss"] for row in rows] == ["1.000", "3.000", "2.000 ± 1.414"]
    whole = record_of(routers)
    assert whole["loss"] == {"mean": 2.0, "spread": pytest.approx(math.sqrt(2))}
    assert [one["folder"] for one in whole["routers"]] == ["r/seed-0", "r/seed-1"]
    single = summarize_weights([a_router(experts, [0.5, 0.25, 0.25], 0, 1.0)])
    assert (single.spread, single.over) == (None, None)
    assert single.rows()[0]["spread"] is None


def test_weights_of_one_router_vary_over_its_groups(experts: ExpertSet) -> None:
    router = replace(a_router(experts, [0, 0, 0], 0, 1.0), weights=torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    found = summarize_weights([router])
    assert found.over == "2 groups"
    assert found.spread is not None
    assert found.spread["synonymy"] == 0
    assert found.weights["attribute"] == 0.75


@pytest.mark.parametrize("learned_scale", [False, True])
def test_the_null_experts_share_and_the_scale_are_recorded(mixture: Mixture, learned_scale: bool) -> None:
    router = learn(mixture, method="cma", null_expert=True, learned_scale=learned_scale)
    other = router.other_weights
    scale = other.get("learned scale", 1.0)
    assert (scale != 1.0) == learned_scale
    assert other["base model (null expert)"] == pytest.approx(1 - float(router.weights.sum()) / scale, abs=1e-6)
    assert 0 < other["base model (null expert)"] < 1
    assert [row["expert"] for row in summarize_weights([router]).rows()] == [*router.experts, *other]
    assert summarize_weights([router, router]).other == pytest.approx(other)
    assert learn(mixture).other_weights == {}
