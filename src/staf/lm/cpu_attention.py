"""Attention that is fast on a CPU; an accelerator uses PyTorch's scaled_dot_product_attention (SDPA).

    sequences without padding   one after another, short ones with gradients by matrix products: forward and backward of
                                12 x 36 tokens take half of SDPA's time in float32, a fifth in bfloat16
    with a mask                 SDPA with grouped queries, so that keys, values and the mask are not repeated per head
    shared prefix               SDPA on the one copy of the prefix and on each row's own keys, combined by log-sum-exp
    otherwise                   SDPA

Registered with transformers under the name 'staf'; models are not changed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NAME = "staf"
EAGER_TOKENS = 200
"""Longer rows are faster with SDPA, with gradients too (docs/log.md, 2026-11-26)."""


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query (B, H, T, D), key and value (B, H_kv, T, D) to (B, T, H, D)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    scaling, prefix, lengths = options.get("scaling"), options.get("prefix"), options.get("sequence_lengths")
    if prefix is not None:
        keys, values = prefix[module.layer_idx]
        return prefix_attention(query, key, value, attention_mask, keys, values, scaling), None
    if lengths is not None:
        rows = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
        return torch.cat([causal_attention(*row, scaling) for row in rows], dim=1), None
    if query.device.type == "cpu" and attention_mask is not None and not options.get("dropout"):
        return grouped_attention(query, key, value, attention_mask, scaling), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Causal attention of sequences, query (B, H, T, D), key and value (B, H_kv, T, D) to (B, T, H, D).

    Short ones with gradients by matrix products.
    """
    (heads, tokens, width), kv_heads = query.shape[1:], key.shape[1]
    if not torch.is_grad_enabled() or tokens > EAGER_TOKENS:
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
        return mixed.transpose(1, 2)
    q = _grouped(query, kv_heads) * (width**-0.5 if scaling is None else scaling)
    mask = _causal_mask(tokens, tokens, query).repeat_interleave(heads // kv_heads, dim=0)  # (T * G, T)
    return _ungrouped(torch.softmax(q @ key.mT + mask, dim=-1) @ value, heads)


def grouped_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """SDPA with a mask: query (B, H, T, D), key and value (B, H_kv, S, D), mask (B or 1, 1, T, S) to (B, T, H, D)."""
    heads, (kv_heads, seen) = query.shape[1], key.shape[1:3]
    same = mask.stride(0) == 0 and len(mask) > 1
    rows = (mask[:1] if same else mask)[..., :seen].repeat_interleave(heads // kv_heads, dim=2)  # (B or 1, 1, T * G, S)
    mixed = functional.scaled_dot_product_attention(_grouped(query, kv_heads), key, value, attn_mask=rows, scale=scaling)
    return _ungrouped(mixed, heads)


def prefix_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, keys: Tensor, values: Tensor, scaling: float | None
) -> Tensor:
    """Attention of rows that continue from one prefix, whose keys and values (1, H_kv, P, D) are there once.

    The softmax over both parts is their mean weighted by their sums of exponentials. Other arguments as for
    `grouped_attention`, the mask additive and of a row's own keys; None is causal. The idea is that of cascade inference
    (flashinfer-ai/flashinfer, commit 5308a7a).
    """
    (batch, heads, tokens), (kv_heads, own) = query.shape[:3], key.shape[1:3]
    q = _grouped(query, kv_heads)
    if mask is None:
        mask = _causal_mask(tokens, own, query)[None, None]
    sdpa = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    one, one_sum = sdpa(q.transpose(0, 1).flatten(1, 2)[None], keys, values, scale=scaling)  # (1, H_kv, B * T * G, D)
    one = one[0].unflatten(1, (batch, -1)).transpose(0, 1)  # (B, H_kv, T * G, D)
    one_sum = one_sum[0].unflatten(1, (batch, -1)).transpose(0, 1)
    two, two_sum = sdpa(q, key, value, attn_mask=mask.repeat_interleave(heads // kv_heads, dim=2), scale=scaling)
    mixed = torch.lerp(two.float(), one.float(), torch.sigmoid(one_sum - two_sum)[..., None])
    return _ungrouped(mixed.to(query.dtype), heads)


def _causal_mask(tokens: int, seen: int, like: Tensor) -> Tensor:
    """(T, S) additive: the last T of S positions attend to themselves and what precedes them."""
    return torch.full((tokens, seen), torch.finfo(like.dtype).min, dtype=like.dtype).triu_(seen - tokens + 1)


def _grouped(query: Tensor, kv_heads: int) -> Tensor:
    """Queries (B, H, T, D) as (B, H_kv, T * G, D), row t * G + g."""
    batch, heads, tokens, width = query.shape
    return query.transpose(1, 2).reshape(batch, tokens, kv_heads, heads // kv_heads, width).transpose(1, 2).flatten(2, 3)


def _ungrouped(mixed: Tensor, heads: int) -> Tensor:
    """(B, H_kv, T * G, D) as (B, T, H, D)."""
    batch, kv_heads, _, width = mixed.shape
    return mixed.unflatten(2, (-1, heads // kv_heads)).transpose(1, 2).reshape(batch, -1, heads, width)


def register() -> str:
    """Make the attention known to transformers, and return its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
