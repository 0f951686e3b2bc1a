"""Route-then-tune (not in the papers): a router's mixture as one adapter of a low rank, trained on the router's own examples.

The weighted sum of the experts' products is cut to the rank without forming a matrix (`staf.experts.reduce`). AdamW moves
the factors down the router's own loss, and each step ends with a decay towards their start, which is implicit: what was
learned is divided by 1 + rate * anchor, so no anchor is too large. Folds of the examples choose the number of steps by the
loss of what is held out. Where no number is better there than the router, which has learned from every fold, the router
stays as it is.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from statistics import fmean
from typing import Any

import torch

from staf.data.answers import labels_in
from staf.data.example import Example
from staf.data.splits import refuse_test, seeded_rng
from staf.errors import ConfigError, MissingData, TrainingFailed
from staf.experts.adapter import Factors
from staf.experts.reduce import Truncated, truncate_rank
from staf.experts.store import ExpertSet
from staf.experts.train import lr_multiplier
from staf.lm.base import Base
from staf.lm.batches import epoch_order
from staf.routing.merge import Mixture
from staf.routing.objective import RouterObjective, TaskLoss, examples_a_step
from staf.routing.recipe import TuneRecipe
from staf.routing.store import Router

STOPS = 3
"""Numbers of steps that the folds choose from, evenly spaced."""
OnLoss = Callable[[float], None]
"""called with the loss of each step"""


@dataclass(frozen=True)
class Tuned:
    """What tuning found."""

    factors: dict[str, Factors] | None
    """of the adapter by module name, on the CPU; None where the router stays as it is"""
    record: dict[str, Any]
    """whether it was kept, the steps, held-out losses (of the router, by number of steps, and of each fold), the settings"""
    seconds: float


def truncated_mixture(experts: ExpertSet, router: Router, rank: int) -> dict[str, Truncated]:
    """The router's mixture as one adapter of at most `rank`, the best of that rank in each module."""
    return {module: truncate_rank(router.factors_of(experts, module), rank) for module in experts.shapes}


def routed_factors(experts: ExpertSet, router: Router, rank: int) -> dict[str, Factors]:
    """The factors of `truncated_mixture`."""
    return {module: part.factors for module, part in truncated_mixture(experts, router, rank).items()}


@contextmanager
def attached(base: Base, factors: Mapping[str, Factors]) -> Iterator[None]:
    """The base with an adapter; afterwards the original model."""
    try:
        ones = {name: torch.ones(len(a), device=base.device) for name, (_, a) in factors.items()}
        base.lora.attach({name: (b.to(base.dtype), a.to(base.dtype), ones[name]) for name, (b, a) in factors.items()})
        yield
    finally:
        base.lora.detach()


class Tuning:
    """An adapter that moves away from its start on some examples.

    Args:
        total: steps of the schedule, at which the learning rate is 0.
    """

    def __init__(
        self, base: Base, start: Mapping[str, Factors], loss: TaskLoss, recipe: TuneRecipe, batch_size: int, seed: int,
        total: int,
    ) -> None:  # fmt: skip
        self.base, self.loss, self.recipe, self.total, self.step = base, loss, recipe, total, 0
        self.start = {name: (b.to(base.device), a.to(base.device)) for name, (b, a) in start.items()}
        self.moved = {
            name: tuple(torch.zeros_like(part, requires_grad=True) for part in pair) for name, pair in self.start.items()
        }
        self.params = [part for pair in self.moved.values() for part in pair if part.numel()]
        self.optimizer = torch.optim.AdamW(self.params, weight_decay=0.0, fused=True)
        orders = (epoch_order(loss.lengths, batch_size, seed, epoch) for epoch in count())
        self.batches = (batch for order in orders for batch in order)

    @property
    def factors(self) -> dict[str, Factors]:
        """The adapter as it is now."""
        return {name: (b + self.moved[name][0], a + self.moved[name][1]) for name, (b, a) in self.start.items()}

    def run_until(self, step: int, on_loss: OnLoss | None = None) -> dict[str, Factors]:
        """The adapter after a number of steps.

        Raises:
            TrainingFailed: a loss is not finite.
        """
        while self.step < step:
            with attached(self.base, self.factors):
                value = self._backward(next(self.batches))
            rate = self.recipe.learning_rate * lr_multiplier(self.step, self.total)
            self.optimizer.param_groups[0]["lr"] = rate
            self.optimizer.step()
            with torch.no_grad():
                for part in self.params:
                    part.div_(1 + rate * self.recipe.anchor)
            self.step += 1
            if on_loss is not None:
                on_loss(value)
        return {name: (b.detach(), a.detach()) for name, (b, a) in self.factors.items()}

    def _backward(self, batch: Sequence[int]) -> float:
        """The loss of some examples, whose gradient replaces the last one."""
        self.optimizer.zero_grad()
        loss = self.loss.batch_loss(batch)
        if not math.isfinite(value := loss.item()):
            raise TrainingFailed(f"the loss of tuning is {value} in step {self.step + 1}. Lower its learning_rate.")
        loss.backward()
        return value


