"""Normal setting: a router's numbers by gradient descent (STAF-LLM, section 3.3.2).

The best epoch is picked on a part of the adaptation set that takes no part in the descent; the test set is never seen.
Knows nothing of language models: the loss of a batch comes in as a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from staf.errors import TrainingFailed
from staf.routing.stopping import judged, spent

B = TypeVar("B")
"""What names a batch."""


@dataclass(frozen=True)
class DescentState:
    """A descent after some epochs: with its arguments, its whole state."""

    epochs: int
    numbers: Tensor
    """(n,)"""
    first: Tensor
    """(n,) Adam's mean of the gradients"""
    second: Tensor
    """(n,) Adam's mean of their squares"""
    best: Tensor
    """(n,) numbers of the best epoch so far"""
    history: tuple[float, ...]
    """validation loss before the first epoch and after each"""


@dataclass(frozen=True)
class DescentResult:
    """What a descent found, and why it ended."""

    best: Tensor
    """(n,) numbers of the best epoch"""
    loss: float
    """validation loss of that epoch"""
    history: tuple[float, ...]
    """validation loss before the first epoch and after each"""
    steps: int
    stop_reason: str
    """'epochs=5' or 'patience=2'"""


class _Descent:
    """The numbers, their optimiser, and how they were judged."""

    def __init__(self, start: Tensor, learning_rate: float) -> None:
        self.numbers = start.clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.numbers], lr=learning_rate)
        self.best, self.history = start.clone(), list[float]()

    def load(self, state: DescentState, steps: int) -> None:
        """Go on from a state that is `steps` steps old."""
        with torch.no_grad():
            self.numbers.copy_(state.numbers)
        moments = {"step": torch.tensor(float(steps)), "exp_avg": state.first.clone(), "exp_avg_sq": state.second.clone()}
        self.optimizer.state[self.numbers] = moments
        self.best, self.history = state.best.clone(), list(state.history)

    def state(self) -> DescentState:
        """The state after the last epoch judged."""
        moments = self.optimizer.state[self.numbers]
        return DescentState(
            len(self.history) - 1, self.numbers.detach().clone(), moments["exp_avg"].clone(), moments["exp_avg_sq"].clone(),
            self.best, tuple(self.history),
        )  # fmt: skip

    def judge(self, validation_loss: Callable[[Tensor], float]) -> None:
        """Judge the numbers as they are now, and remember them if they are the best."""
        loss = judged(validation_loss(self.numbers.detach()), f"after epoch {len(self.history)}")
        if not self.history or loss < min(self.history):
            self.best = self.numbers.detach().clone()
        self.history.append(loss)

    def step(self, loss: Tensor, rate: float) -> None:
        """One step of Adam."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def fit_gradient(
    loss_of: Callable[[Tensor, B], Tensor],
    validation_loss: Callable[[Tensor], float],
    start: Tensor,
    *,
    order: Callable[[int], Sequence[B]],
    epochs: int,
    learning_rate: float,
    on_step: Callable[[int, float], None] | None = None,
    patience: int | None = None,
    tolerance: float = 0.0,
    state: DescentState | None = None,
    keep: Callable[[DescentState], None] | None = None,
) -> DescentResult:
    """Minimise the mean of `loss_of(numbers, batch)` by Adam from `start` (n,).

    Args:
        order: the batches of an epoch, as `loss_of` understands them; as many in each epoch.
        validation_loss: judges the numbers after each epoch; the start is judged too.
        on_step: called with the steps so far and the last one's loss; once for all steps before a descent is gone on with.
        patience, tolerance: stop after so many epochs that are no better by more than that; None never stops early.
        state: a stopped descent of the same arguments, to go on with. keep: given the state after each epoch.

    Raises:
        TrainingFailed: a loss is not a number.
    """
    report = on_step or (lambda steps, loss: None)
    running, per_epoch, done = _Descent(start, learning_rate), len(order(0)), 0
    if state is None:
        running.judge(validation_loss)
    else:
        done = state.epochs
        running.load(state, done * per_epoch)
        report(done * per_epoch, running.history[-1])
    while done < epochs and not spent(running.history, patience, tolerance):
        for place, batch in enumerate(order(done)):
            steps = done * per_epoch + place
            loss = loss_of(running.numbers, batch)
            if not bool(torch.isfinite(loss)):
                raise TrainingFailed(f"the router's loss is {loss.item()} in epoch {done + 1}. Lower its learning_rate.")
            running.step(loss, learning_rate * 0.5 * (1 + math.cos(math.pi * steps / (epochs * per_epoch))))
            report(steps + 1, loss.item())
        running.judge(validation_loss)
        done += 1
        if keep is not None:
            keep(running.state())
    reason = f"epochs={epochs}" if done == epochs else f"patience={patience}"
    return DescentResult(running.best, min(running.history), tuple(running.history), done * per_epoch, reason)
