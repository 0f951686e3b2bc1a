"""Normal setting: a router's parameters by Adam with a cosine schedule (STAF-LLM, section 3.3.2), and early stopping.

The best epoch is chosen by a validation loss. The loss of a batch is passed in as a function: nothing here depends on a
language model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from staf.errors import DamagedFile, TrainingFailed
from staf.routing.recipe import RouterRecipe

State = dict[str, Tensor]
"""Tensors that together with the arguments of a fit determine the rest of it."""
ADAM = ("exp_avg", "exp_avg_sq")
STATE = {"params": "n", "best": "n", "exp_avg": "n", "exp_avg_sq": "n", "history": "e"}
"""Shapes after an epoch: parameters, the best ones so far, Adam's moments, and e validation losses."""


def check_state(state: State, shapes: Mapping[str, str], count: int) -> None:
    """Check the tensors of a state: float32 of shape (n,), else float64; each letter of `shapes` is one size.

    Args:
        count: n, the parameters that are moved.

    Raises:
        DamagedFile: another shape or dtype, or an empty tensor.
    """
    sizes = {"n": count}
    for name, letters in shapes.items():
        found, dtype = state[name], torch.float32 if letters == "n" else torch.float64
        sizes |= {letter: size for letter, size in zip(letters, found.shape, strict=False) if letter not in sizes}
        expected = tuple(sizes.get(letter, 0) for letter in letters)
        if tuple(found.shape) != expected or found.dtype != dtype or not found.numel():
            raise DamagedFile(
                f"the saved state of this adaptation has '{name}' as {tuple(found.shape)} {found.dtype}; {expected} {dtype} is "
                "expected. Delete the router's checkpoint folder to start again."
            )


def should_stop(losses: Sequence[float], recipe: RouterRecipe) -> bool:
    """True if none of the last `patience` losses is below the best earlier one by more than `tolerance`.

    It depends on all losses, so a resumed adaptation stops where an uninterrupted one does.
    """
    patience = recipe.patience
    if patience is None or len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience]) - recipe.tolerance


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
    recipe: RouterRecipe,
    batches: Callable[[int], Sequence[Sequence[int]]],
    on_progress: Callable[[int, float], None] | None = None,
    resume_from: State | None = None,
    on_checkpoint: Callable[[int, State], None] | None = None,
) -> FitResult:
    """Minimise the mean of `loss_of(params, batch)` by Adam from `start` (n,).

    Args:
        validate: validation loss of parameters, called on the start and after each epoch.
        batches: the batches of an epoch, equally many in each.
        on_progress: called with the number of steps so far and a loss.
        resume_from: the `STATE` of an interrupted fit with the same arguments. on_checkpoint: called with epoch and state.

    Raises:
        TrainingFailed: a loss is NaN or infinite.
    """
    params = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([params], lr=recipe.learning_rate)
    per_epoch, report = len(batches(0)), on_progress or (lambda steps, loss: None)
    total = recipe.epochs * per_epoch
    if resume_from is None:
        best, history = start.clone(), [require_finite(validate(start), "after epoch 0")]
    else:
        best, history = resume_from["best"], resume_from["history"].tolist()
        params.data.copy_(resume_from["params"])
        steps = (len(history) - 1) * per_epoch
        moments = {name: resume_from[name].clone() for name in ADAM}
        optimizer.state[params] = {"step": torch.tensor(float(steps)), **moments}
        report(steps, history[-1])
    while (epoch := len(history) - 1) < recipe.epochs and not should_stop(history, recipe):
        for step, batch in enumerate(batches(epoch), start=epoch * per_epoch):
            rate = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / total))
            report(step + 1, _step(optimizer, loss_of(params, batch), rate, epoch))
        found = params.detach().clone()
        history.append(require_finite(validate(found), f"after epoch {epoch + 1}"))
        if history[-1] < min(history[:-1]):
            best = found.clone()
        if on_checkpoint is not None:
            moments = {name: optimizer.state[params][name].clone() for name in ADAM}
            losses = torch.tensor(history, dtype=torch.float64)
            on_checkpoint(epoch + 1, {"params": found, "best": best, "history": losses, **moments})
    reason = f"epochs={epoch}" if epoch == recipe.epochs else f"patience={recipe.patience}"
    return FitResult(best, min(history), tuple(history), epoch * per_epoch, reason)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, learning_rate: float, epoch: int) -> float:
    """One step down the gradient of a loss, which is returned."""
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingFailed(f"the router's loss is {value} in epoch {epoch + 1}. Lower its learning_rate.")
    optimizer.param_groups[0]["lr"] = learning_rate
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return value
