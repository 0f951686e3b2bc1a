"""Task-guided router: K expert logits to K fusion weights (STAF-LLM, section 3.3, Eqs. 2, 3 and 7).

    logits  e = A * s + b           (G, K)   G groups: 1 for a task, one per layer, or one per matrix    Eq. 2
    weights R = softmax(e / tau)    (G, K)   each row sums to 1                                          Eq. 3

`s` is the fixed descriptor of the experts through which Theta enters Eq. 2 (docs/paper.md, decision 1). With the null
expert a slot 0 stands for the untouched base: it takes part in the softmax and is left out of the weights. With a learned
scale the weights are multiplied by one number, which Eq. 3 does not have.

Knows nothing of language models: how good a weight matrix is comes in as a function of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class RouterShape:
    """What a router's numbers mean."""

    groups: int
    """G: 1 for a task, the number of layers, or the number of matrices."""
    experts: int
    """K."""
    null_expert: bool = False
    """Slot 0 of the softmax is the untouched base (SA-MDKIF sums from j = 0)."""
    learned_scale: bool = False
    """One factor beside the softmax, exp(log_scale); not in the papers."""
    temperature: float = 1.0
    """tau of Eq. 3."""
    weighting: str = "softmax"
    """How logits become weights: softmax (Eq. 3); free (1 / K and they) and unit (at length 1) are not in the papers."""

    @property
    def slots(self) -> int:
        """Entries of one row of A: K, or K + 1 with the null expert."""
        return self.experts + int(self.null_expert)

    @property
    def num_params(self) -> int:
        """Number of parameters."""
        return 2 * self.groups * self.slots + int(self.learned_scale)

    def searched(self, penalty: str) -> slice:
        """The parameters that CMA-ES moves: b and the scale; A too where it is penalised, or b is a single number.

        s is fixed (Eq. 2), so A s + b reaches every value with b only, and a search pays for each dimension.
        """
        size = self.groups * self.slots
        return slice(size if self.num_params - size > 1 and penalty != "alpha" else 0, self.num_params)


@dataclass
class RouterParams:
    """The tunable numbers: A (G, S), b (G, S) and, where the scale is learned, log_scale (); S slots."""

    a: Tensor
    b: Tensor
    log_scale: Tensor | None

    def flatten(self) -> Tensor:
        """All numbers in one vector (n,), in the order A, b, log_scale."""
        parts = [self.a.reshape(-1), self.b.reshape(-1)]
        return torch.cat(parts if self.log_scale is None else [*parts, self.log_scale.reshape(1)])


def unflatten(vector: Tensor, shape: RouterShape) -> RouterParams:
    """The numbers of a vector (n,) as A, b and log_scale; the inverse of `flatten`."""
    size = shape.groups * shape.slots
    a = vector[:size].view(shape.groups, shape.slots)
    b = vector[size : 2 * size].view(shape.groups, shape.slots)
    return RouterParams(a, b, vector[2 * size] if shape.learned_scale else None)


def initial_params(shape: RouterShape, seed: int, std: float) -> Tensor:
    """The random start of section 3.3.1: normal numbers of the given std, log_scale 0. Returns (n,) float32."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(shape.num_params, generator=generator) * std
    if shape.learned_scale:
        vector[-1] = 0.0
    return vector


def with_null(descriptor: Tensor, shape: RouterShape) -> Tensor:
    """The descriptor (G, K) with a column of 0 for the null expert, which has no parameters: (G, S)."""
    if not shape.null_expert:
        return descriptor
    return torch.cat([torch.zeros_like(descriptor[:, :1]), descriptor], dim=1)


def expert_weights(params: RouterParams, descriptor: Tensor, shape: RouterShape) -> Tensor:
    """Weights of the experts (G, K) from the numbers and the descriptor (G, K)."""
    logits = params.a * with_null(descriptor, shape) + params.b  # (G, S)  # Eq. 2
    if shape.weighting == "softmax":
        weights = torch.softmax(logits / shape.temperature, dim=-1)  # (G, S)  # Eq. 3
        weights = weights[:, shape.slots - shape.experts :]  # (G, K)
    else:
        weights = logits + 1 / shape.experts if shape.weighting == "unconstrained" else functional.normalize(logits, dim=-1)
    return weights if params.log_scale is None else weights * params.log_scale.exp()


def uniform(experts: int) -> Tensor:
    """Weights (1, K) of the average: 1 / K each."""
    return torch.full((1, experts), 1.0 / experts)


def one_hot(index: int, experts: int) -> Tensor:
    """Weights (1, K) of a single expert: 1 for it, 0 for the others."""
    weights = torch.zeros(1, experts)
    weights[0, index] = 1.0
    return weights


def weight_penalty(weights: Tensor) -> Tensor:
    """Sum over experts of the squared weights (G, K), averaged over the groups: STAF-LLM's penalty."""
    return weights.square().sum(-1).mean()  # Eq. 7


def alpha_penalty(params: RouterParams) -> Tensor:
    """Sum over experts of alpha squared, averaged over the groups: SA-MDKIF's penalty, its Eq. 6."""
    return params.a.square().sum(-1).mean()
