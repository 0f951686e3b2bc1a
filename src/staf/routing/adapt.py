"""Stage II: a task's router from its adaptation examples (STAF-LLM, Algorithm 2).

Both settings minimise L_task + gamma_1 L_r (Eq. 6) over the same numbers; they differ only in how: Adam or CMA-ES.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from staf import __version__
from staf.config import RouterSettings
from staf.data.batches import Batch, Encoded, by_length, collate, encode, epoch_order
from staf.data.example import Example
from staf.data.splits import refuse_test
from staf.errors import MissingData
from staf.lm.loss import answer_loss, mean_loss
from staf.routing import evolution, gradient
from staf.routing.mixture import Mixture
from staf.routing.router import (
    RouterShape,
    alpha_penalty,
    expert_weights,
    initial_params,
    unflatten,
    weight_penalty,
)
from staf.routing.store import Router

OnProgress = Callable[[int, float], None]
"""called with the steps or evaluations done, and the loss"""
TOKEN_BUDGET = 8192


class RouterObjective:
    """The loss of a router's numbers on encoded examples."""

    def __init__(self, mixture: Mixture, settings: RouterSettings) -> None:
        self.mixture, self.settings = mixture, settings
        self.descriptor = mixture.descriptor(settings.granularity).cpu()
        self.shape = RouterShape(
            groups=self.descriptor.shape[0],
            experts=self.descriptor.shape[1],
            null_expert=settings.null_expert,
            learned_scale=settings.learned_scale,
            temperature=settings.temperature,
        )

    def weights(self, numbers: Tensor) -> Tensor:
        """Expert weights (G, K) of the numbers (n,)."""
        return expert_weights(unflatten(numbers, self.shape), self.descriptor, self.shape)

    def penalty(self, numbers: Tensor) -> Tensor:
        """gamma_1 L_r of the numbers (n,)."""
        params = unflatten(numbers, self.shape)
        if self.settings.penalty == "alpha":
            value = alpha_penalty(params)
        else:
            value = weight_penalty(expert_weights(params, self.descriptor, self.shape))
        return self.settings.penalty_strength * value

    def total(self, numbers: Tensor, batch: Batch) -> Tensor:
        """L_total of one batch; gradients flow to the numbers."""
        self.mixture.set_weights(self.weights(numbers), self.settings.granularity)
        loss, count = answer_loss(self.mixture.base, batch)
        return loss / count + self.penalty(numbers).to(loss.device)  # Eq. 6

    def value(self, numbers: Tensor, batches: list[Batch]) -> float:
        """L_total over all batches, without gradients."""
        with torch.no_grad():
            self.mixture.set_weights(self.weights(numbers), self.settings.granularity)
            return mean_loss(self.mixture.base, batches) + float(self.penalty(numbers))  # Eq. 6


