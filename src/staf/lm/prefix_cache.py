"""Prompts computed once: their keys and values are kept, and shared prefixes are prefilled once.

    instruction -- shot 1 -- shot 2 -- shot 3 -- query a        a tree of prefixes: each one is prefilled once, and prompts
         |            |                   |----- query b        or longer prefixes continue from its keys and values
         |            |------ shot 3 ----------- shot 2's query

In a batch padding is on the right. Tokens that follow a prompt are appended behind the padding, a mask hides it from them,
and their positions continue from their own prompt's end, so each row is computed as if there were no others:

    keys and values   p p p p . .   x x x          positions of x   4 5 6
                      p p p p p p   x x x                           6 7 8
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from staf.lm.batches import FORWARD_COST, common_length, plan_batches, round_up
from staf.lm.model import Base, KVCache

Tokens = Sequence[int]
PREFIX_COST = 2 * FORWARD_COST
"""Extra cost of a prefix, in tokens: a forward, and perhaps one more batch."""


@dataclass
class PrefixNode:
    """A prefix, the prompts that continue from it, and longer prefixes."""

    tokens: tuple[int, ...]
    prompts: list[int] = field(default_factory=list)
    """indices of prompts that continue from here"""
    children: list[PrefixNode] = field(default_factory=list)
    """longer prefixes that continue from here"""


def build_prefix_tree(prompts: Sequence[Tokens]) -> PrefixNode:
    """The tree of prefixes worth a forward of their own; each prompt is in it once.

    A prefix is added where it saves more tokens than it costs. No prefix is a full prompt: its last token is always computed.
    """
    rows = [tuple(prompt[:-1]) for prompt in prompts]
    root = PrefixNode(())
    stack = [(sorted(range(len(rows)), key=rows.__getitem__), root)] if rows else []
    while stack:
        group, node = stack.pop()
        shared = common_length(rows[group[0]], rows[group[-1]])  # the group is sorted
        if (len(group) - 1) * (shared - len(node.tokens)) > PREFIX_COST:
            node.children.append(PrefixNode(rows[group[0]][:shared]))
            node = node.children[-1]
        parts = [list(part) for _, part in groupby(group, key=lambda i: rows[i][shared : shared + 1])]
        if len(parts) > 1:
            stack += [(part, node) for part in parts]
        else:
            node.prompts += group
    return root


@dataclass(frozen=True)
class PrefixKV:
    """Keys and values of a prefix that several prompts share."""

    length: int
    """tokens of the prompts that are computed"""
    layers: KVCache
    """keys and values of each layer, (1, H_kv, virtual + length, D)"""

    @property
    def positions(self) -> int:
        """Positions before the first token that follows, those of `Base.prefix_kv` included."""
        return self.layers[0][0].shape[2]


@dataclass
class PrefilledBatch:
    """A batch of B prompts after their forward.

    Attributes:
        cache: keys and values of every layer, (B, H_kv, P, D) each, as a cache of transformers.
        lengths: (B,) positions of each prompt in it.
        width: P, padding included.
        last: (B, d) hidden state after each prompt's last token.
        growing: keep keys and values of what follows; otherwise every `extend` starts at the prompts' ends.
        prefix: of all of them, where one copy serves all rows (`Base.shares_prefix_kv`); else it is in the cache.
    """

    base: Base
    cache: Any
    lengths: Tensor
    width: int
    last: Tensor
    growing: bool
    prefix: PrefixKV | None = None

    @torch.no_grad()
    def extend(self, ids: Tensor, offsets: Tensor, seen: Tensor) -> Tensor:
        """Hidden states (B, N, d) of tokens (B, N) that follow the prompts.

        Args:
            offsets: (B, M) position after the prompt's end of each of the M tokens that follow it; the last N of them are
                the given tokens, the others were given before.
            seen: (B, N, M) True where a given token attends to a token that follows the prompt.
        """
        before = 0 if self.prefix is None else self.prefix.positions
        positions = (before + self.lengths[:, None] + offsets)[:, -ids.shape[1] :]
        shared = {} if self.prefix is None else {"prefix": self.prefix.layers}
        mask = self._mask(offsets, seen)
        hidden = self.base.decode(ids, self.cache, position_ids=positions, attention_mask=mask, **shared)
        if not self.growing:
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, : self.width], layer.values[:, :, : self.width]
        return hidden

    def select(self, rows: Tensor) -> None:
        """Keep only these prompts, (B',) indices."""
        self.cache.batch_select_indices(rows)
        self.lengths, self.last = self.lengths[rows], self.last[rows]

    def _mask(self, offsets: Tensor, seen: Tensor) -> Any:
        """The additive mask (B, 1, N, P + M), or one for each kind of layer where some have a sliding window."""
        count = seen.shape[1]
        columns = torch.arange(self.width, device=offsets.device).expand(len(offsets), -1)
        real = (columns < self.lengths[:, None])[:, None].expand(-1, count, -1)
        seen = torch.cat([real, seen], dim=2)  # (B, N, P + M)
        window = getattr(self.base.model.config, "sliding_window", None)
        full = _additive(seen, self.base.dtype)
        if window is None or self.width + offsets.shape[1] <= window:
            return full
        positions = torch.cat([columns, self.lengths[:, None] + offsets], dim=1)  # (B, P + M)
        near = positions[:, None, :] > positions[:, -count:, None] - window
        windowed = _additive(seen & near, self.base.dtype)
        mixed = hasattr(self.base.model.config, "layer_types")
        return {"full_attention": full, "sliding_attention": windowed} if mixed else windowed


def prefix_batches(
    base: Base, prompts: Sequence[Tokens], extra: Sequence[int], token_budget: int, forwards: int = 1
) -> Iterator[tuple[list[int], PrefixKV | None]]:
    """Batches of prompt indices, each with the prefix it continues from, computed with the current weights.

    A prefix is freed after the last batch that continues from it.

    Args:
        extra: tokens appended to each prompt later.
        token_budget: tokens of a batch, prefixes included where each row has a copy; a batch has at least one prompt.
        forwards: of a batch, at most: generation takes one for each token.

    Raises:
        ConfigError: a prompt and what is appended exceed the base's positions.
    """
    base.check_length(max((len(prompt) + more for prompt, more in zip(prompts, extra, strict=True)), default=0))
    stack: list[tuple[PrefixNode, PrefixKV | None]] = [(build_prefix_tree(prompts), None)]
    while stack:
        node, before = stack.pop()
        prefix, start = prefill_prefix(base, node.tokens, before), len(node.tokens)
        stack += [(child, prefix) for child in node.children]
        lengths, own = [len(prompts[i]) - start for i in node.prompts], [extra[i] for i in node.prompts]
        cached = 0 if base.shares_prefix_kv else start
        for batch in plan_batches(lengths, token_budget, extra=own, cached=cached, forward_cost=FORWARD_COST * forwards):
            yield [node.prompts[i] for i in batch], prefix


@torch.no_grad()
def prefill_prefix(base: Base, tokens: Tokens, before: PrefixKV | None = None) -> PrefixKV | None:
    """Keys and values of a prefix, continued from a shorter prefix of it; None where there is nothing."""
    if before is None and base.prefix_kv:
        before = PrefixKV(0, base.prefix_kv)
    start = before.length if before else 0
    if start == len(tokens):
        return before
    cache = _cache_of(before, 1)
    base.decode(torch.tensor([list(tokens[start:])], device=base.device), cache)
    return PrefixKV(len(tokens), kv_layers(cache))


@torch.no_grad()
def hidden_states(base: Base, prompts: Sequence[Tokens], prefix: PrefixKV | None, cache: Any = None) -> Tensor:
    """Hidden states (B, T, d) of a batch of prompts after their prefix, padded on the right, with the current weights.

    Args:
        prefix: of all these prompts. cache: receives keys and values; None where nothing follows.
    """
    base.check_length(max(map(len, prompts)))
    start, shared = prefix.length if prefix else 0, prefix if base.shares_prefix_kv else None
    width = round_up(max(map(len, prompts)) - start)
    ids = torch.tensor([[*prompt[start:], *(0,) * (start + width - len(prompt))] for prompt in prompts])
    if shared is not None:
        positions = torch.arange(width, device=base.device)[None] + shared.positions
        return base.decode(ids.to(base.device), cache, position_ids=positions, prefix=shared.layers)
    if prefix is not None and cache is None:
        cache = _cache_of(prefix, len(prompts))
    return base.decode(ids.to(base.device), cache)


@torch.no_grad()
def prefill(base: Base, prompts: Sequence[Tokens], prefix: PrefixKV | None, growing: bool) -> PrefilledBatch:
    """The forward of a batch of prompts of any lengths that share a prefix, with the current weights."""
    shared = prefix if base.shares_prefix_kv else None
    cache = _cache_of(None if shared else prefix, len(prompts))
    hidden = hidden_states(base, prompts, prefix, cache)
    lengths = torch.tensor([len(prompt) - (prefix.length if prefix else 0) for prompt in prompts], device=base.device)
    last = hidden[torch.arange(len(prompts), device=base.device), lengths - 1]
    copied = prefix.positions if prefix and not shared else 0
    return PrefilledBatch(base, cache, lengths + copied, hidden.shape[1] + copied, last, growing, shared)


def kv_layers(cache: Any) -> KVCache:
    """Keys and values of each layer of a cache of transformers."""
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask (B, N, S) as (B, 1, N, S): 0 where True, the lowest number elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _cache_of(prefix: PrefixKV | None, rows: int) -> Any:
    """A cache that starts with the keys and values of a prefix, the same for every row.

    Its layers keep all positions, those with a sliding window too: the mask hides what is outside.
    """
    from transformers import DynamicCache

    past = DynamicCache()
    for index, (keys, values) in enumerate(prefix.layers if prefix else ()):
        past.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), index)
    return past
