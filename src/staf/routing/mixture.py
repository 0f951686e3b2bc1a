"""Experts inside a base: weights in, an adapted model out.

A mixture puts the stacked factors of an expert set into the routed layers once; after that a weight matrix is all that
changes between the original model (0), one expert, the average, and any router.
"""

from __future__ import annotations

import torch
from torch import Tensor

from staf.errors import ExpertMismatch
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.routing.fusion import Stack, fused_delta, gain, squared_norms, stack

GRANULARITIES = ("task", "layer", "matrix")


class Mixture:
    """An expert set attached to a base.

    Raises:
        BaseMismatch, ExpertMismatch: the experts do not belong to this base.
    """

    def __init__(self, base: Base, experts: ExpertSet) -> None:
        experts.check(base.identity, base.routed.shapes)
        self.base, self.experts = base, experts
        self.stacks: dict[str, Stack] = {}
        for name in base.routed.layers:
            scaled = [(e.factors[name][0], e.factors[name][1] * e.scale, e.factors[name][2]) for e in experts.experts]
            s = stack([(u.to(base.device), g.to(base.device), v.to(base.device)) for u, g, v in scaled])
            self.stacks[name] = s
        base.routed.attach({n: (s.u.to(base.dtype), s.v.to(base.dtype)) for n, s in self.stacks.items()})

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
        self.base.routed.set_gain(gains)

    def fused(self, weights: Tensor, granularity: str = "task") -> dict[str, Tensor]:
        """What the weights (G, K) add to each matrix, (d_out, d_in) float32 by name."""
        groups = self.groups(granularity).tolist()
        weights = weights.to(self.base.device)
        return {n: fused_delta(s, weights[g]) for (n, s), g in zip(self.stacks.items(), groups, strict=True)}
