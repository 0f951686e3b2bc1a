"""The plain model as transformers and PEFT have it: what a baseline is trained on, and its loss on answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from staf.lm.attention import register
from staf.lm.base import Base
from staf.lm.batches import Batch


def plain_model(base: Base) -> Any:
    """The base as transformers loads it, anew from its folder, in its number format, nothing trainable.

    Attention is the base's own, which is the same function and takes a sixth off a training step on a processor.
    """
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        str(base.folder), dtype=base.dtype, use_safetensors=True, attn_implementation=register()
    )
    return model.to(base.device).requires_grad_(False)


def answer_logprobs(model: Any, batch: Batch) -> Tensor:
    """Log p of every answer token of a batch, (N,) float32, row by row.

    Logits are computed in the columns in which some row has an answer. These are counted from the end, since prompt methods
    lengthen every row at its beginning.
    """
    asked = batch.answer[:, 1:]
    columns = asked.any(0).nonzero()[:, 0]
    logits = model(input_ids=batch.ids, logits_to_keep=columns - batch.ids.shape[1], use_cache=False).logits  # (B, C, V)
    targets = batch.ids[:, 1:][asked]
    chances = functional.log_softmax(logits[asked[:, columns]].float(), dim=-1)  # (N, V)
    return chances.gather(1, targets[:, None])[:, 0]


@torch.no_grad()
def plain_mean_loss(model: Any, batches: Sequence[Batch]) -> float:
    """Mean of -log p over all answer tokens of the batches."""
    model.eval()
    chances = torch.cat([answer_logprobs(model, batch) for batch in batches])
    return -float(chances.mean())
