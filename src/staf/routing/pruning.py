"""Fewer experts: those with little weight in a router are dropped, and the error is measured.

The error is the norm of what the dropped experts add to the base, divided by the norm of what all add; with orthogonal experts
of one norm its square is their share of the squared weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from staf.errors import ConfigError
from staf.experts.reduce import concat_factors
from staf.experts.store import ExpertSet
from staf.routing.merge import squared_norm
from staf.routing.store import Router


def heaviest(weights: Tensor, count: int) -> tuple[int, ...]:
    """The `count` experts with the largest mean absolute weight over the groups of weights (G, K), in order of the set.

    Raises:
        ConfigError: fewer than 1, or more than there are.
    """
    experts = weights.shape[1]
    if not 1 <= count <= experts:
        raise ConfigError(f"{count} of {experts} experts cannot be kept: give 1 to {experts}.")
    order = torch.sort(weights.abs().mean(0), descending=True, stable=True).indices
    return tuple(sorted(order[:count].tolist()))


def pruning_error(experts: ExpertSet, weights: Tensor, kept: Sequence[int], groups: Mapping[str, int]) -> float:
    """Norm of what the experts that are not kept add under the weights (G, K), divided by the norm of what all add.

    Over all matrices. Above 1 where experts cancel each other; 0 where all add nothing.

    Args:
        groups: row of the weights that each matrix takes.
    """
    dropped = torch.ones(weights.shape[1])
    dropped[list(kept)] = 0.0
    dropped_energy, total_energy = 0.0, 0.0
    for module in experts.shapes:
        parts, row = experts.factors_of(module), weights[groups[module]]
        dropped_energy += squared_norm(concat_factors(parts, row * dropped))
        total_energy += squared_norm(concat_factors(parts, row))
    return (dropped_energy / total_energy) ** 0.5 if total_energy > 0 else 0.0


def pruned_weights(weights: Tensor, kept: Sequence[int]) -> Tensor:
    """Weights (G, K) of the experts that are kept, (G, kept), each row scaled to the sum of absolute weights that it had."""
    chosen = weights[:, list(kept)]
    total, left = weights.abs().sum(1, keepdim=True), chosen.abs().sum(1, keepdim=True)
    return torch.where(left > 0, chosen * (total / left), chosen)


def prune_by_router(experts: ExpertSet, router: Router, count: int) -> tuple[ExpertSet, float]:
    """The `count` experts of a set that a router gives the largest weights, and the relative error (`pruning_error`).

    Raises:
        ExpertMismatch, BaseMismatch: the router was made for another set. ConfigError: no such number of experts.
    """
    router.check(experts.experts[0].base, experts)
    kept = heaviest(router.weights, count)
    error = pruning_error(experts, router.weights, kept, router.modules)
    return ExpertSet(tuple(experts.experts[index] for index in kept)), error
