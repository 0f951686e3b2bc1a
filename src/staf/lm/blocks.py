"""Causal attention in blocks of queries, forward and backward by matrix products.

A block of queries sees only the keys before its end, so half of the square of scores is never computed; only the corner where a
block meets its own keys needs a mask. Queries of heads that share a key head lie side by side, token by token:

    q (B, H_kv, T * G, D), row t * G + g      k, v (B, H_kv, T, D)      G = H / H_kv

PyTorch's fused attention for processors has a fast forward, but its backward takes 2 to 15 times as long as this one.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64
"""Tokens of a block of queries."""


def corner(tokens: int, group: int, like: Tensor) -> Tensor:
    """The mask of a block of queries on its own keys, (n * G, n) with n tokens at most `BLOCK`: 0 or the lowest number."""
    size = min(tokens, BLOCK)
    lowest = torch.finfo(like.dtype).min
    mask = torch.full((size, size), lowest, dtype=like.dtype, device=like.device).triu_(1)
    return mask.repeat_interleave(group, dim=0)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Mixed values (B, H_kv, T * G, D), and the chances of each block, (B, H_kv, n * G, keys seen); q is scaled already."""
    tokens, group = k.shape[2], q.shape[2] // k.shape[2]
    mixed, chances = torch.empty_like(q), []
    for start, end in _blocks(tokens):
        scores = q[:, :, start * group : end * group] @ k[:, :, :end].mT
        scores[..., start:].add_(mask[: (end - start) * group, : end - start])
        block = torch.softmax(scores, dim=-1)
        mixed[:, :, start * group : end * group] = block @ v[:, :, :end]
        chances.append(block)
    return mixed, chances


def attend_back(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, chances: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of q, k and v from that of the mixed values."""
    tokens, group = k.shape[2], q.shape[2] // k.shape[2]
    if len(chances) == 1:
        block = chances[0]
        grad_scores = _softmax_back(grad @ v.mT, block)
        return grad_scores @ k, grad_scores.mT @ q, block.mT @ grad
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for (start, end), block in zip(_blocks(tokens), chances, strict=True):
        rows = slice(start * group, end * group)
        grad_scores = _softmax_back(grad[:, :, rows] @ v[:, :, :end].mT, block)
        grad_q[:, :, rows] = grad_scores @ k[:, :, :end]
        grad_k[:, :, :end] += grad_scores.mT @ q[:, :, rows]
        grad_v[:, :, :end] += block.mT @ grad[:, :, rows]
    return grad_q, grad_k, grad_v


def _blocks(tokens: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, tokens)) for start in range(0, tokens, BLOCK)]


def _softmax_back(grad: Tensor, chances: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten._softmax_backward_data(grad, chances, -1, chances.dtype)
    return result
