"""The task loss (STAF-LLM, Eq. 5): what Stage I and both settings of Stage II minimise.

Logits are computed at answer positions only, in chunks. The paper's sum over tokens is a mean here, so that gamma_1 does not
depend on the number of examples (docs/paper.md, decision 4).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from staf.errors import ConfigError
from staf.lm.batches import Batch
from staf.lm.model import Base

LOGIT_ROWS = 1024
"""Rows of logits at a time: 1,024 of the default base's 49,152 are 200 MB in float32."""


def answer_loss(base: Base, batch: Batch) -> tuple[Tensor, int]:
    """Sum of -log p over the answer tokens of a batch, (), float32, and the number of these tokens."""
    logprobs = answer_logprobs(base, batch)
    return -logprobs.sum(), logprobs.shape[0]  # Eq. 5


def answer_logprobs(base: Base, batch: Batch) -> Tensor:
    """Log p of every answer token of a batch, (N,) float32, row by row.

    Raises:
        ConfigError: gradients are needed and the base is in float16, or it has too few positions.
    """
    if torch.is_grad_enabled() and base.dtype == torch.float16:
        raise ConfigError(
            "training in float16 needs loss scaling, which is not supported: gradients would underflow. "
            "Use --dtype bfloat16 or float32."
        )
    base.check_length(1 + int(batch.answer.any(0).nonzero().max()) if batch.answer.any() else 0)
    hidden = base.hidden_states(batch.ids, batch.prefix_length)[:, :-1][batch.answer[:, batch.prefix_length + 1 :]]  # (N, d)
    return token_logprobs(base, hidden, batch.ids[:, 1:][batch.answer[:, 1:]])


def token_logprobs(base: Base, hidden: Tensor, targets: Tensor) -> Tensor:
    """Log p of tokens (N,) after hidden states (N, d), (N,) float32; chunks of logits are recomputed in the backward."""

    def chunk(states: Tensor, tokens: Tensor) -> Tensor:
        return -functional.cross_entropy(base.logits(states), tokens, reduction="none")

    if len(targets) <= LOGIT_ROWS:
        return chunk(hidden, targets)
    parts = zip(hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True)
    return torch.cat([checkpoint(chunk, *part, use_reentrant=False) for part in parts])
