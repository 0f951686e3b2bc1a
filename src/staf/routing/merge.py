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
from staf.experts.store import ExpertSet
from staf.lm.base import Base

Factors = tuple[Tensor, Tensor, Tensor]
"""U (d_out, r), singular values times scale (r,), V (r, d_in) of one expert in one matrix; r may be 0."""


@dataclass(frozen=True)
class Stack:
    """All experts' factors of one matrix, side by side along the rank R."""

    u: Tensor
    """(d_out, R)"""
    singular: Tensor
    """(R,), the expert's scale included"""
    v: Tensor
    """(R, d_in)"""
    owner: Tensor
    """(R,) which expert a rank belongs to, 0 to K - 1"""


def stack(factors: Sequence[Factors]) -> Stack:
    """K experts' factors of one matrix as one stack; R is the sum of their ranks."""
    owner = torch.cat([torch.full((f[1].shape[0],), i, dtype=torch.long) for i, f in enumerate(factors)])
    return Stack(
        u=torch.cat([f[0] for f in factors], dim=1),
        singular=torch.cat([f[1] for f in factors]),
        v=torch.cat([f[2] for f in factors], dim=0),
        owner=owner.to(factors[0][1].device),
    )


def gain(stacked: Stack, weights: Tensor) -> Tensor:
    """Gain of each rank: weights (K,) to (R,), or (B, K) to (B, R)."""
    return stacked.singular * weights[..., stacked.owner]


def fused_delta(stacked: Stack, weights: Tensor) -> Tensor:
    """The sum of the experts' deltas under the weights (K,), as one matrix (d_out, d_in)."""
    return delta(stacked.u, gain(stacked, weights), stacked.v)  # Eq. 4


def squared_norms(stacked: Stack, experts: int) -> Tensor:
    """Squared Frobenius norm of each expert's delta, (K,), from Gram matrices of the rank."""
    gram_u = stacked.u.T @ stacked.u  # (R, R)
    gram_v = stacked.v @ stacked.v.T  # (R, R)
    cross = gram_u * gram_v * torch.outer(stacked.singular, stacked.singular)  # (R, R)
    same = stacked.owner[:, None] == stacked.owner[None, :]
    per_rank = (cross * same).sum(1)  # (R,)
    return torch.zeros(experts, dtype=per_rank.dtype, device=per_rank.device).index_add_(0, stacked.owner, per_rank)


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
        for name in base.lora.layers:
            scaled = [(e.factors[name][0], e.factors[name][1] * e.scale, e.factors[name][2]) for e in experts.experts]
            s = stack([(u.to(base.device), g.to(base.device), v.to(base.device)) for u, g, v in scaled])
            self.stacks[name] = s
        base.lora.attach({n: (s.u.to(base.dtype), s.v.to(base.dtype)) for n, s in self.stacks.items()})

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
