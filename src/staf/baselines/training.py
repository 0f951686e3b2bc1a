"""One training loop and one learning-rate search for every trained baseline: PEFT methods, word networks and encoders."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from staf.errors import TrainingFailed

B = TypeVar("B")
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Trial:
    """One learning rate that was tried."""

    learning_rate: float
    losses: list[float]
    """mean training loss of each epoch"""
    val_losses: list[float]
    """validation loss before the first epoch and after each"""
    stop_reason: str
    """epochs, patience, or diverged: a loss was not a finite number, the epochs before it are listed"""
    seconds: float

    @property
    def best(self) -> float:
        """The lowest validation loss after an epoch; infinite where there is none."""
        return min(self.val_losses[1:], default=math.inf)

    @property
    def epochs(self) -> int:
        """The epoch, at least 1, with that loss; 0 where there is none."""
        return self.val_losses.index(self.best, 1) if self.val_losses[1:] else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "epochs": self.epochs, "val_loss": self.best if self.epochs else None}


def fit(
    module: nn.Module,
    batches: Callable[[int], Iterable[B]],
    loss_of: Callable[[B], tuple[Tensor, int]],
    validate: Callable[[], float] | None,
    *,
    learning_rate: float,
    epochs: int,
    weight_decay: float = 0.01,
    patience: int | None = None,
    keep_best: bool = False,
) -> Trial:
    """Train a module's parameters that require gradients, by AdamW.

    Args:
        batches: of an epoch, from 1 on. loss_of: mean loss of a batch and the number of terms in the mean.
        validate: validation loss of the module as it is; None where there is no validation set.
        patience: epochs without a lower validation loss before it stops; None runs all epochs.
        keep_best: leave the module with the parameters of its best epoch instead of the last.
    """
    started, trained = time.perf_counter(), [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=weight_decay)
    losses, val_losses, reason = list[float](), list[float](), "epochs"
    state, best, best_epoch = None, math.inf, 0
    for epoch in range(epochs + 1):
        learned = [_epoch(module, optimizer, trained, batches(epoch), loss_of)] if epoch else []
        module.eval()
        found = [validate()] if validate is not None else []
        if not all(map(math.isfinite, learned + found)):
            reason = "diverged"
            break
        losses += learned
        val_losses += found
        if epoch and found and found[0] < best:
            best, best_epoch = found[0], epoch
            state = copy.deepcopy(module.state_dict()) if keep_best else None
        elif epoch and patience is not None and epoch - best_epoch >= patience:
            reason = "patience"
            break
    if state is not None:
        module.load_state_dict(state)
    module.eval()
    return Trial(learning_rate, losses, val_losses, reason, time.perf_counter() - started)


def _epoch(
    module: nn.Module, optimizer: torch.optim.Optimizer, trained: Sequence[nn.Parameter], batches: Iterable[B],
    loss_of: Callable[[B], tuple[Tensor, int]],
) -> float:  # fmt: skip
    """One pass; the mean loss over the terms of all batches."""
    module.train()
    total, count = 0.0, 0
    for batch in batches:
        loss, terms = loss_of(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
        optimizer.step()
        total, count = total + float(loss.detach()) * terms, count + terms
    return total / count


def best_of(trials: Sequence[Trial], name: str) -> Trial:
    """The trial with the lowest validation loss.

    Raises:
        TrainingFailed: no rate gave a finite loss.
    """
    best = min(trials, key=lambda trial: trial.best)
    if not best.epochs:
        rates = ", ".join(str(trial.learning_rate) for trial in trials)
        raise TrainingFailed(
            f"{name}: no loss was a finite number with any of the learning rates {rates}. Try lower ones (learning_rates)."
        )
    return best
