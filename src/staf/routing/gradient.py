"""Normal setting: a router's numbers by gradient descent (STAF-LLM, section 3.3.2).

The best epoch is picked on a part of the adaptation set that takes no part in the descent; the test set is never seen.
Knows nothing of language models: the loss of a batch comes in as a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from staf.errors import TrainingFailed


@dataclass(frozen=True)
class DescentResult:
    """What a descent found, and why it ended."""

    best: Tensor
    """(n,) numbers of the best epoch"""
    loss: float
    """validation loss of that epoch"""
    history: tuple[float, ...]
    """validation loss before the first epoch and after each"""
    stopped_because: str


def descend(
    loss_of: Callable[[Tensor, int], Tensor],
    validation_loss: Callable[[Tensor], float],
    start: Tensor,
    *,
    order: Callable[[int], Sequence[int]],
    epochs: int,
    learning_rate: float,
    on_step: Callable[[int, float], None] | None = None,
) -> DescentResult:
    """Minimise the mean of `loss_of(numbers, batch)` by Adam from `start` (n,).

    Args:
        order: the batches of an epoch, as numbers that `loss_of` understands.
        validation_loss: judges the numbers after each epoch; the start is judged too.

    Raises:
        TrainingFailed: a loss is not a number.
    """
    numbers = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([numbers], lr=learning_rate)
    history = [validation_loss(numbers.detach())]
    best, best_loss = numbers.detach().clone(), history[0]
    steps, total = 0, epochs * len(order(0))
    for epoch in range(epochs):
        for batch in order(epoch):
            optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * steps / total))
            optimizer.zero_grad()
            loss = loss_of(numbers, batch)
            if not bool(torch.isfinite(loss)):
                raise TrainingFailed(f"the router's loss is {loss.item()} in epoch {epoch + 1}. Lower its learning_rate.")
            loss.backward()
            optimizer.step()
            steps += 1
            if on_step is not None:
                on_step(steps, loss.item())
        history.append(validation_loss(numbers.detach()))
        if history[-1] < best_loss:
            best, best_loss = numbers.detach().clone(), history[-1]
    return DescentResult(best, best_loss, tuple(history), f"epochs={epochs}")
