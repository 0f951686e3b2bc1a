"""Normal setting: a router's parameters by Adam with a cosine schedule (STAF-LLM, section 3.3.2), and early stopping.

The best epoch is chosen by a validation loss. The loss of a batch is passed in as a function: nothing here depends on a
language model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from staf.errors import TrainingFailed


def should_stop(losses: Sequence[float], patience: int | None, tolerance: float) -> bool:
    """True if none of the last `patience` losses is below the best earlier one by more than `tolerance`.

    It depends on all losses, so a resumed adaptation stops where an uninterrupted one does. With patience None: never.
    """
    if patience is None or len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience]) - tolerance


def require_finite(val_loss: float, when: str) -> float:
    """The validation loss itself.

    Raises:
        TrainingFailed: it is NaN or infinite.
    """
    if not math.isfinite(val_loss):
        raise TrainingFailed(
            f"the router's validation loss is {val_loss} {when}. Check the experts (staf env), "
            "or lower learning_rate (gradient) or sigma0 (cma)."
        )
    return val_loss


@dataclass(frozen=True)
class GradientState:
    """The state after some epochs; with the arguments of the fit it determines the rest."""

    params: Tensor
    """(n,)"""
    exp_avg: Tensor
    """(n,) Adam's mean of the gradients"""
    exp_avg_sq: Tensor
    """(n,) Adam's mean of their squares"""
    best: Tensor
    """(n,) parameters of the best epoch so far"""
    history: tuple[float, ...]
    """validation loss before the first epoch and after each"""


@dataclass(frozen=True)
class FitResult:
    """What a fit returns: by gradients or by CMA-ES."""

    best: Tensor
    """(n,) parameters with the lowest validation loss"""
    loss: float
    """that loss"""
    history: tuple[float, ...]
    """gradient: validation loss before the first epoch and after each; cma: lowest loss after each generation"""
    steps: int
    """optimiser steps, or candidates evaluated"""
    stop_reason: str
    """such as 'epochs=5', 'patience=2', 'max_evaluations=200', 'tolfun=1e-11'"""


def fit_gradient(
    loss_of: Callable[[Tensor, Sequence[int]], Tensor],
    validate: Callable[[Tensor], float],
    start: Tensor,
    *,
    batches: Callable[[int], Sequence[Sequence[int]]],
    epochs: int,
    learning_rate: float,
    patience: int | None = None,
    tolerance: float = 0.0,
    on_step: Callable[[int, float], None] | None = None,
    resume_from: GradientState | None = None,
    on_checkpoint: Callable[[GradientState], None] | None = None,
) -> FitResult:
    """Minimise the mean of `loss_of(params, batch)` by Adam from `start` (n,).

    Args:
        validate: validation loss of parameters, called on the start and after each epoch.
        batches: the batches of an epoch, equally many in each.
        patience, tolerance: as in `should_stop`.
        on_step: called with the number of steps so far and a loss.
        resume_from: the state of an interrupted fit with the same arguments. on_checkpoint: called after each epoch.

    Raises:
        TrainingFailed: a loss is NaN or infinite.
    """
    params = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([params], lr=learning_rate)
    per_epoch, report = len(batches(0)), on_step or (lambda steps, loss: None)
    if resume_from is None:
        best, history = start.clone(), [require_finite(validate(start), "after epoch 0")]
    else:
        best, history = _restore(params, optimizer, resume_from, per_epoch)
        report((len(history) - 1) * per_epoch, history[-1])
    while (epoch := len(history) - 1) < epochs and not should_stop(history, patience, tolerance):
        for step, batch in enumerate(batches(epoch), start=epoch * per_epoch):
            rate = learning_rate * 0.5 * (1 + math.cos(math.pi * step / (epochs * per_epoch)))
            report(step + 1, _step(optimizer, loss_of(params, batch), rate, epoch))
        found = params.detach().clone()
        history.append(require_finite(validate(found), f"after epoch {epoch + 1}"))
        if history[-1] < min(history[:-1]):
            best = found.clone()
        if on_checkpoint is not None:
            adam = optimizer.state[params]
            on_checkpoint(GradientState(found, adam["exp_avg"].clone(), adam["exp_avg_sq"].clone(), best, tuple(history)))
    reason = f"epochs={epochs}" if epoch == epochs else f"patience={patience}"
    return FitResult(best, min(history), tuple(history), epoch * per_epoch, reason)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float, epoch: int) -> float:
    """One step down the gradient of a loss, which is returned. Raises TrainingFailed where it is not finite."""
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingFailed(f"the router's loss is {value} in epoch {epoch + 1}. Lower its learning_rate.")
    optimizer.param_groups[0]["lr"] = learning_rate
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return value


def _restore(
    params: Tensor, optimizer: torch.optim.Optimizer, state: GradientState, per_epoch: int
) -> tuple[Tensor, list[float]]:
    """Set parameters and Adam's state; returns the best parameters and the history."""
    with torch.no_grad():
        params.copy_(state.params)
    step = torch.tensor(float((len(state.history) - 1) * per_epoch))
    optimizer.state[params] = {"step": step, "exp_avg": state.exp_avg.clone(), "exp_avg_sq": state.exp_avg_sq.clone()}
    return state.best.clone(), list(state.history)
