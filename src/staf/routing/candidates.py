"""The loss of many candidate weights on the same examples, without gradients: what a few-shot search spends its time on.

    once for all     tokens in groups with a common beginning, batches of like length, the places before answers
    once a candidate the weights, and keys and values of each group's beginning (instruction, list of labels)
    once a batch     the rest of the tokens, logits at answer places alone

A candidate's weights get into the model in one of two ways. "carry" takes the factors along beside each matrix; several
candidates may then share a pass, each row of it with the gains of its own candidate. "add" puts W + U diag(gain) V in the
place of W for one candidate, which costs the same however many tokens follow. The sum goes into memory of its own and the
layers only point to it for a while, so not a byte of the original is ever written; that memory is one more copy of the
adapted matrices. Which way is cheaper is counted, not timed: a search that goes on after a stop must find the same losses.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from staf.errors import ExpertMismatch, MissingData
from staf.lm.base import expand_cache
from staf.lm.batches import FORWARD_COST, Encoded, collate, plan_batches
from staf.lm.prefix_cache import PrefixNode, build_prefix_tree
from staf.routing.merge import Mixture

Way = Literal["add", "carry"]

TOKEN_BUDGET = 8192
"""Places of one batch."""
ACCELERATOR_PLACES = 32768
"""Places of one pass of an accelerator, over all candidates in it."""
ACCELERATOR_FORWARD_COST = 4096
"""Places that cost as much as one pass more there: starting kernels takes longer than padding does."""
LOGIT_ROWS = 1024
"""Rows of logits at a time: 1,024 of the default base's 49,152 are 200 MB in float32."""


@dataclass(frozen=True)
class Part:
    """Some examples of a group, side by side, without their common beginning."""

    ids: Tensor
    """(B, T) token ids, padded on the right; nothing follows an example's last token, so it is left out"""
    before: Tensor
    """(B, T) bool, True at the places before answer tokens"""
    targets: Tensor
    """(n,) these answer tokens, row by row"""


@dataclass(frozen=True)
class Group:
    """Examples that go on from the same beginning."""

    beginning: Tensor
    """(P,) token ids, those after the beginning before it; P may be 0"""
    before: int | None
    """the group whose beginning it goes on from, which is another one before it"""
    parts: tuple[Part, ...]

    @property
    def places(self) -> int:
        """Places that one candidate's pass computes."""
        return self.beginning.numel() + sum(part.ids.numel() for part in self.parts)


