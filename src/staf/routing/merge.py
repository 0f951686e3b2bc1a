"""Experts attached to a base, and their exact weighted sum (STAF-LLM, Eqs. 4 and 10).

    sum_i R_i B_i A_i  =  B_cat diag(R[expert_index]) A_cat

Products are summed, never factors: averaging B and A separately leaves cross terms and is 68 to 211 percent off. A mixture
puts the concatenated factors into a base once; then weights (G, K) are all that changes between the original model (0), one
expert, the average and any router.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from staf.errors import ExpertMismatch
from staf.experts.adapter import Factors
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.lm.lora import merged_weight

GRANULARITIES = ("task", "layer", "matrix")


@dataclass(frozen=True)
class Stack:
    """All experts' factors of one module, concatenated along the rank R."""

    b: Tensor
    """(d_out, R), scale and singular values in it"""
    a: Tensor
    """(R, d_in)"""
    expert_index: Tensor
    """(R,) which expert a rank belongs to, 0 to K - 1"""


def squared_norm(factors: Factors) -> float:
    """Squared Frobenius norm of B A, from Gram matrices of the rank in float64."""
    b, a = (part.double() for part in factors)
    return max(float(((b.T @ b) * (a @ a.T)).sum()), 0.0)


def module_groups(base: Base, granularity: str) -> list[int]:
    """Row of the weights that each adapted module takes, in order: 0 for all, its layer, or its own index."""
    layers = base.layer_of
    return [0] * len(layers) if granularity == "task" else list(layers if granularity == "layer" else range(len(layers)))


class Mixture:
    """An expert set attached to a base.

    Raises:
        BaseMismatch, ExpertMismatch: the experts do not belong to this base.
    """

    def __init__(self, base: Base, experts: ExpertSet) -> None:
        experts.check(base.identity, base.lora.shapes)
        self.base, self.experts = base, experts
        self.stacks: dict[str, Stack] = {}
        for name, shape in base.lora.shapes.items():
            b, a = zip(*experts.factors_of(name, shape), strict=True)
            index = torch.arange(len(a)).repeat_interleave(torch.tensor([len(part) for part in a]))
            self.stacks[name] = Stack(*(part.to(base.device) for part in (torch.cat(b, dim=1), torch.cat(a), index)))
        self._factors = {n: (s.b.to(base.dtype), s.a.to(base.dtype), None) for n, s in self.stacks.items()}
        self._buffers: dict[str, Tensor] = {}
        base.lora.attach(self._factors)

    def descriptor(self, granularity: str) -> Tensor:
        """S of Eq. 2, (G, K): the experts' delta norms in each group, divided by their mean; 1 where all are 0."""
        rows = [list(map(squared_norm, self.experts.factors_of(*module))) for module in self.base.lora.shapes.items()]
        groups, squares = torch.tensor(module_groups(self.base, granularity)), torch.tensor(rows, dtype=torch.float64)  # (M, K)
        total = torch.zeros(int(groups.max()) + 1, squares.shape[1], dtype=torch.float64)
        norms = total.index_add_(0, groups, squares).sqrt()  # (G, K)
        mean = norms.mean(1, keepdim=True)
        return torch.where(mean > 0, norms / mean, torch.ones_like(norms)).float()

    def set_weights(self, weights: Tensor, granularity: str = "task") -> None:
        """Route with weights (G, K), or (B, G, K) where each row of the batch has its own; gradients flow to them.

        Raises:
            ExpertMismatch: weights of another shape.
        """
        self._attach()
        self.base.lora.set_rank_scale(self._rank_scales(weights, granularity))

    @contextmanager
    def applied(self, weights: Tensor, granularity: str = "task", *, tokens: int) -> Iterator[None]:
        """The base with the weights (G, K), without gradients, for a number of tokens; afterwards the original model.

        On a CPU the deltas are merged where that costs less than multiplying by the factors (`merging_pays`), in the base's
        dtype; elsewhere, and for a quantized base, factors are multiplied. Either follows from shapes, never from a timing.
        """
        sizes = [(s.b.shape[0], s.b.shape[1], s.a.shape[1]) for s in self.stacks.values()]
        quantized = any(layer.quantized is not None for layer in self.base.lora.layers.values())
        if self.base.device.type == "cpu" and not quantized and merging_pays(sizes, tokens):
            with self.merged(weights, granularity):
                yield
            return
        try:
            self.set_weights(weights.detach(), granularity)
            yield
        finally:
            self.base.lora.set_rank_scale({})

    @contextmanager
    def merged(self, weights: Tensor, granularity: str = "task") -> Iterator[None]:
        """The base with the deltas of weights (G, K) merged into its matrices; afterwards the original model.

        Layers refer to W + B diag(scale) A in buffers that the mixture keeps, one copy of the adapted matrices; W is not
        written.

        Raises:
            ExpertMismatch: weights of another shape.
        """
        layers = self.base.lora.layers
        self._attach()
        self.base.lora.set_rank_scale({})
        scales = self._rank_scales(weights.detach(), granularity)
        originals = {name: layer.weight.data for name, layer in layers.items()}
        try:
            with torch.no_grad():
                for name, scale in scales.items():
                    stacked, original = self.stacks[name], originals[name]
                    if not len(stacked.a):
                        continue
                    if name not in self._buffers:
                        self._buffers[name] = torch.empty_like(original)
                    layers[name].weight.data = merged_weight(  # Eq. 10
                        original, stacked.b, scale, stacked.a, out=self._buffers[name]
                    )
            yield
        finally:
            for name, original in originals.items():
                layers[name].weight.data = original

    def _attach(self) -> None:
        """Put the experts' factors into the base, unless they are there: another mixture or a training may replace them."""
        layers = self.base.lora.layers
        if any(layers[name].lora_B is not b for name, (b, *_) in self._factors.items()):
            self.base.lora.attach(self._factors)

    def _rank_scales(self, weights: Tensor, granularity: str) -> dict[str, Tensor]:
        groups = module_groups(self.base, granularity)
        expected = (max(groups) + 1, len(self.experts.names))
        if tuple(weights.shape[-2:]) != expected:
            raise ExpertMismatch(
                f"weights of shape {tuple(weights.shape)} for {expected[1]} experts by {granularity}: "
                f"{expected} expected. Adapt again with these experts."
            )
        weights = weights.to(self.base.device)
        return {n: weights[..., g, s.expert_index] for (n, s), g in zip(self.stacks.items(), groups, strict=True)}


def merging_pays(sizes: Iterable[tuple[int, int, int]], tokens: int) -> bool:
    """True if merging (d_out, R, d_in) takes fewer multiplications than multiplying a number of tokens by the factors.

    Memory traffic breaks even at about the same number of tokens (350 for the default base).
    """
    listed = list(sizes)
    merging = sum(d_out * rank * d_in for d_out, rank, d_in in listed)
    return merging < tokens * sum(rank * (d_out + d_in) for d_out, rank, d_in in listed)
