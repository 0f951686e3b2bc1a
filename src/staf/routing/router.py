"""Task-guided router: K expert logits to K weights (STAF-LLM, section 3.3, Eqs. 2, 3 and 7); pure functions.

    logits  e = A * s + b           (G, K)   G groups: 1 for a task, one per layer, or one per module    Eq. 2
    weights R = softmax(e / tau)    (G, K)   each row sums to 1                                          Eq. 3

`s` is the fixed descriptor of the experts through which Theta enters Eq. 2 (docs/paper.md, decision 1). With the null expert a
slot 0 stands for the untouched base: it takes part in the softmax and is left out of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class RouterShape:
    """What a router's parameters (n,) mean: A (G, S), b (G, S), and log_scale () where the scale is learned."""

    groups: int
    """G: 1 for a task, the number of layers, or the number of modules"""
    experts: int
    """K"""
    null_expert: bool = False
    """slot 0 of the softmax is the untouched base (SA-MDKIF sums from j = 0)"""
    learned_scale: bool = False
    """one factor of all weights, exp(log_scale); not in the papers"""
    temperature: float = 1.0
    """tau of Eq. 3"""
    weighting: str = "softmax"
    """how logits become weights: softmax (Eq. 3); unconstrained (1 / K plus them) and l2 (norm 1) are not in the papers"""

    @property
    def slots(self) -> int:
        """S, entries of one row of A: K, or K + 1 with the null expert."""
        return self.experts + int(self.null_expert)

    @property
    def num_params(self) -> int:
        """Number of parameters."""
        return 2 * self.groups * self.slots + int(self.learned_scale)

    def alpha(self, params: Tensor) -> Tensor:
        """A (G, S) of parameters (n,)."""
        return params[: self.groups * self.slots].view(self.groups, self.slots)

    def searched(self, penalty: str) -> slice:
        """The parameters that CMA-ES moves: b and the scale; A too where it is penalised, or b is a single number.

        s is fixed (Eq. 2), so A s + b reaches every value with b only, and a search pays for each dimension.
        """
        size = self.groups * self.slots
        return slice(size if self.num_params - size > 1 and penalty != "alpha" else 0, self.num_params)


def initial_params(shape: RouterShape, seed: int, std: float) -> Tensor:
    """The random start of section 3.3.1: normal numbers, log_scale 0; (n,) float32."""
    params = torch.randn(shape.num_params, generator=torch.Generator().manual_seed(seed)) * std
    if shape.learned_scale:
        params[-1] = 0.0
    return params


def expert_weights(params: Tensor, descriptor: Tensor, shape: RouterShape) -> Tensor:
    """Weights of the experts (G, K) from parameters (n,) and the descriptor (G, K)."""
    size = shape.groups * shape.slots
    b = params[size : 2 * size].view(shape.groups, shape.slots)
    s = functional.pad(descriptor, (int(shape.null_expert), 0))  # the base has no parameters: 0
    logits = shape.alpha(params) * s + b  # (G, S)  # Eq. 2
    if shape.weighting == "softmax":
        weights = torch.softmax(logits / shape.temperature, dim=-1)[:, shape.slots - shape.experts :]  # (G, K)  # Eq. 3
    else:
        weights = logits + 1 / shape.experts if shape.weighting == "unconstrained" else functional.normalize(logits, dim=-1)
    return weights * params[-1].exp() if shape.learned_scale else weights


def uniform(experts: int) -> Tensor:
    """Weights (1, K) of the average: 1 / K each."""
    return torch.full((1, experts), 1.0 / experts)


def one_hot(index: int, experts: int) -> Tensor:
    """Weights (1, K) of a single expert."""
    return torch.eye(experts)[index : index + 1]


def weight_penalty(weights: Tensor) -> Tensor:
    """Sum over experts of the squared weights (G, K), averaged over the groups: STAF-LLM's penalty."""
    return weights.square().sum(-1).mean()  # Eq. 7


def alpha_penalty(alpha: Tensor) -> Tensor:
    """Sum over experts of alpha (G, S) squared, averaged over the groups: SA-MDKIF's penalty, its Eq. 6."""
    return alpha.square().sum(-1).mean()
