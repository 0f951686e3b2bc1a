"""Prompts of a batch, computed once: their keys and values, which whatever comes after them shares.

Padding is on the right. Tokens that come later lie behind it, a mask hides it from them, and their positions go on from
their own prompt's end, so each is read as if it stood there alone:

    keys and values   p p p p . .   x x x          positions of x   4 5 6
                      p p p p p p   x x x                           6 7 8

What all prompts of a batch begin with lies beside them, once where the base can read it so (`one_copy`), else once a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from staf.data.batches import rounded
from staf.lm.base import Base, Layers
from staf.lm.fused import supports

Tokens = Sequence[int]
FORWARD_COST = 128
"""Places that cost as much as a forward of nothing: on a processor, mostly reading the weights (measured: about 120)."""


@dataclass(frozen=True)
class Beginning:
    """What prompts begin with in common."""

    length: int
    """tokens of the prompts that are computed"""
    layers: Layers
    """keys and values of each layer, (1, H_kv, before + length, D)"""
    before: int = 0
    """places that lie before all tokens, those of `Base.virtual`"""


@dataclass
class Prompts:
    """A batch of B prompts after their forward.

    Attributes:
        past: keys and values of every layer, (B, H_kv, P, D) each, as a cache of transformers.
        lengths: (B,) places of each prompt among them, virtual ones included.
        width: P, with the padding.
        last: (B, d) the hidden state after each prompt's last token.
        beginning: keys and values that lie before all of them, (1, H_kv, S, D), where there is one copy.
    """

    base: Base
    past: Any
    lengths: Tensor
    width: int
    last: Tensor
    beginning: Layers = ()

    @torch.no_grad()
    def follow(self, ids: Tensor, offsets: Tensor, seen: Tensor) -> Tensor:
        """Hidden states (B, N, d) of tokens (B, N) that follow the prompts.

        Args:
            offsets: (B, M) how many tokens lie between a prompt's end and each of the M tokens that follow it; the last N of
                them are the tokens given, the others came before and were kept.
            seen: (B, N, M) True where a token given sees one that follows the prompt; it sees the whole prompt anyway.
        """
        decoder = self.base.model.get_decoder()
        found = decoder(
            input_ids=ids,
            position_ids=(_places(self.beginning) + self.lengths[:, None] + offsets)[:, -ids.shape[1] :],
            attention_mask=self._mask(offsets, seen),
            past_key_values=self.past,
            use_cache=True,
            **_beside(self.beginning),
        )
        hidden: Tensor = found.last_hidden_state
        return hidden

    def select(self, rows: Tensor) -> None:
        """Keep only these prompts, (B',) indices."""
        self.past.batch_select_indices(rows)
        self.lengths, self.last = self.lengths[rows], self.last[rows]

    def _mask(self, offsets: Tensor, seen: Tensor) -> Any:
        """The additive mask (B, 1, N, P + M), or one for each kind of layer where some see only a window."""
        count = seen.shape[1]
        places = torch.arange(self.width, device=offsets.device).expand(len(offsets), -1)
        real = (places < self.lengths[:, None])[:, None].expand(-1, count, -1)
        seen = torch.cat([real, seen], dim=2)  # (B, N, P + M)
        window = getattr(self.base.model.config, "sliding_window", None)
        whole = _additive(seen, self.base.dtype)
        if window is None or self.width + offsets.shape[1] <= window:
            return whole
        positions = torch.cat([places, self.lengths[:, None] + offsets], dim=1)  # (B, P + M)
        near = positions[:, None, :] > positions[:, -count:, None] - window
        windowed = _additive(seen & near, self.base.dtype)
        mixed = hasattr(self.base.model.config, "layer_types")
        return {"full_attention": whole, "sliding_attention": windowed} if mixed else windowed


def batches(
    sizes: Sequence[tuple[int, int]], token_budget: int, kept: int = 0, forward_cost: int = FORWARD_COST
) -> list[list[int]]:
    """Batches of prompts of like size, so many that forwards and padding together cost least.

    Args:
        sizes: tokens of each prompt that are to be computed, and places after it.
        token_budget: places of a batch, padding included; at least one prompt is in a batch.
        kept: places of each prompt whose keys and values are there before.
        forward_cost: places that cost as much as one forward more.

    Returns:
        indices of prompts, each once, in order of size.
    """
    order = sorted(range(len(sizes)), key=lambda i: (sum(sizes[i]), i))
    best: list[tuple[float, int]] = [(0, 0)]  # cost of the first prompts, and where their last batch starts
    for end in range(1, len(order) + 1):
        width, after, least = 0, 0, (float("inf"), 0)
        for start in range(end - 1, -1, -1):
            width, after = max(width, sizes[order[start]][0]), max(after, sizes[order[start]][1])
            places = (end - start) * (rounded(width) + rounded(after))
            if places + (end - start) * kept > token_budget and start < end - 1:
                break
            least = min(least, (best[start][0] + places + forward_cost, start))
        best.append(least)
    found, end = [], len(order)
    while end:
        found.append(order[best[end][1] : end])
        end = best[end][1]
    return found[::-1]


@torch.no_grad()
def begin(base: Base, tokens: Tokens, before: Beginning | None = None) -> Beginning | None:
    """Compute what prompts begin with, going on from a shorter beginning of theirs; None where there is nothing."""
    virtual = base.virtual or ()
    if before is None and virtual:
        before = Beginning(0, virtual, virtual[0][0].shape[2])
    start, layers, places = (0, (), 0) if before is None else (before.length, before.layers, before.before)
    if start == len(tokens):
        return before
    past = _cache_of(layers, 1)
    ids = torch.tensor([list(tokens[start:])], device=base.device)
    base.model.get_decoder()(input_ids=ids, past_key_values=past, use_cache=True)
    return Beginning(len(tokens), layers_of(past), places)


@torch.no_grad()
def read(base: Base, prompts: Sequence[Tokens], beginning: Beginning | None, grows: bool) -> Prompts:
    """Compute a batch of prompts of any lengths, with the base as it is routed now.

    Args:
        beginning: of these prompts, and perhaps of others beside them.
        grows: keys and values of what follows are kept too; else every `follow` starts at the prompts' ends.
    """
    start, before, layers = (0, 0, ()) if beginning is None else (beginning.length, beginning.before, beginning.layers)
    beside = layers if one_copy(base) else ()
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=base.device)
    width = rounded(int(lengths.max()) - start)
    pad = base.tokenizer.pad_token_id or 0
    ids = torch.tensor([[*prompt[start:], *(pad,) * (start + width - len(prompt))] for prompt in prompts])
    past = _cache_of(() if beside else layers, len(prompts))
    options: dict[str, Any] = {"past_key_values": past, "use_cache": True, **_beside(beside)}
    if beside:
        options["position_ids"] = torch.arange(width, device=base.device)[None] + _places(beside)
    hidden = base.model.get_decoder()(input_ids=ids.to(base.device), **options).last_hidden_state
    last = hidden[torch.arange(len(prompts), device=base.device), lengths - start - 1]
    if not grows:
        past.layers = [_fixed_layer()(layer.keys, layer.values) for layer in past.layers]
    kept = before + start - _places(beside)
    return Prompts(base, past, lengths - start + kept, kept + width, last, beside)


