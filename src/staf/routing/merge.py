"""Experts inside a base: weights in, an adapted model out.

A mixture puts the stacked factors of an expert set into the routed layers once; after that a weight matrix is all that
changes between the original model (0), one expert, the average, and any router.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from staf.errors import ExpertMismatch
from staf.experts.adalora import delta
from staf.experts.adapter import Factors
from staf.experts.store import ExpertSet
from staf.lm.base import Base


@dataclass(frozen=True)
class Stack:
    """All experts' factors of one module, concatenated along the rank R."""

    b: Tensor
    """(d_out, R), scale and singular values in it"""
    a: Tensor
    """(R, d_in)"""
    expert_index: Tensor
    """(R,) which expert a rank belongs to, 0 to K - 1"""


def stack(factors: Sequence[Factors]) -> Stack:
    """K experts' factors of one module as one stack; R is the sum of their ranks."""
    index = torch.cat([torch.full((a.shape[0],), i, dtype=torch.long) for i, (_, a) in enumerate(factors)])
    return Stack(torch.cat([b for b, _ in factors], dim=1), torch.cat([a for _, a in factors]), index.to(factors[0][0].device))


def gain(stacked: Stack, weights: Tensor) -> Tensor:
    """Gain of each rank: weights (K,) to (R,), or (B, K) to (B, R)."""
    return weights[..., stacked.expert_index]


def fused_delta(stacked: Stack, weights: Tensor) -> Tensor:
    """The sum of the experts' deltas under the weights (K,), as one matrix (d_out, d_in)."""
    return delta(stacked.b, gain(stacked, weights), stacked.a)  # Eq. 4


def squared_norms(stacked: Stack, experts: int) -> Tensor:
    """Squared Frobenius norm of each expert's delta, (K,), from Gram matrices of the rank."""
    cross = (stacked.b.T @ stacked.b) * (stacked.a @ stacked.a.T)  # (R, R)
    same = stacked.expert_index[:, None] == stacked.expert_index[None, :]
    per_rank = (cross * same).sum(1)  # (R,)
    return torch.zeros(experts, dtype=per_rank.dtype, device=per_rank.device).index_add_(0, stacked.expert_index, per_rank)


GRANULARITIES = ("task", "layer", "matrix")


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
            pairs = experts.factors_of(name, shape)
            self.stacks[name] = stack([(b.to(base.device), a.to(base.device)) for b, a in pairs])
        base.lora.attach({n: (s.b.to(base.dtype), s.a.to(base.dtype)) for n, s in self.stacks.items()})

    def groups(self, granularity: str) -> Tensor:
        """Row of the weights that each matrix takes, (M,): 0 for all, its layer, or itself."""
        matrices = len(self.stacks)
        if granularity == "task":
            return torch.zeros(matrices, dtype=torch.long, device=self.base.device)
        if granularity == "layer":
            return torch.tensor(self.base.layer_of, device=self.base.device)
        return torch.arange(matrices, device=self.base.device)

    def descriptor(self, granularity: str) -> Tensor:
        """S of Eq. 2, (G, K): the experts' delta norms in each group, divided by their mean; 1 where all are 0."""
        groups = self.groups(granularity)
        count = len(self.experts.names)
        squares = torch.stack([squared_norms(s, count) for s in self.stacks.values()])  # (M, K)
        total = torch.zeros(int(groups.max()) + 1, count, device=squares.device)
        norms = total.index_add_(0, groups, squares).clamp_min(0).sqrt()  # (G, K)
        mean = norms.mean(1, keepdim=True)
        return torch.where(mean > 0, norms / mean.clamp_min(1e-30), torch.ones_like(norms))

    def set_weights(self, weights: Tensor, granularity: str = "task") -> None:
        """Route with weights (G, K), or (B, G, K) where each row of the batch has its own; gradients flow to them."""
        groups = self.groups(granularity)
        expected = (int(groups.max()) + 1, len(self.experts.names))
        if tuple(weights.shape[-2:]) != expected:
            raise ExpertMismatch(
                f"weights of shape {tuple(weights.shape)} for {expected[1]} experts by {granularity}: "
                f"{expected} expected. Adapt again with these experts."
            )
        weights = weights.to(self.base.device)
        gains = {n: gain(s, weights[..., g, :]) for (n, s), g in zip(self.stacks.items(), groups.tolist(), strict=True)}
        self.base.lora.set_rank_scale(gains)

    def fused(self, weights: Tensor, granularity: str = "task") -> dict[str, Tensor]:
        """What the weights (G, K) add to each matrix, (d_out, d_in) float32 by name."""
        groups = self.groups(granularity).tolist()
        weights = weights.to(self.base.device)
        return {n: fused_delta(s, weights[g]) for (n, s), g in zip(self.stacks.items(), groups, strict=True)}
