"""Task-guided router: K expert logits to K weights (STAF-LLM, section 3.3, Eqs. 2, 3 and 7); pure functions.

    logits  e = A * s + b           (G, S)   G groups: 1 for a task, one per layer, or one per module    Eq. 2
    weights R = softmax(e / tau)    (G, K)   each row sums to 1                                          Eq. 3

`s` is the fixed descriptor of the experts through which Theta enters Eq. 2 (docs/paper.md, decision 1). S is K, or K + 1 with
the null expert: its slot 0 stands for the untouched base, takes part in the softmax and is left out of the weights.
Parameters are one vector (n,): A (G, S), b (G, S), and log_scale () where a scale is learned.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from staf.routing.recipe import RouterRecipe


def num_params(groups: int, experts: int, recipe: RouterRecipe) -> int:
    """Number of parameters for G groups and K experts."""
    return 2 * groups * (experts + recipe.null_expert) + recipe.learned_scale


def searched_params(count: int, recipe: RouterRecipe) -> slice:
    """Which of n parameters the method moves: all, or with CMA-ES b and the scale.

    s is fixed (Eq. 2), so A s + b reaches every value with b only, and a search pays for each dimension. It moves A too where
    A is penalised, or b is a single number.
    """
    size = (count - recipe.learned_scale) // 2
    only_b = recipe.method == "cma" and recipe.penalty != "alpha" and count - size > 1
    return slice(size if only_b else 0, count)


def initial_params(count: int, recipe: RouterRecipe, std: float | None = None) -> Tensor:
    """The random start of section 3.3.1 by the recipe's seed: normal numbers, log_scale 0; (n,) float32."""
    std = recipe.init_std if std is None else std
    params = torch.randn(count, generator=torch.Generator().manual_seed(recipe.seed)) * std
    if recipe.learned_scale:
        params[-1] = 0.0
    return params


def expert_weights(params: Tensor, descriptor: Tensor, recipe: RouterRecipe) -> Tensor:
    """Weights of the experts (G, K) from parameters (n,) and the descriptor (G, K)."""
    s = functional.pad(descriptor, (int(recipe.null_expert), 0))  # the base has no parameters: 0
    a, b = params[: 2 * s.numel()].view(2, *s.shape)
    logits = a * s + b  # (G, S)  # Eq. 2
    if recipe.weighting == "softmax":
        weights = torch.softmax(logits / recipe.temperature, dim=-1)[:, int(recipe.null_expert) :]  # (G, K)  # Eq. 3
    elif recipe.weighting == "unconstrained":
        weights = logits + 1 / descriptor.shape[1]
    else:
        weights = functional.normalize(logits, dim=-1)
    return weights * params[-1].exp() if recipe.learned_scale else weights


def uniform(experts: int) -> Tensor:
    """Weights (1, K) of the average: 1 / K each."""
    return torch.full((1, experts), 1.0 / experts)


def one_hot(index: int, experts: int) -> Tensor:
    """Weights (1, K) of a single expert."""
    return torch.eye(experts)[index : index + 1]


def weight_penalty(weights: Tensor) -> Tensor:
    """Sum over experts of the squared weights (G, K), averaged over the groups: STAF-LLM's penalty."""
    return weights.square().sum(-1).mean()  # Eq. 7


def alpha_penalty(params: Tensor, groups: int, recipe: RouterRecipe) -> Tensor:
    """Sum over experts of A squared, averaged over the groups: SA-MDKIF's penalty, its Eq. 6; of parameters (n,)."""
    return params[: (len(params) - recipe.learned_scale) // 2].view(groups, -1).square().sum(-1).mean()
