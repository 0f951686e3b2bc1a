"""A router from the experts' own losses on a few examples: nearly all weight is the best one's (not in the papers).

    loss     L_i, the task loss of the base with expert i alone, on the examples; K passes      Eq. 5
    router   b = 3 tau at the expert with the least L_i, 0 elsewhere; A = 0
    weights  R = softmax(b / tau), of 12 experts 0.65 for the best                              Eq. 3

What it is for is to be the start of a search (`adapt_router(start=...)`). From the average of twelve experts CMA-ES may meet
no candidate for generations that gives the right expert much weight.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from staf import __version__
from staf.data.example import Example
from staf.data.splits import refuse_test
from staf.errors import MissingData, TrainingFailed
from staf.routing.merge import Mixture
from staf.routing.objective import RouterObjective
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router, refuse_more_than_a_row

LEAD = 3.0
"""By how much the logit of the best expert is above the others', in units of the temperature."""

OnExpert = Callable[[str, float], None]
"""called with each expert's name and loss"""


def best_expert_router(
    mixture: Mixture, task: str, examples: Sequence[Example], settings: RouterRecipe, on_expert: OnExpert | None = None
) -> Router:
    """A router for a task that leads with the expert whose loss on the examples is the lowest.

    Args:
        examples: adaptation examples, at least one.
        settings: `temperature`, `objective`, `max_length` and `seed` are used.

    Raises:
        MissingData: no examples. TestLeak: a test example is among them. ConfigError: settings that need learning, or a query
            that does not fit into `max_length`. TrainingFailed: no expert's loss is a number.
    """
    refuse_test(examples)
    refuse_more_than_a_row(settings, "a router of the best expert")
    if not examples:
        raise MissingData(f"no adaptation examples for '{task}'; at least 1 is needed. See: staf data list")
    started, names = time.perf_counter(), mixture.experts.names
    objective = RouterObjective(mixture, settings)
    judge, losses = objective.judge(examples), {}
    for name, alone in zip(names, torch.eye(len(names)), strict=True):
        losses[name] = judge(alone[None, None])[0]
        if on_expert is not None:
            on_expert(name, losses[name])
    finite = {name: loss for name, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise TrainingFailed(f"'{task}': no loss of the {len(names)} experts is a number. Check the experts: staf doctor.")
    best = min(finite, key=lambda name: finite[name])
    logits = torch.tensor([LEAD * settings.temperature * (name == best) for name in names])
    numbers = torch.cat([torch.zeros_like(logits), logits])
    ids = sorted(example.id for example in examples)
    record = {
        "loss": losses[best],
        "losses": losses,
        "stop_reason": f"all {len(names)} experts were tried",
        "evaluations": len(names),
        "examples": len(ids),
        "example_ids": ids,
        "tunable_parameters": 1,
        "seconds": time.perf_counter() - started,
        "versions": {"staf": __version__, "torch": torch.__version__},
    }
    experts, base = mixture.experts, mixture.base.identity
    return Router(task, settings, objective.weights(numbers), numbers, experts.names, experts.fingerprint, base, record)
