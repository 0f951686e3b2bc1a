"""The loss over labels: by hand, equal with and without gradients, lowered by both methods, refused without labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import make_examples

from staf.config import parse
from staf.errors import ConfigError
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.lm.scoring import score_labels
from staf.routing.adapt import adapt_router, planned_progress
from staf.routing.merge import Mixture
from staf.routing.objective import LABELS_A_STEP, LabelLoss, candidate_losses
from staf.routing.recipe import RouterRecipe

BUDGET = {"max_length": 200, "token_budget": 512}


@pytest.fixture
def mixture(base: Base, experts: ExpertSet) -> Mixture:
    return Mixture(base, experts)


def test_the_loss_is_the_mean_of_minus_log_of_the_right_share(mixture: Mixture) -> None:
    examples, weights = make_examples(7, "adaptation"), torch.tensor([[[0.2, -0.3, 1.1]], [[0.0, 0.0, 0.0]]])
    found = candidate_losses(mixture, weights, "task", LabelLoss(mixture.base, examples, 200, 0))
    for loss, one in zip(found, weights, strict=True):
        mixture.set_weights(one)
        scores = score_labels(mixture.base, examples, length_normalised=False, **BUDGET)
        mixture.base.lora.set_rank_scale({})
        shares = [s.softmax(0)[e.labels.index(e.answer)] for s, e in zip(scores, examples, strict=True)]
        assert loss == pytest.approx(-float(torch.stack(shares).log().mean()), abs=1e-5)


@pytest.mark.parametrize("granularity", ["task", "layer"])
def test_steps_have_the_same_loss_and_its_gradient(mixture: Mixture, granularity: str) -> None:
    examples = make_examples(5, "adaptation")
    groups = {"task": 1, "layer": 2}[granularity]
    weights = torch.randn(groups, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label_loss = LabelLoss(mixture.base, examples, 200, 0)
    mixture.set_weights(weights, granularity)
    loss = label_loss.batch_loss(range(5))
    loss.backward()
    mixture.base.lora.set_rank_scale({})
    assert loss.item() == pytest.approx(candidate_losses(mixture, weights[None], granularity, label_loss)[0], abs=1e-5)
    assert weights.grad is not None
    nudge = torch.zeros_like(weights)
    nudge[0, 1] = 0.01
    above, below = candidate_losses(mixture, torch.stack([weights + nudge, weights - nudge]), granularity, label_loss)
    assert float(weights.grad[0, 1]) == pytest.approx((above - below) / 0.02, rel=0.02, abs=1e-3)


def test_many_labels_are_drawn_the_same_way_again_with_the_right_one_first(base: Base) -> None:
    labels = tuple(f"colour {i}" for i in range(20))
    examples = [replace(e, labels=labels, answer=labels[i]) for i, e in enumerate(make_examples(4, "adaptation"))]
    first, again, other = (LabelLoss(base, examples, 200, seed).rows for seed in (0, 0, 1))
    assert first == again
    assert first != other
    for rows, example in zip(first, examples, strict=True):
        assert len(rows) == LABELS_A_STEP == len({row.tokens for row in rows})
        assert base.tokenizer.decode(rows[0].tokens[rows[0].answer_start :]).strip() == example.answer


@pytest.mark.parametrize("method", ["gradient", "cma"])
def test_both_methods_lower_it(mixture: Mixture, method: str) -> None:
    settings = parse(
        RouterRecipe,
        {"method": method, "objective": "label_ce", "weighting": "unconstrained", "max_evaluations": 40, "epochs": 3,
         "batch_size": 4, "learning_rate": 0.2, "init_std": 0.1, "max_length": 200, "val_fraction": 0},
        "a test",
    )  # fmt: skip
    router = adapt_router(mixture, "colour", make_examples(12, "adaptation"), settings)
    assert router.record["loss"] < router.record["history"][0]
    assert all(layer.rank_scale is None for layer in mixture.base.lora.layers.values())


def test_a_step_takes_fewer_examples_and_all_steps_are_planned(mixture: Mixture) -> None:
    settings = RouterRecipe(objective="label_ce", batch_size=16, epochs=2, val_fraction=0, max_length=200)
    seen: list[int] = []
    examples = make_examples(12, "adaptation")
    adapt_router(mixture, "colour", examples, settings, lambda done, _: seen.append(done))
    assert len(seen) == 2 * 12 // (16 // LABELS_A_STEP) == planned_progress(12, settings)


@pytest.mark.parametrize("method", ["gradient", "cma"])
def test_tasks_without_one_right_label_are_refused(mixture: Mixture, method: str) -> None:
    examples = [replace(example, output_type="generate_until", labels=()) for example in make_examples(4, "adaptation")]
    settings = RouterRecipe(objective="label_ce", method=method)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"adaptation-\d has the output type 'generate_until' and 0 labels. Use objective = lm"
    ):
        adapt_router(mixture, "colour", examples, settings)
