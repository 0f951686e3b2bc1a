"""Attention that is fast on a processor, with a gradient and without.

    a gradient is needed   plain products: the backward of PyTorch's fused attention takes 8 ms for 12 x 36 tokens of the
                           default base, a third of a whole training step, and ten times what they take
    none, but a mask       PyTorch's, with the queries of heads that share a key head laid side by side: transformers writes
                           keys and values once a query head and the mask once a row, which takes 1.2 to 2 times as long
    none, and no mask      PyTorch's, causal
    a common beginning     PyTorch's twice, on the one copy of the beginning's keys and on each row's own, then put together

An accelerator has PyTorch's alone. Registered with transformers under the name 'staf'; models are not changed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NAME = "staf"


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query (B, H, T, D), key and value (B, H_kv, T, D) to (B, T, H, D)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    scaling, prefix = options.get("scaling"), options.get("prefix")
    if prefix is not None:
        keys, values = prefix[module.layer_idx]
        return prefix_attention(query, key, value, attention_mask, keys, values, scaling), None
    if query.device.type == "cpu" and not options.get("dropout") and not options.get("sliding_window"):
        if torch.is_grad_enabled():
            return eager_attention(query, key, value, attention_mask, scaling), None
        if attention_mask is not None:
            return grouped_attention(query, key, value, attention_mask, scaling), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def grouped_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """softmax(q k' * scaling + mask) v by PyTorch's fused attention, (B, T, H, D); shapes as in `eager_attention`.

    Queries lie token by token, those of heads that share a key head together, so keys and values are never repeated.
    """
    heads, (shared, seen) = query.shape[1], key.shape[1:3]
    group = heads // shared
    q = _side_by_side(query, shared)
    same = mask.stride(0) == 0 and len(mask) > 1
    rows = (mask[:1] if same else mask)[..., :seen].repeat_interleave(group, dim=2)  # (B or 1, 1, T * G, S)
    mixed = functional.scaled_dot_product_attention(q, key, value, attn_mask=rows, scale=scaling)
    return _by_token(mixed, heads)


def prefix_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, keys: Tensor, values: Tensor, scaling: float | None
) -> Tensor:
    """Attention of rows that all go on from the same beginning, whose keys and values (1, H_kv, P, D) are there once.

    Their queries are one batch for it, so nothing of it is copied; what each row finds there and among its own keys is
    weighed by both sums of exponentials, which gives the softmax over all. Other shapes as in `eager_attention`, the mask
    additive and of a row's own keys. The idea is that of cascade inference (flashinfer-ai/flashinfer, commit 5308a7a).
    """
    (batch, heads, tokens), (shared, own) = query.shape[:3], key.shape[1:3]
    group = heads // shared
    q = _side_by_side(query, shared)
    if mask is None:
        mask = torch.full((tokens, own), torch.finfo(query.dtype).min, dtype=query.dtype).triu_(own - tokens + 1)[None, None]
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    together = q.transpose(0, 1).flatten(1, 2)[None]  # (1, H_kv, B * T * G, D)
    first, first_sum = fused(together, keys, values, scale=scaling)
    first = first[0].unflatten(1, (batch, -1)).transpose(0, 1)  # (B, H_kv, T * G, D)
    first_sum = first_sum[0].unflatten(1, (batch, -1)).transpose(0, 1)
    second, second_sum = fused(q, key, value, attn_mask=mask.repeat_interleave(group, dim=2), scale=scaling)
    share = torch.sigmoid(first_sum - second_sum)[..., None]
    mixed = torch.lerp(second.float(), first.float(), share).to(query.dtype)
    return _by_token(mixed, heads)


def _side_by_side(query: Tensor, shared: int) -> Tensor:
    """Queries (B, H, T, D) as (B, H_kv, T * G, D): token by token, those of heads that share a key head together."""
    batch, heads, tokens, width = query.shape
    return query.transpose(1, 2).reshape(batch, tokens, shared, heads // shared, width).transpose(1, 2).flatten(2, 3)


def _by_token(mixed: Tensor, heads: int) -> Tensor:
    """What queries side by side have found, (B, H_kv, T * G, D), as (B, T, H, D)."""
    batch, shared, _, width = mixed.shape
    return mixed.unflatten(2, (-1, heads // shared)).transpose(1, 2).reshape(batch, -1, heads, width)


def eager_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
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
