"""A padded batch as rows without padding, and the way from rows to the heads of attention and back.

    ids (B, T), padded on the right  --  rows (N, d): the real tokens one after another, then some spare rows
    rows (N, H * D)  --  queries (B * H_kv, T * G, D), keys and values (B * H_kv, T, D)      G = H / H_kv

Padding thus costs something in attention alone. Each way is one gather of pieces of D numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from staf.lm import blocks


@dataclass(frozen=True)
class Heads:
    """What attention is made of."""

    count: int
    """H, of queries"""
    shared: int
    """H_kv, of keys and values"""
    width: int
    """D"""
    scaling: float


@dataclass(frozen=True)
class Layout:
    """How the real tokens of a padded batch (B, T) lie in rows without padding, and what all layers share.

    Rows are the real tokens one after another, and then some spare ones, at least one, so that few numbers of rows occur: on
    a processor a kernel is compiled for each new shape. Spare rows are never looked at and their gradients are 0.
    """

    heads: Heads
    sequences: int
    """B * H_kv: what attention takes one by one"""
    count: int
    """Of real tokens."""
    to_queries: Tensor
    """(B * T * H,) the row and head, of rows (N * H, D), of each place of (B, H_kv, T, G); the last row for padding"""
    to_shared: Tensor
    """(B * T * H_kv,) the same for keys and values"""
    from_queries: Tensor
    """(N * H,) the way back of `to_queries`; 0 for spare rows"""
    from_shared: Tensor
    """(N * H_kv,) the way back of `to_shared`"""
    turn: tuple[Tensor, Tensor]
    """cosine and sine of the angle of each row, (N, 1, D / 2)"""
    scaled_turn: tuple[Tensor, Tensor]
    """the same times the scaling of attention, for queries"""
    mask: Tensor
    """of a block of attention on its own keys"""
    wanted: Tensor
    """(n,) the rows before answers, and then some spare ones"""


def lay_out(ids: Tensor, answer: Tensor, decoder: Any, heads: Heads) -> tuple[Layout, Tensor]:
    """The layout of a batch, and its embedded rows (N, d).

    Args:
        ids: (B, T) token ids, padded on the right. answer: (B, T) True where a token is to be predicted; what comes after the
            last one of a row is padding.
        decoder: of transformers; it embeds tokens and gives the angles of places.
    """
    (batch, tokens), group, device = ids.shape, heads.count // heads.shared, ids.device
    places = torch.arange(tokens, device=device)
    last = torch.where(answer, places, 0).amax(1, keepdim=True)  # (B, 1)
    real = (places <= last).flatten().nonzero()[:, 0]
    count = real.shape[0]
    packed = functional.pad(real, (0, rounded_rows(count + 1) - count))  # (N,) the place of each row in (B, T)
    spare = packed.shape[0] - 1
    padded = torch.full((batch * tokens,), spare, device=device)  # the row of each place
    padded[real] = torch.arange(count, device=device)
    to_queries, from_queries = _moves(padded, packed, batch, heads.shared, group)
    to_shared, from_shared = _moves(padded, packed, batch, heads.shared, 1)
    before = padded[functional.pad(answer[:, 1:], (0, 1)).flatten()]
    wanted = functional.pad(before, (0, rounded_rows(before.shape[0] + 1) - before.shape[0]), value=spare)
    rows: Tensor = decoder.embed_tokens(ids.flatten()[packed])
    angles = decoder.rotary_emb(rows, (packed % tokens)[None])
    cosine, sine = (part[0, :, None, : heads.width // 2].contiguous() for part in angles)
    turn, scaled_turn = (cosine, sine), (cosine * heads.scaling, sine * heads.scaling)
    mask = blocks.corner(tokens, group, rows)
    sequences = batch * heads.shared
    return Layout(
        heads, sequences, count, to_queries, to_shared, from_queries, from_shared, turn, scaled_turn, mask, wanted
    ), rows


def _moves(padded: Tensor, packed: Tensor, batch: int, shared: int, group: int) -> tuple[Tensor, Tensor]:
    """Where each place of (B, H_kv, T, G) is found in rows (N, H_kv * G), and where each of these is found there."""
    tokens, heads = len(padded) // batch, torch.arange(shared * group, device=padded.device)
    rows = padded.view(batch, 1, tokens, 1) * len(heads)
    there = rows + heads.view(1, shared, 1, group)
    sequence, place = packed[:, None] // tokens, packed[:, None] % tokens  # (N, 1)
    back = ((sequence * shared + heads // group) * tokens + place) * group + heads % group  # (N, H)
    return there.flatten(), back.flatten()


def rounded_rows(count: int) -> int:
    """A number of rows, up to the next of eight steps in each power of two (a multiple of 16)."""
    step = max(16, 1 << max(count.bit_length() - 4, 0))
    return -(-count // step) * step


def to_heads(qkv: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Q (B * H_kv, T * G, D), scaled, k and v (B * H_kv, T, D), after the rotation, padded, from rows (N, (H + 2 H_kv) D)."""
    heads = layout.heads
    parts = qkv.view(qkv.shape[0], -1, heads.width).split([heads.count, heads.shared, heads.shared], dim=1)
    q = _turned(parts[0], *layout.scaled_turn).view(-1, heads.width)
    k = _turned(parts[1], *layout.turn).view(-1, heads.width)
    v = parts[2].reshape(-1, heads.width)
    found = q.index_select(0, layout.to_queries), k.index_select(0, layout.to_shared), v.index_select(0, layout.to_shared)
    q, k, v = (part.view(layout.sequences, -1, heads.width) for part in found)
    return q, k, v


def to_heads_back(grad_q: Tensor, grad_k: Tensor, grad_v: Tensor, layout: Layout) -> Tensor:
    """The gradient of rows of [q|k|v], (N, (H + 2 H_kv) D), from those of q, k and v."""
    count, heads = len(layout.turn[0]), layout.heads
    out = grad_q.new_empty(count, heads.count + 2 * heads.shared, heads.width)
    parts = out.split([heads.count, heads.shared, heads.shared], dim=1)
    moves = (layout.from_queries, layout.from_shared, layout.from_shared)
    grads = zip((grad_q, grad_k, grad_v), moves, strict=True)
    q, k, v = (grad.view(-1, heads.width).index_select(0, move).view(count, -1, heads.width) for grad, move in grads)
    _turned(q, layout.scaled_turn[0], -layout.scaled_turn[1], out=parts[0])
    _turned(k, layout.turn[0], -layout.turn[1], out=parts[1])
    parts[2].copy_(v)
    out[layout.count :] = 0
    return out.view(count, -1)


def _turned(x: Tensor, cosine: Tensor, sine: Tensor, out: Tensor | None = None) -> Tensor:
    """Rotary embedding of x (N, H, D): the halves of each head turned by the angle of the position, (N, 1, D / 2)."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out
    (one, two), (first, second) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(one, cosine, out=first).addcmul_(two, sine, value=-1)
    torch.mul(two, cosine, out=second).addcmul_(one, sine)
    return out
