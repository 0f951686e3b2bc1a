"""One training loop for every network: AdamW at each of a few rates, stopped by the held-out loss, the best epoch kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from staf.baselines.classifiers.problem import Found, log_scores, loss_of
from staf.baselines.classifiers.settings import ClassifierSettings
from staf.errors import TrainingFailed
from staf.lm.base import default_device
from staf.lm.batches import epoch_order, plan_batches, round_up

TOKEN_BUDGET = 16384
"""Places of one batch that is only scored."""


@dataclass(frozen=True)
class Encoded:
    """Texts as numbers, and their labels."""

    rows: list[list[int]]
    """none of them empty"""
    targets: np.ndarray
    """(n, L) float32"""


@dataclass(frozen=True)
class Network:
    """What learns, and how it is asked."""

    module: nn.Module
    forward: Callable[[Tensor, Tensor], Tensor]
    """logits (B, L) of numbers (B, T) and the mask (B, T) of what is no padding"""
    pad: int


@dataclass(frozen=True)
class _Trial:
    network: Network
    record: dict[str, Any]


def learn(
    start: Callable[[], Network],
    output_type: str,
    fitted: Encoded,
    held_out: Encoded,
    asked: Sequence[list[int]],
    settings: ClassifierSettings,
    *,
    learning_rates: Sequence[float],
    epochs: int,
    details: dict[str, Any],
) -> Found:
    """Train a network once at each rate from the same start, and score what is asked by the best of them.

    Args:
        start: a new network; its numbers are drawn from the seed of the settings.
        asked: texts as numbers (n).
        epochs: passes over what is fitted on, at most.
        details: what the record keeps besides.

    Raises:
        TrainingFailed: at no rate was any held-out loss a number.
    """
    device, trials, best = default_device(), [], None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for rate in learning_rates:
            torch.manual_seed(settings.seed)
            network = start()
            network.module.to(device)
            trial = _train(network, output_type, fitted, held_out, settings, rate, epochs, device)
            trials.append(trial.record)
            if trial.record["held_out_loss"] is not None and (
                best is None or trial.record["held_out_loss"] < best.record["held_out_loss"]
            ):
                best = trial
    if best is None:
        raise TrainingFailed(f"no held-out loss was a number at the rates {list(learning_rates)}. Give lower ones.")
    scores = log_scores(_logits(best.network, asked, device), output_type)
    parameters = sum(p.numel() for p in best.network.module.parameters() if p.requires_grad)
    judged = log_scores(_logits(best.network, held_out.rows, device), output_type)
    return Found(scores, judged, trials, best.record, parameters, {**details, "refitted_on_all": False})


def _train(
    network: Network, output_type: str, fitted: Encoded, held_out: Encoded, settings: ClassifierSettings, rate: float,
    epochs: int, device: torch.device,
) -> _Trial:  # fmt: skip
    """One trial: the network with the numbers of its best epoch."""
    optimizer = torch.optim.AdamW(network.module.parameters(), lr=rate, weight_decay=settings.weight_decay)
    lengths, losses = [len(row) for row in fitted.rows], []
    best, state, reason = math.inf, copy.deepcopy(network.module.state_dict()), "epochs"
    for epoch in range(epochs):
        network.module.train()
        for batch in epoch_order(lengths, settings.batch_size, settings.seed, epoch):
            optimizer.zero_grad()
            logits = network.forward(*_padded([fitted.rows[i] for i in batch], network.pad, device))
            _loss(logits, torch.from_numpy(fitted.targets[batch]).to(device), output_type).backward()
            nn.utils.clip_grad_norm_(network.module.parameters(), 1.0)
            optimizer.step()
        loss = loss_of(log_scores(_logits(network, held_out.rows, device), output_type), held_out.targets, output_type)
        if not math.isfinite(loss):
            reason = "loss is not a number"
            break
        losses.append(loss)
        if loss < best:
            best, state = loss, copy.deepcopy(network.module.state_dict())
        elif epoch - losses.index(best) >= settings.patience:
            reason = "patience"
            break
    network.module.load_state_dict(state)
    record = {
        "learning_rate": rate,
        "held_out_loss": best if losses else None,
        "history": losses,
        "best_epoch": losses.index(best) + 1 if losses else None,
        "stop_reason": reason,
    }
    return _Trial(network, record)


def _loss(logits: Tensor, targets: Tensor, output_type: str) -> Tensor:
    """Mean cross-entropy of a choice, mean binary cross-entropy of several labels; logits and targets (B, L)."""
    if output_type == "multiple_choice":
        return functional.cross_entropy(logits.float(), targets)
    return functional.binary_cross_entropy_with_logits(logits.float(), targets)


@torch.no_grad()
def _logits(network: Network, rows: Sequence[list[int]], device: torch.device) -> np.ndarray:
    """Logits (n, L) of rows of numbers, in their order."""
    network.module.eval()
    found: dict[int, np.ndarray] = {}
    for batch in plan_batches([len(row) for row in rows], TOKEN_BUDGET):
        logits = network.forward(*_padded([rows[i] for i in batch], network.pad, device))
        found.update(zip(batch, logits.float().cpu().numpy(), strict=True))
    return np.stack([found[index] for index in range(len(rows))])


def _padded(rows: Sequence[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Numbers (B, T) padded on the right, and the mask (B, T) of what is no padding."""
    width = round_up(max(len(row) for row in rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = True
    return ids.to(device), mask.to(device)
