"""Causal attention in blocks of queries, forward and backward by matrix products.

A block of queries sees only the keys before its end, so half of the square of scores is never computed; only the corner where a
block meets its own keys needs a mask. Queries of heads that share a key head lie side by side, token by token:

    q (B * H_kv, T * G, D), row t * G + g      k, v (B * H_kv, T, D)      G = H / H_kv

PyTorch's fused attention for processors has a fast forward, but its backward takes 2 to 15 times as long as this one.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 128
"""Tokens of a block of queries."""


def corner(tokens: int, group: int, like: Tensor) -> Tensor:
    """The mask of a block of queries on its own keys, (n * G, n) with n tokens at most `BLOCK`: 0 or the lowest number."""
    size = min(tokens, BLOCK)
    lowest = torch.finfo(like.dtype).min
    mask = torch.full((size, size), lowest, dtype=like.dtype, device=like.device).triu_(1)
    return mask.repeat_interleave(group, dim=0)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Mixed values (B * H_kv, T * G, D), and the chances of each block, (B * H_kv, n * G, keys seen); q is scaled already."""
    tokens, group = k.shape[1], q.shape[1] // k.shape[1]
    mixed, chances = torch.empty_like(q), []
    for start, end in _blocks(tokens):
        rows = slice(start * group, end * group)
        scores = torch.bmm(q[:, rows], k[:, :end].mT)
        scores[..., start:].add_(mask[: (end - start) * group, : end - start])
        block = torch.softmax(scores, dim=-1)
        torch.bmm(block, v[:, :end], out=mixed[:, rows])
        chances.append(block)
    return mixed, chances


def attend_back(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, chances: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of q, k and v from that of the mixed values."""
    tokens, group = k.shape[1], q.shape[1] // k.shape[1]
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for (start, end), block in zip(_blocks(tokens), chances, strict=True):
        rows = slice(start * group, end * group)
        found = torch.bmm(grad[:, rows], v[:, :end].mT)
        torch.ops.aten._softmax_backward_data.out(found, block, -1, block.dtype, grad_input=found)
        torch.bmm(found, k[:, :end], out=grad_q[:, rows])
        grad_k[:, :end].baddbmm_(found.mT, q[:, rows])
        grad_v[:, :end].baddbmm_(block.mT, grad[:, rows])
    return grad_q, grad_k, grad_v


def _blocks(tokens: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, tokens)) for start in range(0, tokens, BLOCK)]