def folds_of(examples: Sequence[Example], most: int, seed: int) -> list[list[int]]:
    """Indices of the examples in each fold, at most `most`: a group lies in one, and each label is spread over them.

    Raises:
        MissingData: fewer than two groups.
    """
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.group or example.id, []).append(index)
    if len(groups) < 2:
        raise MissingData("the examples are of one group, so none can be held out to judge tuning. Give more shots.")
    folds: list[list[int]] = [[] for _ in range(min(most, len(groups)))]
    labels = [Counter[str]() for _ in folds]
    for name in sorted(seeded_rng(f"folds:{seed}").sample(sorted(groups), len(groups)), key=lambda name: -len(groups[name])):
        own = Counter(label for index in groups[name] for label in labels_in(examples[index]))
        place = min(range(len(folds)), key=lambda fold: (sum(labels[fold][label] for label in own), len(folds[fold])))
        folds[place] += groups[name]
        labels[place].update(own)
    return [sorted(fold) for fold in folds]


def chosen_steps(router_loss: float, stops: Sequence[int], losses: Sequence[float]) -> int:
    """The number of steps with the lowest held-out loss; 0 where none is below the router's."""
    loss, steps = min(zip(losses, stops, strict=True))
    return steps if loss < router_loss else 0


def tune_router(
    mixture: Mixture, router: Router, examples: Sequence[Example], recipe: TuneRecipe, on_loss: OnLoss | None = None
) -> Tuned:
    """Tune a router's mixture on the examples that it was learned from, and keep it where that helps on held-out ones.

    Args:
        on_loss: called with the loss of each step, about `recipe.steps` times the number of folds in all.

    Raises:
        TestLeak: a test example is among those given. MissingData: they are of one group. TrainingFailed: no finite loss.
        ConfigError: the router's mixture is zero, or the base is in float16.
    """
    refuse_test(examples)
    started, objective, seed = time.perf_counter(), RouterObjective(mixture, router.recipe), router.recipe.seed
    start, folds = routed_factors(mixture.experts, router, recipe.rank), folds_of(examples, recipe.folds, seed)
    if not any(len(a) for _, a in start.values()):
        raise ConfigError(f"the experts of the router for '{router.task}' change nothing, so there is nothing to tune.")
    batch_size = examples_a_step(router.recipe.model_copy(update={"batch_size": recipe.batch_size}))

    def tuning(some: Sequence[Example]) -> Tuning:
        total = max(round(recipe.steps * len(some) / len(examples)), 1)
        return Tuning(mixture.base, start, objective.loss_on(some), recipe, batch_size, seed, total)

    stops = sorted({-(-recipe.steps * part // STOPS) for part in range(1, STOPS + 1)})
    rows = list[dict[str, Any]]()
    for fold in folds:
        held, losses = objective.loss_on([examples[index] for index in fold]), list[float]()
        one = tuning([example for index, example in enumerate(examples) if index not in fold])
        for steps in stops:
            with attached(mixture.base, one.run_until(round(steps / recipe.steps * one.total), on_loss)):
                losses.append(held())
        rows.append({"examples": len(fold), "router_loss": _routed_loss(mixture, router, held), "losses": losses})
    sizes = [len(fold) for fold in folds]
    router_loss = fmean([row["router_loss"] for row in rows], sizes)
    means = [fmean(losses, sizes) for losses in zip(*(row["losses"] for row in rows), strict=True)]
    steps = chosen_steps(router_loss, stops, means)
    factors = {n: (b.cpu(), a.cpu()) for n, (b, a) in tuning(examples).run_until(steps, on_loss).items()} if steps else None
    record = {
        "kept": steps > 0, "steps": steps, "router_loss": router_loss, "stops": stops, "losses": means, "folds": rows,
        "recipe": recipe.model_dump(),
    }  # fmt: skip
    return Tuned(factors, record, time.perf_counter() - started)


def _routed_loss(mixture: Mixture, router: Router, loss: TaskLoss) -> float:
    """The loss of the router on some examples, computed as the tuned adapter's is."""
    try:
        mixture.set_weights(router.weights, router.recipe.granularity)
        return loss()
    finally:
        mixture.base.lora.set_rank_scale({})
