"""The task loss (STAF-LLM, Eq. 5): what Stage I and both settings of Stage II minimise.

Logits are computed at answer positions only. The paper's sum over tokens is a mean here, so that gamma_1 does not depend on
the number of examples (docs/paper.md, decision 4).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from staf.lm.base import Base
from staf.lm.batches import Batch


def answer_loss(base: Base, batch: Batch) -> tuple[Tensor, int]:
    """Sum of -log p over the answer tokens of a batch, (), float32, and the number of these tokens."""
    logits, targets = _predictions(base, batch)
    return functional.cross_entropy(logits, targets, reduction="sum"), targets.shape[0]  # Eq. 5


def answer_logprobs(base: Base, batch: Batch) -> Tensor:
    """Log p of every answer token of a batch, (N,) float32, row by row."""
    logits, targets = _predictions(base, batch)
    return -functional.cross_entropy(logits, targets, reduction="none")


def _predictions(base: Base, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (N, V) float32 before the answer tokens of a batch, and these tokens (N,)."""
    hidden = base.answer_hidden_states(batch.ids, batch.answer, batch.prefix_length)
    return base.logits(hidden), batch.ids[:, 1:][batch.answer[:, 1:]]


@torch.no_grad()
def mean_loss(base: Base, batches: list[Batch]) -> float:
    """Mean of -log p over all answer tokens of the batches, without any penalty."""
    total, count = 0.0, 0
    for batch in batches:
        loss, tokens = answer_loss(base, batch)
        total, count = total + float(loss), count + tokens
    return total / count