def planned_progress(examples: int, settings: RouterSettings) -> int:
    """Candidates or steps that an adaptation to so many examples takes."""
    if settings.method == "cma":
        return settings.evaluations
    return settings.epochs * -(-(examples - _held_out(examples, settings)) // settings.batch_size)


def _held_out(examples: int, settings: RouterSettings) -> int:
    """Adaptation examples that pick the best epoch and take no part in the descent."""
    return max(int(examples * settings.validation_share), 1) if settings.validation_share > 0 else 0


def adapt_router(
    mixture: Mixture,
    task: str,
    examples: Sequence[Example],
    settings: RouterSettings,
    on_progress: OnProgress | None = None,
) -> Router:
    """Learn a router for a task from its adaptation examples.

    Raises:
        MissingData: no examples. TestLeak: a test example is among them. TrainingFailed: no finite loss.
    """
    refuse_test(examples)
    if len(examples) < 2:
        raise MissingData(f"{len(examples)} adaptation examples for '{task}'; at least 2 are needed. See: staf data list")
    started = time.perf_counter()
    base = mixture.base
    objective = RouterObjective(mixture, settings)
    items = [encode(example, base.tokenizer, settings.max_tokens) for example in examples]
    start = initial_params(objective.shape, settings.seed, settings.initial_deviation)
    try:
        method = _few_shot if settings.method == "cma" else _normal
        numbers, found = method(objective, items, start, on_progress)
    finally:
        base.routed.set_gain({})
    record = {
        **found,
        "examples": len(examples),
        "example_ids": sorted(example.id for example in examples),
        "examples_fingerprint": hashlib.sha256("/".join(sorted(e.id for e in examples)).encode()).hexdigest()[:16],
        "tunable_parameters": objective.shape.numbers,
        "prompt_tokens": sum(len(item.tokens) for item in items),
        "seconds": time.perf_counter() - started,
        "versions": {"staf": __version__, "torch": torch.__version__},
    }
    weights = objective.weights(numbers).detach()
    experts = mixture.experts
    return Router(task, settings, weights, numbers, experts.names, experts.fingerprint, base.identity, record)


def _batches(objective: RouterObjective, items: Sequence[Encoded]) -> list[Batch]:
    base = objective.mixture.base
    groups = by_length([len(item.tokens) for item in items], TOKEN_BUDGET)
    return [collate([items[i] for i in group], base.tokenizer.pad_token_id or 0, base.device) for group in groups]


def _few_shot(
    objective: RouterObjective, items: Sequence[Encoded], start: Tensor, on_progress: OnProgress | None
) -> tuple[Tensor, dict[str, Any]]:
    settings = objective.settings
    batches = _batches(objective, items)

    def loss_of(candidate: np.ndarray) -> float:
        return objective.value(torch.as_tensor(candidate, dtype=torch.float32), batches)

    def on_generation(evaluations: int, loss: float) -> None:
        if on_progress is not None:
            on_progress(evaluations, loss)

    result = evolution.search(
        loss_of, start.numpy(), deviation=settings.deviation, evaluations=settings.evaluations, seed=settings.seed,
        population=settings.population, on_generation=on_generation,
    )  # fmt: skip
    found = {
        "loss": result.loss,
        "history": list(result.history),
        "stopped_because": result.stopped_because,
        "evaluations": result.evaluations,
    }
    return torch.as_tensor(result.best, dtype=torch.float32), found


def _normal(
    objective: RouterObjective, items: Sequence[Encoded], start: Tensor, on_progress: OnProgress | None
) -> tuple[Tensor, dict[str, Any]]:
    settings, base = objective.settings, objective.mixture.base
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    held = _held_out(len(items), settings)
    judged = [items[i] for i in order[:held]] or list(items)
    learned = [items[i] for i in order[held:]]
    lengths = [len(item.tokens) for item in learned]
    validation = _batches(objective, judged)
    plans = [epoch_order(lengths, settings.batch_size, settings.seed, epoch) for epoch in range(settings.epochs)]
    flat = [(epoch, place) for epoch, plan in enumerate(plans) for place in range(len(plan))]

    def loss_of(numbers: Tensor, batch: int) -> Tensor:
        epoch, place = flat[batch]
        chosen = [learned[i] for i in plans[epoch][place]]
        return objective.total(numbers, collate(chosen, base.tokenizer.pad_token_id or 0, base.device))

    def on_step(steps: int, loss: float) -> None:
        if on_progress is not None:
            on_progress(steps, loss)

    result = gradient.descend(
        loss_of, lambda numbers: objective.value(numbers, validation), start,
        order=lambda epoch: [i for i, (e, _) in enumerate(flat) if e == epoch],
        epochs=settings.epochs, learning_rate=settings.learning_rate, on_step=on_step,
    )  # fmt: skip
    found = {
        "loss": result.loss,
        "history": list(result.history),
        "stopped_because": result.stopped_because,
        "validation_examples": held,
    }
    return result.best, found
