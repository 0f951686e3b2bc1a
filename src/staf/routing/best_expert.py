"""A router that gives nearly all weight to the expert with the lowest loss on a few examples (not in the papers).

    loss     L_i, the task loss of the base with expert i only, on the examples; K evaluations   Eq. 5
    router   b = 3 tau at the expert with the lowest L_i, 0 elsewhere; A = 0
    weights  R = softmax(b / tau): of 12 experts 0.65 for the best                               Eq. 3

It is meant as the start of a search (`adapt_router(init_from=...)`): from the average of twelve experts CMA-ES may need many
generations until a candidate gives the right expert much weight.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from staf.data.example import Example
from staf.data.splits import refuse_test
from staf.errors import MissingData, TrainingFailed
from staf.routing.merge import Mixture
from staf.routing.objective import RouterObjective, candidate_losses
from staf.routing.recipe import RouterRecipe
from staf.routing.router import one_hot
from staf.routing.store import Router

LEAD = 3.0
"""Logit of the best expert above the others', in units of the temperature."""


def best_expert_router(
    mixture: Mixture, task: str, examples: Sequence[Example], recipe: RouterRecipe,
    on_expert: Callable[[str, float], None] | None = None,
) -> Router:  # fmt: skip
    """A router for a task that prefers the expert with the lowest loss on the examples.

    Args:
        examples: adaptation examples, at least one.
        recipe: `temperature`, `objective`, `max_length` and `seed` are used.
        on_expert: called with each expert's name and loss.

    Raises:
        MissingData: no examples. TestLeak: a test example is among them. ConfigError: a query does not fit into `max_length`.
        TrainingFailed: no expert has a finite loss.
    """
    refuse_test(examples)
    if not examples:
        raise MissingData(f"no adaptation examples for '{task}'; at least 1 is needed. See: staf data list")
    started, names = time.perf_counter(), mixture.experts.names
    objective = RouterObjective(mixture, recipe)
    task_loss, losses = objective.loss_on(examples), {}
    for index, name in enumerate(names):
        (losses[name],) = candidate_losses(mixture, one_hot(index, len(names))[None], "task", task_loss)
        if on_expert is not None:
            on_expert(name, losses[name])
    finite = {name: loss for name, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise TrainingFailed(f"'{task}': none of the {len(names)} experts has a finite loss. Check the experts: staf env.")
    best = min(finite, key=lambda name: finite[name])
    logits = torch.tensor([LEAD * recipe.temperature * (name == best) for name in names])
    params = torch.cat([torch.zeros_like(logits), logits])
    record = {
        "loss": losses[best], "losses": {name: finite.get(name) for name in names}, "evaluations": len(names),
        "stop_reason": f"all {len(names)} experts evaluated", "tunable_parameters": 1, "seconds": time.perf_counter() - started,
    }  # fmt: skip
    return Router.of(mixture.base, mixture.experts, task, examples, recipe, objective.weights(params), params, record)
