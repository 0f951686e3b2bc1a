"""The router of the best expert: its losses are those of plain forwards, and a search goes on from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_examples, random_expert

from staf.config import parse
from staf.errors import ConfigError, MissingData, TestLeak, TrainingFailed
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.lm.batches import collate, encode
from staf.lm.loss import answer_loss
from staf.routing.adapt import adapt_router
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.router import expert_weights, one_hot
from staf.routing.searchless import LEAD, best_expert_router
from staf.routing.store import load_router, save_router

EXAMPLES = make_examples(6, "adaptation")


def chosen(**changes: Any) -> RouterRecipe:
    return RouterRecipe(**{"method": "best_expert", "max_length": 128, **changes})


def test_the_losses_are_those_of_forwards_with_one_expert_each(base: Base, experts: ExpertSet) -> None:
    mixture = Mixture(base, experts)
    router = best_expert_router(mixture, "colour", EXAMPLES, chosen())
    batch = collate([encode(example, base.tokenizer, 128) for example in EXAMPLES], base.device)
    plain = {}
    for index, name in enumerate(experts.names):
        mixture.set_weights(one_hot(index, len(experts.names)), "task")
        loss, count = answer_loss(base, batch)
        plain[name] = float(loss) / count
    base.lora.set_rank_scale({})
    assert router.record["losses"] == pytest.approx(plain, abs=1e-4)
    assert router.mean_weights[min(plain, key=plain.__getitem__)] == router.weights.max()
    assert (router.record["loss"], router.record["evaluations"]) == (min(router.record["losses"].values()), 3)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_best_has_its_lead_at_any_temperature_and_the_numbers_give_the_weights(
    base: Base, experts: ExpertSet, temperature: float
) -> None:
    mixture = Mixture(base, experts)
    router = best_expert_router(mixture, "colour", EXAMPLES, chosen(temperature=temperature))
    assert float(router.weights.max()) == pytest.approx(math.exp(LEAD) / (math.exp(LEAD) + 2))
    assert torch.allclose(expert_weights(router.params, mixture.descriptor("task"), router.recipe), router.weights)


def test_neither_the_order_of_experts_nor_that_of_examples_matters(base: Base, experts: ExpertSet) -> None:
    reported: list[tuple[str, float]] = []
    one = best_expert_router(Mixture(base, experts), "colour", EXAMPLES, chosen(), lambda *found: reported.append(found))
    turned = ExpertSet(experts.experts[::-1])
    other = best_expert_router(Mixture(base, turned), "colour", EXAMPLES[::-1], chosen())
    assert one.mean_weights == pytest.approx(other.mean_weights)
    assert dict(reported) == one.record["losses"] == pytest.approx(other.record["losses"], abs=1e-5)


def test_a_search_from_it_is_no_worse_than_it(base: Base, experts: ExpertSet) -> None:
    mixture = Mixture(base, experts)
    start = best_expert_router(mixture, "colour", EXAMPLES, chosen())
    searching = RouterRecipe(method="cma", max_evaluations=12, popsize=6, max_length=128)
    found = adapt_router(mixture, "colour", EXAMPLES, searching, init_from=start)
    at_start = adapt_router(mixture, "colour", EXAMPLES, searching.model_copy(update={"sigma0": 1e-9}), init_from=start)
    assert found.record["history"][-1] <= at_start.record["history"][0] + 1e-6
    assert at_start.mean_weights == pytest.approx(start.mean_weights)


def test_an_expert_whose_loss_is_no_number_is_passed_over(base: Base, experts: ExpertSet) -> None:
    broken = random_expert(base, "broken", 5, scale=1e30)
    router = best_expert_router(Mixture(base, ExpertSet((*experts.experts, broken))), "colour", EXAMPLES, chosen())
    assert router.record["losses"]["broken"] is None
    assert router.mean_weights["broken"] < 0.1
    with pytest.raises(TrainingFailed, match="'colour': none of the 1 experts has a finite loss"):
        best_expert_router(Mixture(base, ExpertSet((broken,))), "colour", EXAMPLES, chosen())


def test_what_is_no_example_or_needs_learning_is_refused(base: Base, experts: ExpertSet) -> None:
    mixture = Mixture(base, experts)
    with pytest.raises(TestLeak, match="test-0"):
        best_expert_router(mixture, "colour", make_examples(2, "test"), chosen())
    with pytest.raises(MissingData, match="no adaptation examples for 'colour'"):
        best_expert_router(mixture, "colour", [], chosen())
    with pytest.raises(ConfigError, match="weighting = unconstrained needs learning: a best-expert router"):
        parse(RouterRecipe, {"method": "best_expert", "weighting": "unconstrained"}, "a test")


def test_it_is_saved_and_loaded_as_any_router(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    router = best_expert_router(Mixture(base, experts), "colour", EXAMPLES, chosen())
    save_router(tmp_path, router)
    found = load_router(tmp_path)
    assert torch.equal(found.params, router.params)
    assert (found.recipe, found.record) == (router.recipe, router.record)
