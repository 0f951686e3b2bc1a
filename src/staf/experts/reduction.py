"""Fewer ranks, with the exact error that it makes.

Factors laid side by side are brought to the best k singular values without ever forming the matrix,

    U diag(g) V = (Q_u R_u) diag(g) (Q_v R_v)' = Q_u (R_u diag(g) R_v') Q_v'      thin QR of U and of V'
    R_u diag(g) R_v' = L diag(s) M'                                               SVD of at most R x R
    the best matrix of rank k is (Q_u L_k) diag(s_k) (Q_v M_k)'                   Eckart and Young (1936)

and its squared error is the sum of the squared singular values that are cut off. It serves one expert, and the weighted
sum of many (STAF-LLM, Eq. 4), whose factors side by side are such a product. All is computed in float64 and in a fixed
order, so the same experts give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staf.errors import ConfigError
from staf.experts.sets import average_rank, count_numbers, write_set
from staf.experts.store import Expert, ExpertSet

Factors = tuple[Tensor, Tensor, Tensor]
"""U (d_out, r), singular values (r,), V (r, d_in) of one matrix; r may be 0."""


@dataclass(frozen=True)
class Reduced:
    """Factors of a lower rank, and what was cut off."""

    factors: Factors
    """U (d_out, k) with orthonormal columns, singular values (k,) falling, V (k, d_in) with orthonormal rows"""
    cut: float
    """squared Frobenius norm of what was cut off"""
    whole: float
    """squared Frobenius norm of all"""


def relative_error(parts: Sequence[Reduced]) -> float:
    """Frobenius norm of what was cut off, over all matrices, divided by that of the whole; 0 where there was nothing."""
    whole = sum(part.whole for part in parts)
    return (sum(part.cut for part in parts) / whole) ** 0.5 if whole > 0 else 0.0


def refactor(factors: Factors, rank: int) -> Reduced:
    """The best factors of at most `rank` for U diag(singular) V, by thin QR and a small SVD.

    The rank of the result is no more than that of the matrix itself. The columns of U are signed so that the largest entry
    of each is positive.

    Raises:
        ConfigError: a rank below 1.
    """
    if rank < 1:
        raise ConfigError(f"rank = {rank} cannot be kept: give a rank of at least 1.")
    u, gain, v = (part.double() for part in factors)
    basis_u, small_u = torch.linalg.qr(u)  # (d_out, p), (p, R)
    basis_v, small_v = torch.linalg.qr(v.T)  # (d_in, q), (q, R)
    left, singular, right = torch.linalg.svd((small_u * gain) @ small_v.T, full_matrices=False)
    squares = singular.square()
    noise = float(singular[0]) * max(u.shape[0], v.shape[1]) * torch.finfo(torch.float64).eps if singular.numel() else 0.0
    kept = min(rank, int((singular > noise).sum()))
    new_u, new_v = basis_u @ left[:, :kept], right[:kept] @ basis_v.T
    if kept:
        largest = new_u.gather(0, new_u.abs().argmax(0, keepdim=True))  # (1, k)
        new_u, new_v = new_u * largest.sign(), new_v * largest.sign().T
    dtype = factors[0].dtype
    found = (new_u.to(dtype).contiguous(), singular[:kept].to(dtype), new_v.to(dtype).contiguous())
    return Reduced(found, float(squares[kept:].sum()), float(squares.sum()))


def side_by_side(parts: Sequence[Factors], weights: Tensor) -> Factors:
    """The weighted sum of K experts' factors of one matrix as one product of the summed rank; weights (K,)."""
    gains = [singular * weight for (_, singular, _), weight in zip(parts, weights, strict=True)]
    return (  # Eq. 4
        torch.cat([u for u, _, _ in parts], dim=1),
        torch.cat(gains),
        torch.cat([v for _, _, v in parts], dim=0),
    )


def reduce_expert(expert: Expert, rank: int) -> tuple[Expert, float]:
    """An expert with at most `rank` in each matrix, and the relative Frobenius error over all matrices.

    It keeps name, base, scale and what it was trained on. It is not what its training settings give, so it no longer
    carries their digest, and training does not take it for finished.

    Raises:
        ConfigError: a rank below 1.
    """
    found = {name: refactor(factors, rank) for name, factors in expert.factors.items()}
    error = relative_error(list(found.values()))
    record = {key: value for key, value in expert.record.items() if key != "run"}
    record["reduced"] = {"from": expert.fingerprint, "rank": rank, "error": error}
    return replace(expert, factors={name: part.factors for name, part in found.items()}, record=record), error


def merge_experts(
    experts: ExpertSet, weights: Tensor, rank: int, name: str, groups: Mapping[str, int] | None = None
) -> tuple[Expert, float]:
    """The weighted sum of a set as one expert of at most `rank` in each matrix, and its relative Frobenius error.

    Args:
        weights: (G, K) of a router. groups: row of the weights that each matrix takes; None takes row 0 for all.

    Raises:
        ConfigError: a rank below 1.
    """
    found = {
        matrix: refactor(side_by_side(scaled_factors(experts, matrix), weights_of(weights, matrix, groups)), rank)
        for matrix in experts.experts[0].factors
    }
    error = relative_error(list(found.values()))
    merged = {expert.name: expert.fingerprint for expert in experts.experts}
    record = {"merged": {"experts": merged, "weights": weights.tolist(), "rank": rank, "error": error}}
    factors = {matrix: part.factors for matrix, part in found.items()}
    return Expert(name, experts.experts[0].base, 1.0, factors, experts.subjects, record), error


def scaled_factors(experts: ExpertSet, matrix: str) -> list[Factors]:
    """Factors of one matrix of every expert, in the order of the set, each one's scale in its singular values."""
    triples = ((expert.scale, *expert.factors[matrix]) for expert in experts.experts)
    return [(u, singular * scale, v) for scale, u, singular, v in triples]


def weights_of(weights: Tensor, matrix: str, groups: Mapping[str, int] | None) -> Tensor:
    """The row (K,) of weights (G, K) that a matrix takes; row 0 where there are no groups."""
    return weights[0 if groups is None else groups[matrix]]


def reduce_set(experts: ExpertSet, rank: int | None, out: Path) -> list[dict[str, Any]]:
    """Save a set with at most `rank` in each matrix of its experts, or as it is where that is None.

    Returns:
        one row for each expert: its average rank and its numbers before and after, and the relative error.

    Raises:
        ConfigError: a rank below 1. StafError: `out` is there already, or cannot be written; nothing is left there.
    """
    pairs = [(expert, *((expert, 0.0) if rank is None else reduce_expert(expert, rank))) for expert in experts.experts]
    write_set(out, [smaller for _, smaller, _ in pairs])
    return [
        {
            "expert": expert.name,
            "average_rank": round(average_rank(smaller), 2),
            "average_rank_before": round(average_rank(expert), 2),
            "numbers": count_numbers(smaller),
            "numbers_before": count_numbers(expert),
            "error": round(error, 6),
        }
        for expert, smaller, error in pairs
    ]
