"""Attention of rows that continue from one prefix on a CPU: its keys and values are there once, not once a row.

In-context learning with 1,644 shared tokens takes 94 s by it, where copies take 346 s (docs/log.md). It is registered with
transformers under the name 'staf'; without a prefix it is PyTorch's scaled_dot_product_attention (SDPA).
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

    if query.device.type == "meta":  # for an estimate, what training saves; the mask is there for its shape only
        mixed = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, is_causal=True)[0]
        return mixed.transpose(1, 2), None
    if (prefix := options.get("prefix")) is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    keys, values = prefix[module.layer_idx]
    return prefix_attention(query, key, value, attention_mask, keys, values, options.get("scaling")), None


def prefix_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, keys: Tensor, values: Tensor, scaling: float | None
) -> Tensor:
    """Attention to a prefix with keys and values (1, H_kv, P, D) and to each row's own (B, H_kv, S, D), (B, T, H, D).

    The softmax over both parts is their mean weighted by their sums of exponentials. The mask is additive and of a row's own
    keys; None is causal. The idea is that of cascade inference (flashinfer-ai/flashinfer, commit 5308a7a).
    """
    (batch, heads, tokens), (kv_heads, own) = query.shape[:3], key.shape[1:3]
    group = heads // kv_heads
    q = query.transpose(1, 2).unflatten(2, (kv_heads, group)).transpose(1, 2).flatten(2, 3)  # (B, H_kv, T * G, D)
    if mask is None:
        lowest = torch.full((tokens, own), torch.finfo(query.dtype).min, dtype=query.dtype)
        mask = lowest.triu_(own - tokens + 1)[None, None]
    sdpa = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    one, one_sum = sdpa(q.transpose(0, 1).flatten(1, 2)[None], keys, values, scale=scaling)  # (1, H_kv, B * T * G, D)
    one = one[0].unflatten(1, (batch, -1)).transpose(0, 1)  # (B, H_kv, T * G, D)
    one_sum = one_sum[0].unflatten(1, (batch, -1)).transpose(0, 1)
    two, two_sum = sdpa(q, key, value, attn_mask=mask.repeat_interleave(group, dim=2), scale=scaling)
    mixed = torch.lerp(two.float(), one.float(), torch.sigmoid(one_sum - two_sum)[..., None]).to(query.dtype)
    return mixed.unflatten(2, (tokens, group)).transpose(1, 2).flatten(2, 3)  # (B, T, H, D)


def register() -> str:
    """Make the attention known to transformers, and return its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