class CandidateLoss:
    """Mean of -log p over all answer tokens of some examples, as a function of the expert weights.

    Args:
        mixture: experts attached to a base.
        granularity: what a row of the weights is for, as in `Mixture.set_weights`.
        items: the examples.
        token_budget: places of one batch.
        way: how weights get into the model; None takes what is counted to be cheaper.
        together: candidates in a pass; None takes 1 on a processor, what fits into `ACCELERATOR_PLACES` elsewhere. Above 1
            factors are carried.
        room: memory for the sums of "add", as in `added`; several losses of one mixture may share it.

    Attributes:
        groups: the examples as they are computed.
        answer_tokens: how many tokens the loss is the mean of.

    Raises:
        MissingData: no examples.
    """

    def __init__(
        self,
        mixture: Mixture,
        granularity: str,
        items: Sequence[Encoded],
        *,
        token_budget: int = TOKEN_BUDGET,
        way: Way | None = None,
        together: int | None = None,
        room: dict[str, Tensor] | None = None,
    ) -> None:
        if not items:
            raise MissingData("no examples to judge candidates by. Give at least one.")
        self.mixture, self.granularity = mixture, granularity
        pad, device = mixture.base.tokenizer.pad_token_id or 0, mixture.base.device
        self.groups = groups_of(items, pad, device, token_budget)
        self.answer_tokens = sum(part.targets.numel() for group in self.groups for part in group.parts)
        largest = max(part.ids.numel() for group in self.groups for part in group.parts)
        fitting = 1 if device.type == "cpu" else max(ACCELERATOR_PLACES // largest, 1)
        self.together = fitting if together is None else together
        sizes = [(s.b.shape[0], s.b.shape[1], s.a.shape[1]) for s in mixture.stacks.values()]
        counted = "carry" if self.together > 1 or quantized(mixture) else cheaper_way(sizes, self.places)
        self.way: Way = counted if way is None else way
        self._room: dict[str, Tensor] = {} if room is None else room

    @property
    def places(self) -> int:
        """Places that one candidate takes, padding included."""
        return sum(group.places for group in self.groups)

    def __call__(self, weights: Tensor) -> list[float]:
        """Loss of each of C candidates, from their weights (C, G, K). Afterwards the base is the original model.

        Raises:
            ExpertMismatch: weights of another shape.
        """
        if weights.dim() != 3:
            raise ExpertMismatch(
                f"candidates of shape {tuple(weights.shape)}: (candidates, rows of weights, experts) expected. "
                "Give one candidate as weights[None]."
            )
        size = self.together if self.way == "carry" else 1
        return [loss for some in weights.detach().split(size) for loss in self._losses(some, self.way)]

    def measure(self, weights: Tensor) -> dict[Way, float]:
        """Seconds that a candidate (G, K) takes by each way, the second of two times, to hold the counting against."""
        ways: tuple[Way, ...] = ("add", "carry")
        seconds = dict.fromkeys(ways, 0.0)
        for _ in range(2):
            for way in ways:
                started = time.perf_counter()
                self._losses(weights.detach()[None], way)
                seconds[way] = time.perf_counter() - started
        return seconds

    @torch.no_grad()
    def _losses(self, weights: Tensor, way: Way) -> list[float]:
        """Losses of the candidates (C, G, K) of one pass."""
        routed = self.mixture.base.lora
        if way == "add":
            with added(self.mixture, weights[0], self.granularity, self._room):
                return self._passes(1, {})
        try:
            self.mixture.set_weights(weights if len(weights) > 1 else weights[0], self.granularity)
            scales = {n: layer.rank_scale for n, layer in routed.layers.items() if layer.rank_scale is not None}
            return self._passes(len(weights), scales)
        finally:
            routed.set_rank_scale({})

    def _passes(self, candidates: int, gains: Mapping[str, Tensor]) -> list[float]:
        """Losses of the candidates whose gains, (R,) or (C, R), are given; without gains that of the matrices as they are."""
        base = self.mixture.base
        decoder = base.model.get_decoder()
        totals = torch.zeros(candidates, dtype=torch.float64, device=base.device)
        pasts: list[Any] = []
        for group in self.groups:
            base.lora.set_rank_scale(gains)
            past = None
            if group.beginning.numel():
                before = None if group.before is None else expand_cache(pasts[group.before], 1)
                begun = group.beginning.expand(candidates, -1)
                past = decoder(input_ids=begun, past_key_values=before, use_cache=True).past_key_values
            pasts.append(past)
            for part in group.parts:
                rows = len(part.ids)
                if candidates > 1:
                    base.lora.set_rank_scale({name: gain.repeat_interleave(rows, 0) for name, gain in gains.items()})
                options: dict[str, Any] = {"use_cache": past is not None}
                if past is not None:
                    options["past_key_values"] = expand_cache(past, rows)
                states = decoder(input_ids=part.ids.repeat(candidates, 1), **options).last_hidden_state
                wanted = states[part.before.repeat(candidates, 1)].view(candidates, part.targets.numel(), -1)
                totals += torch.stack([self._answer_loss(hidden, part.targets) for hidden in wanted])
        return [total / self.answer_tokens for total in totals.tolist()]  # Eq. 5

    def _answer_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum of -log p of the answer tokens (n,) after the hidden states (n, d), ()."""
        blocks = zip(hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), strict=True)
        losses = [functional.cross_entropy(self.mixture.base.logits(h), t, reduction="sum") for h, t in blocks]
        return torch.stack(losses).sum()


def quantized(mixture: Mixture) -> bool:
    """True where matrices are made of codes, to which nothing can be added."""
    return any(layer.quantized is not None for layer in mixture.base.lora.layers.values())


@contextmanager
def weighted(mixture: Mixture, weights: Tensor, granularity: str, room: dict[str, Tensor]) -> Iterator[None]:
    """The base with the weights' (G, K) deltas, added or, where that cannot be, carried; afterwards the original.

    Raises:
        ExpertMismatch: weights of another shape.
    """
    if not quantized(mixture):
        with added(mixture, weights, granularity, room):
            yield
        return
    try:
        mixture.set_weights(weights.detach(), granularity)
        yield
    finally:
        mixture.base.lora.set_rank_scale({})


@contextmanager
def added(
    mixture: Mixture, weights: Tensor, granularity: str = "task", room: dict[str, Tensor] | None = None
) -> Iterator[None]:
    """The base with the weights' (G, K) deltas added into its matrices, in the base's dtype; afterwards the original.

    Layers point to W + U diag(gain) V in memory of its own; W is not written. Gains that were set are taken away.

    Args:
        room: this memory by matrix, filled where it is empty and kept for the next call: a copy of the adapted matrices.

    Raises:
        ExpertMismatch: weights of another shape.
    """
    routed = mixture.base.lora
    sums = {} if room is None else room
    mixture.set_weights(weights.detach(), granularity)
    gains = {name: layer.rank_scale for name, layer in routed.layers.items()}
    routed.set_rank_scale({})
    originals = {name: layer.weight.data for name, layer in routed.layers.items()}
    try:
        with torch.no_grad():
            for name, gain in gains.items():
                stack, layer, original = mixture.stacks[name], routed.layers[name], originals[name]
                if gain is None or layer.lora_A is None or not len(stack.a):
                    continue
                into = sums.setdefault(name, torch.empty_like(original))
                scaled = (stack.b * gain).to(original.dtype)  # (d_out, R)
                layer.weight.data = torch.addmm(original, scaled, layer.lora_A, out=into)  # Eq. 10
        yield
    finally:
        for name, original in originals.items():
            routed.layers[name].weight.data = original


def cheaper_way(sizes: Iterable[tuple[int, int, int]], tokens: int) -> Way:
    """The way with fewer multiplications: of (d_out, R, d_in) once a candidate, or of factors and tokens.

    Numbers moved to and from memory break even at about the same number of tokens (some 350 for the default base), so they
    are not counted.
    """
    listed = list(sizes)
    adding = sum(d_out * rank * d_in for d_out, rank, d_in in listed)
    carrying = tokens * sum(rank * (d_out + d_in) for d_out, rank, d_in in listed)
    return "add" if adding < carrying else "carry"


def groups_of(items: Sequence[Encoded], pad: int, device: torch.device, token_budget: int) -> tuple[Group, ...]:
    """The items in groups with the beginnings that are worth a pass, each after the one that it goes on from."""
    root = build_prefix_tree([item.tokens[: item.answer_start] for item in items])
    groups: list[Group] = []
    left: list[tuple[PrefixNode, int, int | None]] = [(root, 0, None)]
    while left:
        branch, opened, before = left.pop()
        beginning = torch.tensor(items[branch.first].tokens[opened : branch.length], dtype=torch.long, device=device)
        parts = _parts([items[i] for i in branch.prompts], branch.length, pad, device, token_budget)
        if parts or branch.length:
            groups.append(Group(beginning, before, parts))
        here = len(groups) - 1 if branch.length else None
        left += [(further, branch.length, here) for further in branch.children]
    return tuple(groups)


def _parts(items: Sequence[Encoded], shared: int, pad: int, device: torch.device, token_budget: int) -> tuple[Part, ...]:
    """Items without their `shared` first tokens, as tensors."""
    rests = [Encoded(item.id, item.tokens[shared:], item.answer_start - shared) for item in items]
    lengths = [len(rest.tokens) for rest in rests]
    parts = []
    cost = FORWARD_COST if device.type == "cpu" else ACCELERATOR_FORWARD_COST
    for indices in plan_batches(lengths, token_budget, forward_cost=cost):
        width = max(lengths[i] for i in indices)
        batch = collate([rests[i] for i in indices], pad, device)
        ids, answer = batch.ids[:, :width], batch.answer[:, :width]
        parts.append(Part(ids[:, :-1], answer[:, 1:], ids[:, 1:][answer[:, 1:]]))
    return tuple(parts)
