"""Fewer experts: those with little weight in a router are left out, and what is lost is measured.

What is lost is the norm of what the experts that are left out added to the weights of the base, against the norm of what all
add; with orthogonal experts of one size it is the share of their squared weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from staf.errors import ConfigError
from staf.experts.estimate import meta_model
from staf.experts.reduce import concat_factors, weights_of
from staf.experts.store import ExpertSet
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


def heavier_than(weights: Tensor, threshold: float) -> tuple[int, ...]:
    """The experts whose mean absolute weight over the groups of weights (G, K) is above a threshold, in order of the set.

    Raises:
        ConfigError: none is.
    """
    mean = weights.abs().mean(0)
    kept = tuple(torch.nonzero(mean > threshold)[:, 0].tolist())
    if not kept:
        raise ConfigError(f"no expert has a weight above {threshold:g}; the largest is {float(mean.max()):.4g}. Give less.")
    return kept


def lost_share(experts: ExpertSet, weights: Tensor, kept: Sequence[int], groups: Mapping[str, int] | None = None) -> float:
    """Norm of what the experts that are not kept add under the weights (G, K), divided by the norm of what all add.

    Over all matrices, from Gram matrices of the rank. Above 1 where experts cancel each other; 0 where all add nothing.

    Args:
        groups: row of the weights that each matrix takes; None takes row 0 for all.
    """
    dropped = torch.ones(weights.shape[1])
    dropped[list(kept)] = 0.0
    lost, whole = 0.0, 0.0
    for module in experts.shapes:
        parts, row = experts.factors_of(module), weights_of(weights, module, groups)
        lost += _squared_norm(*concat_factors(parts, row * dropped))
        whole += _squared_norm(*concat_factors(parts, row))
    return (lost / whole) ** 0.5 if whole > 0 else 0.0


def _squared_norm(b: Tensor, a: Tensor) -> float:
    """Squared Frobenius norm of B A, in float64."""
    b, a = b.double(), a.double()
    return max(float(((b.T @ b) * (a @ a.T)).sum()), 0.0)


def pruned_weights(weights: Tensor, kept: Sequence[int]) -> Tensor:
    """Weights (G, K) of the experts that are kept, (G, kept), each row scaled to the sum of absolute weights that it had."""
    chosen = weights[:, list(kept)]
    total, left = weights.abs().sum(1, keepdim=True), chosen.abs().sum(1, keepdim=True)
    return torch.where(left > 0, chosen * (total / left), chosen)


def groups_by_matrix(names: Sequence[str], layers: Sequence[int], granularity: str) -> dict[str, int]:
    """Row of a router's weights that each matrix takes: 0 for a task, its layer, or its own place in order."""
    if granularity == "task":
        return dict.fromkeys(names, 0)
    return dict(zip(names, layers if granularity == "layer" else range(len(names)), strict=True))


def prune_by_router(experts: ExpertSet, router: Router, count: int, base: str | None = None) -> tuple[ExpertSet, float]:
    """The `count` experts of a set that a router gives the largest weights, and the share that is lost (`lost_share`).

    Args:
        base: hub id, folder or GGUF file of the base; only its config is read, and only for weights by layer or matrix.

    Raises:
        ExpertMismatch, BaseMismatch: the router was made for another set. ConfigError: no such number of experts.
    """
    router.check(experts.experts[0].base, experts)
    kept, groups = heaviest(router.weights, count), None
    if router.settings.granularity != "task":
        model = meta_model(base, torch.float32)
        groups = groups_by_matrix(tuple(model.lora.layers), model.layer_of, router.settings.granularity)
    share = lost_share(experts, router.weights, kept, groups)
    return ExpertSet(tuple(experts.experts[index] for index in kept)), share
