"""Attention whose backward is fast on a processor.

PyTorch's fused attention for CPUs spends 8 ms on the backward of 12 x 36 tokens of the default base, a third of a whole
training step; plain matrix products take a tenth of it. So: plain products where a gradient is needed on a CPU, PyTorch's
own everywhere else. Registered with transformers under the name 'staf'; models are not changed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NAME = "staf"


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query (B, H, T, D), key and value (B, H_kv, T, D) to (B, T, H, D)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    plain = query.device.type == "cpu" and torch.is_grad_enabled()
    if not plain or options.get("dropout") or options.get("sliding_window"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return plain_attention(query, key, value, attention_mask, options.get("scaling")), None


def plain_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """softmax(q k' * scaling + mask) v by matrix products, (B, T, H, D); without a mask it is causal.

    query (B, H, T, D), key and value (B, H_kv, S, D) with S >= T, mask (B or 1, 1, T, S) bool or additive. Query heads that
    share a key head are laid side by side, so keys and values are never repeated.
    """
    batch, heads, tokens, width = query.shape
    shared, seen = key.shape[1], key.shape[2]
    together = heads // shared * tokens
    q = query.reshape(batch, shared, together, width) * (width**-0.5 if scaling is None else scaling)
    scores = (q @ key.mT).view(batch, heads, tokens, seen)
    lowest = torch.finfo(query.dtype).min
    if mask is None:
        mask = torch.full((tokens, seen), lowest, dtype=query.dtype).triu_(seen - tokens + 1)
    elif mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, lowest)
    chances = torch.softmax(scores + mask, dim=-1)  # (B, H, T, S)
    mixed = chances.view(batch, shared, together, seen) @ value  # (B, H_kv, H / H_kv * T, D)
    return mixed.view(batch, heads, tokens, width).transpose(1, 2).contiguous()


def register() -> str:
    """Make the attention known to transformers, and return its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