def one_copy(base: Base) -> bool:
    """Whether rows read one copy of the keys and values that they begin with; a model of another kind has one a row."""
    return base.device.type == "cpu" and supports(base.model.config)


def _beside(layers: Layers) -> dict[str, Layers]:
    """What the forward of a decoder hands on to `staf.lm.attention`."""
    return {"beginning": layers} if layers else {}


def _places(layers: Layers) -> int:
    """Places of a beginning."""
    return layers[0][0].shape[2] if layers else 0


def layers_of(past: Any) -> Layers:
    """Keys and values of each layer of a cache of transformers."""
    return tuple((layer.keys, layer.values) for layer in past.layers)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, N, S) bool to (B, 1, N, S): 0, or the lowest number, so that a row that sees nothing is no NaN."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _cache_of(layers: Layers, rows: int) -> Any:
    """A cache that begins with keys and values (1, H_kv, P, D), the same for every row.

    Its layers keep everything, also those with a sliding window: the mask is what hides.
    """
    from transformers import DynamicCache

    past = DynamicCache()
    for index, (keys, values) in enumerate(layers):
        past.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), index)
    return past


@cache
def _fixed_layer() -> Any:
    """The kind of a cache's layer that shows new keys and values beside its own, and keeps none of them."""
    from transformers.cache_utils import DynamicLayer

    class FixedLayer(DynamicLayer):
        def __init__(self, keys: Tensor, values: Tensor) -> None:
            super().__init__()
            self.lazy_initialization(keys, values)
            self.own = self.keys, self.values = keys, values

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            return torch.cat([self.own[0], key_states], dim=-2), torch.cat([self.own[1], value_states], dim=-2)

    return FixedLayer
